"""Who stands first in line takes the place of a holder that has died, within a second of its death.
Where the first in line has died as well, another does.

By a fake clock: the worst moment to die is right after a look.
"""

from __future__ import annotations

from typing import List, Set

import pytest

from celery_redlock.core.lifecycle import Move
from celery_redlock.core.ports import Queued, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import identity, native
from celery_redlock.locking.ask import Ask
from celery_redlock.locking.asker import Asker, Ended, Pending
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Patience
from celery_redlock.locking.steps import Bury, Look, Send, Stand
from celery_redlock.store.memory import MemoryStore
from tests.core.test_asker_programs import Line
from tests.core.test_hold_machine import Clock

#: The promise is a second; what is left of it is for the machine.
WITHIN = 0.8

HOLDER, WAITER, NEXT = 4711, 4712, 4713


class Waiter:
    """A process that has one ask in line, which it answers as soon as it is woken."""

    def __init__(self, clock: Clock, server: MemoryStore, dead: Set[int]) -> None:
        self.woken_at: List[float] = []
        self._clock = clock
        self._server = server
        self.manager = Manager(
            Line(server),  # type: ignore[arg-type]
            lambda event: None,
            clock=clock.seconds,
            is_dead=lambda record: record.pid in dead,
        )
        self.asker = Asker(self.manager)
        self.inbox = server.subscribe(self.manager.wakeups.inbox)

    def queued(self, pending: Pending) -> None: ...

    def woken(self, pending: Pending) -> None:
        self.woken_at.append(self._clock.now)

    def done(self, pending: Pending, ended: Ended) -> None: ...

    def turn(self) -> None:
        self.asker.round()
        self.manager.watchdog.round()
        message = self.inbox.get(0)
        if message is not None:
            self.manager.wakeups.hear(message)
            self.asker.round()


def hold_of(pid: int) -> Hold:
    me = identity.here()
    record = Record(
        me.host, pid, 0.0, boot_id=me.boot_id or "boot", pid_namespace=me.pid_namespace or "pids"
    )
    return Hold("r", Terms(lease_ms=3_600_000), record)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test makes all rounds itself."""
    monkeypatch.setattr(native, "start_thread", lambda run: None)


@pytest.mark.parametrize("hundredths", range(0, 100, 5))
def test_a_parked_task_is_woken(hundredths: int) -> None:
    clock = Clock()
    dead: Set[int] = set()
    server = MemoryStore(clock_ms=clock.server_ms)
    holder, waiter = Waiter(clock, server, dead), Waiter(clock, server, dead)
    holder.manager.acquire(hold_of(HOLDER))
    waiter.asker.ask([hold_of(WAITER)], Patience(), waiter)
    for _ in range(300 + hundredths):
        waiter.turn()
        clock.now += 0.01
    assert not waiter.woken_at, "its holder lives"
    dead.add(HOLDER)
    died_at = clock.now
    while not waiter.woken_at and clock.now < died_at + 5.0:
        waiter.turn()
        clock.now += 0.01
    assert waiter.woken_at, "it was never woken"
    assert waiter.woken_at[0] - died_at < WITHIN


@pytest.mark.parametrize("hundredths", range(0, 150, 10))
def test_so_is_who_has_just_become_the_first_behind_another_process(hundredths: int) -> None:
    clock = Clock()
    dead: Set[int] = set()
    server = MemoryStore(clock_ms=clock.server_ms)
    holder, granted, behind = (Waiter(clock, server, dead) for _ in range(3))
    held = hold_of(HOLDER)
    holder.manager.acquire(held)
    pending = granted.asker.ask([hold_of(WAITER)], Patience(), granted)
    granted.turn()
    behind.asker.ask([hold_of(NEXT)], Patience(), behind)
    for _ in range(20):
        granted.turn()
        behind.turn()
        clock.now += 0.01
    holder.manager.release(held)
    granted.turn()
    assert pending.take() is not None, "the release grants it"
    died_at = clock.now + hundredths / 100
    while not behind.woken_at and clock.now < died_at + 5.0:
        if clock.now >= died_at:
            dead.add(WAITER)
        else:
            granted.turn()
        behind.turn()
        clock.now += 0.01
    assert behind.woken_at, "it was never woken"
    assert died_at < behind.woken_at[0] < died_at + 1.0


def behind_the_dead(holds: bool, hundredths: int) -> float:
    """Seconds for which who is behind three waiters of one process waits after its death, which
    holds it as well or is granted it just then."""
    clock = Clock()
    dead: Set[int] = set()
    server = MemoryStore(clock_ms=clock.server_ms)
    living, doomed, behind = (Waiter(clock, server, dead) for _ in range(3))
    held = hold_of(WAITER if holds else HOLDER)
    living.manager.acquire(held)
    for _ in range(3):
        doomed.asker.ask([hold_of(WAITER)], Patience(), doomed)
    doomed.turn()
    behind.asker.ask([hold_of(NEXT)], Patience(), behind)
    for _ in range(600 + hundredths):
        doomed.turn()
        behind.turn()
        clock.now += 0.01
    assert not behind.woken_at
    dead.add(WAITER)
    died_at = clock.now
    if not holds:
        living.manager.release(held)
    while not behind.woken_at and clock.now < died_at + 20.0:
        behind.turn()
        clock.now += 0.01
    assert behind.woken_at, "it was never woken"
    assert len(server.inspect("r").holders) == 1
    return behind.woken_at[0] - died_at


@pytest.mark.parametrize("hundredths", range(0, 500, 25))
def test_another_does_where_the_first_in_line_has_died_with_the_holder(hundredths: int) -> None:
    assert behind_the_dead(holds=True, hundredths=hundredths) < 2 * WITHIN


@pytest.mark.parametrize("hundredths", range(0, 500, 25))
def test_or_is_granted_it_when_it_is_dead(hundredths: int) -> None:
    """Then it is seen in the next heartbeat's answer."""
    assert behind_the_dead(holds=False, hundredths=hundredths) < 5.0 + 2 * WITHIN


