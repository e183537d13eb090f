"""Random programs of pending asks, under a fake clock, on a network that loses things.

Two processes ask for few resources, for one or for several at once, and decide at random who goes
on, who stands back and who is cancelled. Whatever the order of events: each ask ends exactly once,
no two owners believe in one resource at once, and when the faults stop nothing is left.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Callable, Dict, List, Sequence, Set

import pytest

from celery_redlock.core import ports
from celery_redlock.core.lifecycle import LIVING
from celery_redlock.core.ports import NoAnswer, Terms
from celery_redlock.core.record import Record
from celery_redlock.exceptions import LockLost
from celery_redlock.locking import native
from celery_redlock.locking.asker import Asker, Ended, Pending
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Cancelled, Held, Patience, StoodBack
from celery_redlock.store.batches import acquire_each, leave_each
from celery_redlock.store.memory import MemoryStore
from tests.core.test_hold_machine import Clock, Network

LEASE = 3.0
RESOURCES = (("a",), ("b",), ("a", "b"), ("a", "b", "c"))
OUTCOMES = ("Held", "Taken", "Dropped", "GaveUp", "StoodBack", "Cancelled", "NoAnswer")
#: An answered request leaves no copy behind: it is sent once, and so does TCP.
FAULTS = ("request lost", "request late", "answer lost", "")


class Line(Network):
    """The same faults for batches, each part by itself; ``meanwhile`` is what others do then."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.meanwhile: Callable[[], None] = lambda: None

    def acquire(self, request: ports.Acquire) -> ports.AcquireAnswer:
        self.meanwhile()
        return super().acquire(request)

    def acquire_all(self, requests: Sequence[ports.Acquire]) -> Sequence[ports.AcquireAnswer]:
        answers: Sequence[ports.AcquireAnswer] = self._send(
            lambda: self.store.acquire_all(requests)
        )
        return answers

    def acquire_batch(self, asks: Sequence[Sequence[ports.Acquire]]) -> List[ports.AskAnswer]:
        return acquire_each(self, asks)  # type: ignore[arg-type]

    def leave_batch(self, requests: Sequence[ports.Leave]) -> List[ports.LeaveAnswer]:
        return leave_each(self, requests)  # type: ignore[arg-type]

    def has_broken(self) -> bool:
        return False

    def heartbeat(self, requests: Sequence[ports.Beat]) -> Sequence[ports.BeatAnswer]:
        try:
            answers: Sequence[ports.BeatAnswer] = self._send(lambda: self.store.heartbeat(requests))
            return answers
        except NoAnswer as silence:
            return [silence] * len(requests)


class Process:
    """One process: it hears all that its pending asks tell."""

    def __init__(self, server: MemoryStore, clock: Clock) -> None:
        self.network = Line(server)
        self.manager = Manager(
            self.network,  # type: ignore[arg-type]
            lambda event: None,
            clock=clock.seconds,
        )
        self.asker = Asker(self.manager)
        self.inbox = server.subscribe(self.manager.wakeups.inbox)
        self.asked: List[Pending] = []
        self.waiting: Set[Pending] = set()
        self.to_answer: List[Pending] = []
        self.cancelled: Set[Pending] = set()
        self.ended: Dict[Pending, Ended] = {}
        self.bodies: List[Hold] = []
        self.took = 0

    def queued(self, pending: Pending) -> None:
        assert pending not in self.ended
        self.waiting.add(pending)

    def woken(self, pending: Pending) -> None:
        assert pending in self.waiting
        self.waiting.discard(pending)
        self.to_answer.append(pending)

    def done(self, pending: Pending, ended: Ended) -> None:
        assert pending not in self.ended, "it ended twice"
        assert not isinstance(ended, Exception) or isinstance(ended, (NoAnswer, LockLost)), ended
        assert pending not in self.cancelled or isinstance(ended, Cancelled)
        self.ended[pending] = ended
        self.waiting.discard(pending)
        if isinstance(ended, Held):
            self.bodies += ended.holds
        elif isinstance(ended, StoodBack):
            self.ask_again(pending, ended)

    def ask_again(self, pending: Pending, ended: StoodBack) -> None:
        """Take the places once more, if there were any."""
        if any(ended.seqs):
            holds = [self.hold(hold.resource) for hold in pending.holds]
            for hold, seq in zip(holds, ended.seqs):
                hold.seq = seq
            self.asked.append(self.asker.ask(holds, Patience(), self))

    def hold(self, resource: str) -> Hold:
        return Hold(resource, Terms(lease_ms=int(LEASE * 1000)), Record("here", 1, 0.0))

    def hear(self, loses: bool) -> None:
        while True:
            message = self.inbox.get(0)
            if message is None:
                return
            if not loses:
                self.manager.wakeups.hear(message)


