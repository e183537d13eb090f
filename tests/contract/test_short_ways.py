"""A script that is told without its helpers does what it does with them, whatever it finds.

Also in states that no script leaves behind: who meets one is to heal it.
"""

from __future__ import annotations

import random
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import redis

from celery_redlock.store.scripts import source
from tests.harness.servers import LockServer

KEYS = ["{r}:h", "{r}:q", "{r}:w"]
NOW_US = 1_800_000_000_000_000
NOW = NOW_US // 1000

LEAVE = source("leave.lua")
SHORT_WAY = "if ARGV[1] == '0' and #ARGV == 5 and not forced then"


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    server = LockServer.start()
    yield server
    server.stop()


def stopped(script: str) -> str:
    """The script with a clock that stands still: fences and deadlines are then the same."""
    assert "call('TIME')" in script
    clock = f"{{'{NOW_US // 10**6}', '{NOW_US % 10**6}'}}"
    return script.replace("redis.call('TIME')", clock).replace("call('TIME')", clock)


def any_state(dice: random.Random) -> Tuple[str, Dict[str, Dict[str, Any]]]:
    """Who leaves, and what is in the three keys: every token in one place of it."""
    tokens = [letter * 32 for letter in "abcde"]
    dice.shuffle(tokens)
    leaving = tokens[0]
    h: Dict[str, Any] = {"f": NOW_US + dice.choice([-(10**6), 0, 10**6])}
    if dice.random() < 0.1:
        h["r"] = NOW_US - 10**5
    if dice.random() < 0.1:
        h[f"x:{dice.choice(tokens)}"] = f"{NOW + 5000}|left"
    held = [leaving] * (dice.random() < 0.7) + tokens[3 : 3 + dice.choice([0, 0, 0, 1, 2])]
    for at, token in enumerate(held):
        deadline, state = NOW + dice.choice([-1000, 0, 1, 60_000]), dice.choice("gc")
        mode, limit = dice.choice("xxxs"), dice.choice([1, 1, 2])
        h[f"h:{token}"] = f"{deadline}|{NOW_US - 10**6 + at}|{mode}|{limit}|{state}||one"
    waiting = tokens[1 : 1 + dice.choice([0, 1, 2])] + [leaving] * (leaving not in held)
    dice.shuffle(waiting)
    w = {}
    for token in waiting:
        if dice.random() < 0.95:
            deadline, limit = (
                NOW + dice.choice([-1, 0, 1, 9000, 9000, 9000]),
                dice.choice([1, 1, 2, 11]),
            )
            record = dice.choice(['{"id":"a"}', "a|b|c", ""])
            w[token] = f"{deadline}|{dice.choice('xxxs')}|{limit}|30000|in|{record}"
    return leaving, {"h": h, "q": {token: at for at, token in enumerate(waiting)}, "w": w}


def after(client: redis.Redis, script: str, leaving: str, state: Dict[str, Dict[str, Any]]) -> Any:
    """The answer, what is left in the keys and what was told."""
    client.flushdb()
    client.hset(KEYS[0], mapping=state["h"])
    if state["q"]:
        client.zadd(KEYS[1], state["q"])
    if state["w"]:
        client.hset(KEYS[2], mapping=state["w"])
    with client.pubsub() as inbox:
        inbox.subscribe("in")
        assert inbox.get_message(timeout=5)
        answer = client.eval(script, 3, *KEYS, "0", "0", "300000", "left", leaving)
        client.publish("in", "end")
        told: List[Any] = []
        while not told or told[-1] != "end":
            message = inbox.get_message(timeout=5)
            assert message is not None
            told.append(message["data"])
    line = client.zrange(KEYS[1], 0, -1, withscores=True)
    return answer, client.hgetall(KEYS[0]), line, client.hgetall(KEYS[2]), told


@pytest.mark.parametrize("seed", range(8))
def test_a_release_does_the_same_either_way(server: LockServer, seed: int) -> None:
    long_way = LEAVE.replace(SHORT_WAY, "if false then")
    assert long_way != LEAVE
    dice, client = random.Random(seed), server.client()
    for _ in range(100):
        leaving, state = any_state(dice)
        one, other = (after(client, stopped(s), leaving, state) for s in (LEAVE, long_way))
        assert one == other, (leaving, state)