def test_who_is_not_first_in_line_leaves_it_to_the_first() -> None:
    clock = Clock()
    dead: Set[int] = set()
    server = MemoryStore(clock_ms=clock.server_ms)
    holder, first, second = (Waiter(clock, server, dead) for _ in range(3))
    holder.manager.acquire(hold_of(HOLDER))
    looks: List[str] = []
    second.asker.see = lambda name: looks.append(name) or server.inspect(name)  # type: ignore
    for waiter in (first, second):
        waiter.asker.ask([hold_of(WAITER)], Patience(), waiter)
        waiter.turn()
    for _ in range(600):
        first.turn()
        second.turn()
        clock.now += 0.01
    dead.add(HOLDER)
    while not first.woken_at:
        first.turn()
        second.turn()
        clock.now += 0.01
    assert looks == []


def test_who_waits_in_place_looks() -> None:
    clock = Clock()
    server = MemoryStore(clock_ms=clock.server_ms)
    dead: Set[int] = set()
    holder, waiter = Waiter(clock, server, dead), Waiter(clock, server, dead)
    holder.manager.acquire(hold_of(HOLDER))
    hold = hold_of(WAITER)
    hold.move(Move.ASKED)
    steps = Ask(waiter.manager, [hold], Patience()).steps()
    send = next(steps)
    assert isinstance(send, Send)
    answers = waiter.manager.store.acquire_all(send.requests)
    assert isinstance(answers[0], Queued)
    stand = steps.send((answers, clock.now))
    assert isinstance(stand, Stand)
    assert stand.seconds < WITHIN
    dead.add(HOLDER)
    clock.now += stand.seconds
    look = steps.send(False)
    assert isinstance(look, Look)
    bury = steps.send(server.inspect(look.resource))
    assert isinstance(bury, Bury)
    left = server.leave(bury.request)
    assert left.what == "holder"


def test_nobody_is_buried_whose_hold_has_become_anothers_since_it_was_seen() -> None:
    """As what is kept over a retry, or was handed to a child that outlives its parent."""
    clock = Clock()
    server = MemoryStore(clock_ms=clock.server_ms)
    dead: Set[int] = set()
    holder, waiter = Waiter(clock, server, dead), Waiter(clock, server, dead)
    held = hold_of(HOLDER)
    holder.manager.acquire(held)
    waiter.asker.ask([hold_of(WAITER)], Patience(), waiter)
    waiter.turn()
    holder.manager.keep(held, "its retry", 3600.0)
    dead.add(HOLDER)
    for _ in range(400):
        waiter.turn()
        clock.now += 0.01
    assert not waiter.woken_at
    (seen,) = server.inspect("r").holders
    assert (seen.token, seen.state) == (held.token, "kept")