class Program:
    """Random moves of two processes, one after the other; ``counts`` says what came of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.server = MemoryStore(clock_ms=self.clock.server_ms)
        self.processes = [Process(self.server, self.clock) for _ in range(2)]
        self.here = self.processes[0]
        for process in self.processes:
            process.network.meanwhile = self._meanwhile

    def run(self, steps: int) -> None:
        moves = {
            self.ask: 3,
            self.asker: 12,
            self.inbox: 8,
            self.answer_woken: 6,
            self.release: 6,
            self.watchdog: 4,
            self.time_passes: 3,
            self.cancel: 1,
            self.stand_back: 1,
            self.line_fails: 2,
            self.late_copy_arrives: 2,
        }
        for move in self.random.choices(list(moves), list(moves.values()), k=steps):
            self.here = self.random.choice(self.processes)
            move()
            self.judge()

    def ask(self) -> None:
        patience = self.random.choice(
            [
                None,
                Patience(),
                Patience(),
                Patience(until=self.clock.now + 2.0),
                Patience(max_waiting=2, overflow="drop_oldest"),
                Patience(rides_out=False),
            ]
        )
        for _ in range(self.random.randint(1, 4)):
            holds = [self.here.hold(name) for name in self.random.choice(RESOURCES)]
            self.here.asked.append(self.here.asker.ask(holds, patience, self.here))

    def asker(self) -> None:
        self.here.asker.round()

    def watchdog(self) -> None:
        self.here.manager.watchdog.round()

    def inbox(self) -> None:
        self.here.hear(loses=self.random.random() < 0.2)

    def answer_woken(self) -> None:
        while self.here.to_answer:
            pending = self.here.to_answer.pop(0)
            if self.random.random() < 0.8:
                # Either is enough where nothing need be asked.
                held = pending.take() if self.random.random() < 0.7 else None
                if held is not None:
                    self.here.took += 1
                    self.here.done(pending, held)
                else:
                    pending.go_on()
            else:
                pending.stand_back()

    def cancel(self) -> None:
        for pending in self._some_pending():
            if pending.cancel():
                self.here.cancelled.add(pending)

    def stand_back(self) -> None:
        for pending in self._some_pending():
            pending.stand_back()
            if self.random.random() < 0.2 and pending.cancel():
                self.here.cancelled.add(pending)

    def _meanwhile(self) -> None:
        if self.random.random() < 0.2:
            self.random.choice([self.cancel, self.stand_back])()

    def release(self) -> None:
        if self.here.bodies:
            self.here.manager.release(self.here.bodies.pop(0))

    def time_passes(self) -> None:
        self.clock.now += self.random.choice((0.1, 0.5, 1.0, 2.0, 4.0))

    def line_fails(self) -> None:
        self.here.network.faults = self.random.choices(FAULTS, k=4)

    def late_copy_arrives(self) -> None:
        if self.here.network.late:
            self.here.network.late.pop(0)()

    def _some_pending(self) -> List[Pending]:
        # Perhaps one that has ended: nothing comes of that.
        latest = self.here.asked[-8:]
        return self.random.sample(latest, min(2, len(latest)))

    def judge(self) -> None:
        for name in "abc":
            believers = [
                hold
                for process in self.processes
                for hold in process.bodies
                if hold.resource == name
                and hold.state in LIVING
                and hold.trusted_until > self.clock.now
            ]
            assert len(believers) <= 1, f"{believers} all believe"

    def end(self) -> None:
        """Everybody goes home: nothing may be left."""
        for process in self.processes:
            process.network.faults = []
            while not process.asker.is_idle:
                process.asker.cancel_all(list(process.asked))
                process.asker.round()
            for hold in process.bodies:
                process.manager.release(hold)
        self.clock.now += 6.0  # until the last release that was not answered is tried again
        for process in self.processes:
            process.manager.watchdog.round()
        for process in self.processes:
            for copy in process.network.late:
                copy()
            assert process.manager.is_idle, "something is left in a table"
            assert set(process.asked) == set(process.ended), "an ask has not ended"
        for name in "abc":
            view = self.server.inspect(name)
            assert not view.waiters, "somebody is left in line"
            assert not any(holder.remaining_ms > 0 for holder in view.holders), "a hold is left"


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program makes all rounds itself."""
    monkeypatch.setattr(native, "start_thread", lambda run: None)


@pytest.mark.usefixtures("_no_threads")
def test_each_ask_ends_once_and_no_two_believe_and_nothing_is_left() -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        print(f"seed {seed}")  # noqa: T201 - shown when it fails
        program = Program(seed)
        program.run(400)
        program.end()
        for process in program.processes:
            counts.update(type(ended).__name__ for ended in process.ended.values())
            counts["taken"] += process.took
    print(dict(counts))  # noqa: T201 - shown when it fails
    for outcome in (
        "Held",
        "Taken",
        "Dropped",
        "GaveUp",
        "StoodBack",
        "Cancelled",
        "NoAnswer",
        "taken",
    ):
        assert counts[outcome] > 20, f"it came to {outcome} too seldom to say much"
