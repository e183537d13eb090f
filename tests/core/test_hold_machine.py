"""Holds against a model: random lives under a fake clock, with answers lost, late and doubled.

The model knows only what a person would: who was told that he holds the lock and until when he may
believe it. Whatever the order of events, no two believe at once, nothing is renewed after its end,
and when the faults stop nothing is left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable, Dict, List, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from celery_redlock.core.lifecycle import FINAL, LIVING, State
from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Leave,
    Left,
    NoAnswer,
    Reestablish,
    ReestablishAnswer,
    Renew,
    RenewAnswer,
    ResourceView,
    Terms,
)
from celery_redlock.core.record import Record
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from celery_redlock.store.memory import MemoryStore

LEASE = 3.0


class Clock:
    """One clock for everybody, in seconds; the server's begins elsewhere."""

    def __init__(self) -> None:
        self.now = 1000.0

    def seconds(self) -> float:
        return self.now

    def server_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now * 1000)


class Network:
    """A store behind a line that loses requests, loses answers and delivers copies late."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.faults: List[str] = []
        self.late: List[Callable[[], Any]] = []
        self.renewed: List[str] = []

    def acquire(self, request: Acquire) -> AcquireAnswer:
        return self._send(lambda: self.store.acquire(request))

    def leave(self, request: Leave) -> Left:
        return self._send(lambda: self.store.leave(request))

    def reestablish(self, request: Reestablish) -> ReestablishAnswer:
        return self._send(lambda: self.store.reestablish(request))

    def inspect(self, resource: str) -> ResourceView:
        view: ResourceView = self._send(lambda: self.store.inspect(resource))
        return view

    def has_broken(self) -> bool:
        return False

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]:
        self.renewed += [request.token for request in requests]
        try:
            answers: Sequence[RenewAnswer] = self._send(lambda: self.store.renew(requests))
            return answers
        except NoAnswer as silence:
            return [silence] * len(requests)

    def secure(self, request: Renew) -> None:
        self.renewed.append(request.token)
        with suppress(NoAnswer):
            self._send(lambda: self.store.secure(request))

    def _send(self, call: Callable[[], Any]) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "request lost":
            raise NoAnswer("server")
        if fault == "request late":
            self.late.append(call)
            raise NoAnswer("server")
        if fault == "answer lost":
            call()
            raise NoAnswer("server")
        if fault == "request doubled":
            self.late.append(call)
        return call()


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine runs the watchdog's rounds itself."""
    monkeypatch.setattr(native, "start_thread", lambda run: None)


class Holds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.server = MemoryStore(clock_ms=self.clock.server_ms)
        self.networks = [Network(self.server), Network(self.server)]
        self.managers = [
            Manager(network, lambda event: None, clock=self.clock.seconds)  # type: ignore[arg-type]
            for network in self.networks
        ]
        self.bodies: Dict[int, Hold] = {}
        self.ended: List[Hold] = []
        self.fences: List[int] = []

    processes = st.integers(0, 1)

    @rule(process=processes)
    def ask(self, process: int) -> None:
        if process in self.bodies:
            return
        hold = Hold("r", Terms(lease_ms=int(LEASE * 1000)), Record("here", process, 0.0))
        try:
            outcome = self.managers[process].acquire(hold)
        except NoAnswer:
            self.ended.append(hold)
            assert hold.state is State.ABANDONED
            return
        if isinstance(outcome, Held):
            self.bodies[process] = hold
            assert hold.fence is not None
            assert hold.fence not in self.fences, "a fence was given twice"
            if self.fences:
                assert hold.fence > max(self.fences), "a fence went back"
            self.fences.append(hold.fence)
        else:
            self.ended.append(hold)

    @rule(process=processes)
    def end(self, process: int) -> None:
        hold = self.bodies.pop(process, None)
        if hold is not None:
            self.managers[process].release(hold)
            self.ended.append(hold)
            assert hold.state in FINAL | {State.ABANDONED}

    @rule(process=processes)
    def watchdog(self, process: int) -> None:
        self.networks[process].renewed.clear()
        self.managers[process].watchdog.round()
        alive = {hold.token for hold in self.bodies.values()}
        assert set(self.networks[process].renewed) <= alive, "renewed after its end"

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 2.0, 4.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(
        process=processes,
        faults=st.lists(
            st.sampled_from(("request lost", "request late", "answer lost", "request doubled", "")),
            min_size=1,
            max_size=3,
        ),
    )
    def line_fails(self, process: int, faults: List[str]) -> None:
        self.networks[process].faults = list(faults)

    @precondition(lambda self: any(network.late for network in self.networks))
    @rule(process=processes)
    def late_copy_arrives(self, process: int) -> None:
        late = self.networks[process].late
        if late:
            late.pop(0)()

    @rule()
    def server_loses_everything(self) -> None:
        # While somebody believes, a server without a grace may break exclusion: documented.
        for hold in self.bodies.values():
            if hold.trusted_until > self.clock.now:
                return
        self.clock.now += 0.1  # a restart takes time: fences count on the clock
        self.server.__init__(clock_ms=self.clock.server_ms)  # type: ignore[misc]

    @invariant()
    def at_most_one_believes(self) -> None:
        believers = [
            process
            for process, hold in self.bodies.items()
            if hold.state in LIVING and hold.trusted_until > self.clock.now
        ]
        assert len(believers) <= 1, f"{believers} both believe"

    @invariant()
    def nothing_ended_is_renewed(self) -> None:
        ended = {hold.token for hold in self.ended}
        for manager in self.managers:
            assert not ended & {hold.token for hold in manager.watchdog.renewing}

    def teardown(self) -> None:
        for network in self.networks:
            network.faults = []
        for process in list(self.bodies):
            self.end(process)
        for network in self.networks:
            for call in network.late:
                call()
        self.clock.now += 60.0
        for manager in self.managers:
            manager.watchdog.round()
            assert manager.is_idle, "something is left in a table"
        self.clock.now += LEASE
        assert isinstance(
            self.managers[0].acquire(Hold("r", Terms(lease_ms=1000), Record("here", 0, 0.0))),
            Held,
        ), "the resource is stuck"


@pytest.mark.usefixtures("_no_threads")
class TestHolds(Holds.TestCase):
    settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
