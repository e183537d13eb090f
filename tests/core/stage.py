"""A stage for holds: two processes, one server, a clock and a network that obey the test."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Type

from celery_redlock.core import events
from celery_redlock.core.ports import Beat, BeatAnswer, Leave, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Patience
from celery_redlock.store.memory import MemoryStore
from tests.core.test_hold_machine import Clock, Network

LEASE = 3.0

#: Longer than a lease is trusted.
LAPSE = 2 * LEASE


class Told(List[events.Event]):
    def of(self, kind: Type[Any]) -> List[Any]:
        return [event for event in self if type(event) is kind]


class Line(Network):
    """A network on which a silence takes a moment."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        super().__init__(store)
        self._clock = clock

    def _send(self, call: Callable[[], Any]) -> Any:
        if self.faults:
            self._clock.now += 0.001
        return super()._send(call)

    def has_broken(self) -> bool:
        return False

    def heartbeat(self, requests: Any) -> List[BeatAnswer]:
        return list(self.store.heartbeat([Beat(*request) for request in requests]))


class Sleeper:
    """A waiter's signal: what happens while it waits is a function, called once."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile: Optional[Callable[[], object]] = meanwhile

    def set(self) -> None: ...

    def wait(self, timeout: float) -> bool:
        meanwhile, self._meanwhile = self._meanwhile, None
        assert meanwhile is not None, "it waits again"
        meanwhile()
        return True


class Stage:
    """Two processes on one server: ours, whose events are told, and a rival's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = MemoryStore(clock_ms=self.clock.server_ms)
        self.network = Line(self.server, self.clock)
        self.told = Told()
        self.ours = self.manager(self.network, self.told.append)
        self.rivals = self.manager(self.server, lambda event: None)

    def manager(self, store: Any, emit: events.Emit) -> Manager:
        return Manager(store, emit, clock=self.clock.seconds)

    def hold(self, who: str = "ours", **options: Any) -> Hold:
        terms = Terms(lease_ms=int(LEASE * 1000))
        return Hold("r", terms, Record("here", 1, 0.0, who, "shop.work"), **options)

    def held(self, **options: Any) -> Hold:
        hold = self.hold(**options)
        self.ours.acquire(hold)
        return hold

    def held_by_rival(self) -> Hold:
        hold = self.hold("rival")
        self.rivals.acquire(hold)
        return hold

    def wait(self, meanwhile: Callable[[], object], left: Optional[float] = None) -> Hold:
        """Wait for the lock; ``meanwhile`` happens while it does."""
        hold = self.hold()
        hold.wake = Sleeper(meanwhile)  # type: ignore[assignment]
        until = None if left is None else self.clock.now + left
        self.ours.acquire(hold, Patience(until=until))
        return hold

    def renew(self, *faults: str, after: float = LEASE / 3) -> None:
        self.clock.now += after
        self.network.faults = list(faults)
        self.ours.watchdog.round()
        self.network.faults = []

    def release(self, hold: Hold, *faults: str) -> None:
        self.network.faults = list(faults)
        self.ours.release(hold)
        self.network.faults = []

    def forget(self, hold: Hold) -> None:
        """The server has forgotten the hold, as after a restart, but not who came last."""
        self.server.leave(Leave(hold.resource, (hold.token,)))
