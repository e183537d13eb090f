"""Exclusion and progress under lost, doubled and late requests, judged by the bodies themselves."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Dict, List, NamedTuple, Optional

import pytest

from celery_redlock.core import ports, timing
from celery_redlock.core.ports import (
    Closed,
    Confirm,
    Extended,
    Gone,
    Granted,
    Leave,
    Line,
    NoAnswer,
    Queued,
    Store,
    Terms,
    Unknown,
)
from celery_redlock.core.timing import LATE_MS
from celery_redlock.core.why import is_overflow
from tests.contract.desk import Desk, said, until
from tests.contract.faults import BadNetwork

SECONDS = 4.0
CLIENTS = 10
LEASE = 0.8
LEASE_MS, GRANT_MS, WAITER_MS = 800, 300, 800


class Kind(NamedTuple):
    resource: str
    limit: int = 1
    shared: float = 0.0
    max_waiting: int = 0
    overflow: str = "skip"


KINDS = [
    Kind("one"),
    Kind("one"),
    Kind("limit 3", limit=3),
    Kind("readers and writers", shared=0.6),
    Kind("at most one waits", max_waiting=1),
    Kind("latest wins", max_waiting=2, overflow="drop_oldest"),
]


class Hold(NamedTuple):
    token: str
    kind: Kind
    mode: str
    fence: int
    trusted_until: float


class Judge:
    """Knows which bodies run; who no longer trusts is not counted, for it knows."""

    def __init__(self) -> None:
        self.verdicts: List[str] = []
        self._inside: Dict[str, Hold] = {}
        self._fences: Dict[str, int] = {}
        self._mutex = threading.Lock()

    def enter(self, hold: Hold) -> None:
        with self._mutex:
            now = time.monotonic()
            if now >= hold.trusted_until:
                return
            others = [
                other
                for other in self._inside.values()
                if other.kind.resource == hold.kind.resource and other.trusted_until > now
            ]
            if any("exclusive" in (other.mode, hold.mode) for other in others) and (
                len(others) >= hold.kind.limit or any(o.mode != hold.mode for o in others)
            ):
                self.verdicts.append(f"{hold} runs beside {others}")
            self._judge_fence(hold)
            self._inside[hold.token] = hold

    def trusts_longer(self, hold: Hold) -> None:
        with self._mutex:
            self._inside[hold.token] = hold

    def leave(self, hold: Hold) -> None:
        with self._mutex:
            self._inside.pop(hold.token, None)

    def _judge_fence(self, hold: Hold) -> None:
        last = self._fences.get(hold.kind.resource, 0)
        if hold.mode == "exclusive" and hold.kind.limit == 1 and hold.fence < last:
            self.verdicts.append(f"{hold} runs after fence {last}")
        self._fences[hold.kind.resource] = max(last, hold.fence)


class Client:
    """Asks, waits, holds, renews, lapses, gives up, crashes and releases, at random."""

    def __init__(
        self, name: int, store: BadNetwork, judge: Judge, seed: int, counts: Counter[str]
    ) -> None:
        self._name = name
        self._store = store
        self._judge = judge
        self._random = random.Random(seed * 1000 + name)
        self._counts = counts
        self._inbox = store.subscribe(str(name))
        self._orphans: Dict[str, str] = {}
        self._tainted = False

    def run(self, end: float) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            self._tainted = False
            token = f"{self._name}.{turn}"
            kind = self._random.choice(KINDS)
            mode = "shared" if self._random.random() < kind.shared else "exclusive"
            hold = self._acquire(token, kind, mode)
            if hold:
                self._counts["held"] += 1
                self._use(hold)
            if self._random.random() < 0.02:
                self._counts["crashed"] += 1
            else:
                self._release(token, kind)
        self._inbox.close()

    def _acquire(self, token: str, kind: Kind, mode: str) -> Optional[Hold]:
        give_up = time.monotonic() + self._random.choice([0.05, 0.5, 3.0])
        seq = 0
        while True:
            sent = time.monotonic()
            line = Line(str(self._name), WAITER_MS, GRANT_MS, seq, kind.max_waiting, kind.overflow)
            orphan = self._orphans.get(kind.resource)
            try:
                answer = self._store.acquire(
                    ports.Acquire(
                        kind.resource,
                        token,
                        Terms(mode, kind.limit, LEASE_MS),
                        "record",
                        line,
                        orphans=(orphan,) if orphan else (),
                    )
                )
            except NoAnswer:
                self._tainted = True
                if self._random.random() < 0.3:
                    return None
                continue
            self._orphans.pop(kind.resource, None)
            if isinstance(answer, Granted):
                trust = timing.trusted_until(sent, LEASE)
                return Hold(token, kind, mode, answer.fence, trust)
            if not isinstance(answer, Queued):
                self._counts[type(answer).__name__] += 1
                assert not isinstance(answer, Closed) or is_overflow(answer.why)
                return None
            seq = answer.seq
            if not self._await_turn(token, kind, answer, give_up):
                return None

    def _await_turn(self, token: str, kind: Kind, place: Queued, give_up: float) -> bool:
        while time.monotonic() < give_up:
            silence = WAITER_MS / 3000
            if place.rank == 0:
                silence = min(silence, place.next_ms / 1000 + timing.PAST_DEADLINE)
            woken = said(self._inbox.get(silence)) == f"G {token}"
            if woken and self._random.random() > 0.05:
                self._counts["woken"] += 1
                return True
            try:
                beat = self._store.heartbeat([ports.Beat(kind.resource, token, WAITER_MS)])[0]
            except NoAnswer:
                continue
            if isinstance(beat, (Confirm, Unknown, Closed)):
                return True
            assert isinstance(beat, Queued)
            place = beat
        return False

    def _use(self, hold: Hold) -> None:
        self._judge.enter(hold)
        fate = self._random.random()
        if fate < 0.85:
            time.sleep(self._random.random() * 0.006)
        else:
            hold = self._renew_for_a_while(hold)
        self._judge.leave(hold)
        if fate > 0.97:
            self._lapse_and_return(hold)

    def _renew_for_a_while(self, hold: Hold) -> Hold:
        for _ in range(3):
            time.sleep(self._random.random() * 0.25)
            sent = time.monotonic()
            if sent > hold.trusted_until:
                break
            answer = self._renew(hold)
            if isinstance(answer, Extended):
                hold = hold._replace(trusted_until=timing.trusted_until(sent, LEASE))
                self._judge.trusts_longer(hold)
            elif isinstance(answer, Gone) and time.monotonic() < hold.trusted_until:
                self._judge.verdicts.append(f"{hold} was lost while it trusted")
        return hold

    def _lapse_and_return(self, hold: Hold) -> None:
        time.sleep(LEASE * 1.1)
        sent = time.monotonic()
        answer: object = self._renew(hold)
        if isinstance(answer, Gone):
            answer = self._reestablish(hold)
        self._counts[f"return: {type(answer).__name__}"] += 1
        if isinstance(answer, Extended):
            hold = hold._replace(trusted_until=timing.trusted_until(sent, LEASE))
            self._judge.enter(hold)
            self._judge.leave(hold)

    def _renew(self, hold: Hold) -> ports.RenewAnswer:
        try:
            renewal = ports.Renew(hold.kind.resource, hold.token, hold.fence, LEASE_MS)
            return self._store.renew([renewal])[0]
        except NoAnswer as silence:
            return silence

    def _reestablish(self, hold: Hold) -> object:
        terms = Terms(hold.mode, hold.kind.limit, LEASE_MS)
        try:
            return self._store.reestablish(
                ports.Reestablish(
                    hold.kind.resource, hold.token, hold.fence, terms, "record", False
                )
            )
        except NoAnswer as silence:
            self._tainted = True
            return silence

    def _release(self, token: str, kind: Kind) -> None:
        orphan = self._orphans.get(kind.resource)
        tokens = (token, orphan) if orphan else (token,)
        tomb_ms = LATE_MS if self._tainted or orphan else 0
        for _ in range(4):
            try:
                self._store.leave(Leave(kind.resource, tokens, tomb_ms, lease_ms=LEASE_MS))
                self._orphans.pop(kind.resource, None)
                return
            except NoAnswer:
                self._counts["release unanswered"] += 1
        if not orphan:
            self._orphans[kind.resource] = token


@pytest.mark.timeout(60)
def test_nothing_overlaps_and_nothing_sticks_on_a_bad_network(store: Store) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    network, judge = BadNetwork(store, seed), Judge()
    counts: Counter[str] = Counter()
    clients = [Client(number, network, judge, seed, counts) for number in range(CLIENTS)]
    failures: List[BaseException] = []
    end = time.monotonic() + SECONDS

    def run(client: Client) -> None:
        try:
            client.run(end)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a client hangs"
    network.settle()
    if failures:
        raise failures[0]
    print(dict(counts), "late copies", network.late_copies)  # noqa: T201 - shown when it fails
    assert judge.verdicts == []
    assert counts["held"] > 50
    assert network.late_copies > 10
    for kind in KINDS:
        desk = Desk(store, kind.resource)
        until(lambda: isinstance(desk.ask("the last"), Granted), "it becomes free")  # noqa: B023
        assert desk.live() == ["the last"]
