"""Bodies that lock several accounts and call one another in any order: all come to an end.

Out of a body one may ask for what stands before what is held; two such bodies can wait for each
other, and then the bound on their waits ends it.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, Callable, List

import pytest

from tests.harness.locked_shop import LockedShop, eventually
from tests.worker.conftest import lock_server, make_locked_shop, redis_server  # noqa: F401

BOUND = 0.3
#: A wait may last so much longer than its bound on a busy machine.
ROOM = 4.0
SOON = 90.0
AT_ONCE = 16

ACCOUNTS = [f"program-{letter}" for letter in "abcdef"]


def some_steps(choose: random.Random, depth: int) -> List[Any]:
    steps: List[Any] = [round(choose.random() * 0.01, 4)]
    while depth and choose.random() < 0.4:
        called = choose.sample(ACCOUNTS, choose.randint(1, 2))
        steps.append([called, some_steps(choose, depth - 1)])
    return steps


def longest_pause(shop: LockedShop) -> float:
    """Seconds for which no body began or ended."""
    bodies = [body for body in shop.bodies.bodies() if body.end is not None]
    moments = sorted(moment for body in bodies for moment in (body.start, body.end))
    return max(later - earlier for earlier, later in zip(moments, moments[1:])) / 1e9


@pytest.mark.parametrize(
    "seconds",
    [8, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(300)])],
)
@pytest.mark.parametrize("seed", [1, int(os.environ["REDLOCK_TEST_SEED"])], ids="seed-{}".format)
def test_programs_of_nested_calls_end_within_the_bound_and_never_overlap(
    make_locked_shop: Callable[..., LockedShop],  # noqa: F811
    seconds: float,
    seed: int,
) -> None:
    choose = random.Random(seed)
    shop = make_locked_shop(redlock_nested_wait_timeout=BOUND)
    for worker in [shop.worker(concurrency=4, ready=False) for _ in range(2)]:
        worker.wait_until_ready()

    ends = time.monotonic() + seconds
    results: List[Any] = []
    told: List[Any] = []
    while time.monotonic() < ends:
        while len(results) < AT_ONCE:
            accounts = choose.sample(ACCOUNTS, choose.randint(1, 3))
            results.append(shop.send("perform", accounts, some_steps(choose, 2)))
        told.append(results.pop(0).get(timeout=SOON))
    told += [result.get(timeout=SOON) for result in results]

    waits = [wait for each in told for wait in each["gave_up"]]
    assert sum(each["ran"] for each in told) > len(told) > seconds
    assert waits, "no two of them ever wanted what the other had"
    assert max(waits) < BOUND + ROOM
    assert longest_pause(shop) < BOUND + ROOM
    shop.bodies.assert_exclusive()
    shop.bodies.assert_fences_grow()
    for account in ACCOUNTS:
        assert eventually(lambda name=account: shop.locks.is_free(name))
        assert not shop.locks.waiting_tasks(account)
