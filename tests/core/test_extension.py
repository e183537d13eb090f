"""A lease that its owner extends: on a server that knows it, forgot it, is away or gave it away."""

from __future__ import annotations

from typing import Any, List, Optional

import pytest

from celery_redlock.core import events, timing
from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Leave, NoAnswer, Reestablish, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from celery_redlock.store.memory import MemoryStore

LEASE = 3.0


class Server:
    """A memory store with a clock of its own, that may be away for a request or lose its data."""

    def __init__(self) -> None:
        self.now = 100.0
        self.silent: Optional[str] = None
        self.restart(grace=0)

    def restart(self, grace: float) -> None:
        self.now += 0.1
        self._store = MemoryStore(
            clock_ms=lambda: 1_700_000_000_000 + int(self.now * 1000), grace_ms=int(grace * 1000)
        )

    def __getattr__(self, name: str) -> Any:
        if name == self.silent:
            raise NoAnswer("server")
        return getattr(self._store, name)

    def renew(self, requests: Any) -> Any:
        if self.silent == "renew":
            return [NoAnswer("server")]
        return self._store.renew(requests)

    def reestablish(self, request: Reestablish) -> Any:
        if self.silent == "reestablish":
            raise NoAnswer("server")
        return self._store.reestablish(request)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(native, "start_thread", lambda run: None)
    return Server()


@pytest.fixture
def told() -> List[events.Event]:
    return []


@pytest.fixture
def manager(server: Server, told: List[events.Event]) -> Manager:
    return Manager(server, told.append, clock=lambda: server.now)  # type: ignore[arg-type]


def held(manager: Manager, *, renew: bool = True) -> Hold:
    terms = Terms(lease_ms=int(LEASE * 1000))
    hold = Hold("r", terms, Record("here", 1, 0.0), renew=renew)
    assert isinstance(manager.acquire(hold), Held)
    return hold


def test_trust_follows_the_lease(server: Server, manager: Manager) -> None:
    hold = held(manager)
    assert manager.extend(hold, 60.0)
    assert hold.trusted_until == timing.trusted_until(server.now, 60.0)
    (holder,) = manager.inspect("r").holders
    assert holder.remaining_ms == 60_000


def test_a_shorter_lease_shortens_trust_where_that_is_asked_for(
    server: Server, manager: Manager
) -> None:
    hold = held(manager)
    before = hold.trusted_until
    assert manager.extend(hold, 1.0)
    assert hold.trusted_until == before
    assert manager.extend(hold, 1.0, shorten=True)
    assert hold.trusted_until == timing.trusted_until(server.now, 1.0)
    assert manager.inspect("r").holders[0].remaining_ms == LEASE * 1000


def test_a_hold_that_a_restarted_server_forgot_comes_back(server: Server, manager: Manager) -> None:
    hold = held(manager)
    server.restart(grace=2.0)
    assert manager.extend(hold, 60.0)
    (holder,) = manager.inspect("r").holders
    assert (holder.fence, holder.remaining_ms) == (hold.fence, 60_000)


def test_what_another_was_granted_is_lost_and_told_once(
    server: Server, manager: Manager, told: List[events.Event]
) -> None:
    hold = held(manager)
    server.restart(grace=0)
    assert not manager.extend(hold, 60.0)
    assert hold.state is State.LOST
    assert manager.watchdog.renewing == []
    assert not manager.extend(hold, 60.0)
    assert [type(event) for event in told].count(events.Lost) == 1


def test_what_was_forced_is_lost(server: Server, manager: Manager) -> None:
    hold = held(manager)
    server.leave(Leave("r", (hold.token,), tomb_ms=1000, why="forced"))
    assert not manager.extend(hold, 60.0)
    assert hold.why == "forced"


@pytest.mark.parametrize("silent", ["renew", "reestablish"])
def test_a_server_that_is_away_changes_nothing(
    server: Server, manager: Manager, silent: str
) -> None:
    hold = held(manager)
    before = hold.trusted_until
    if silent == "reestablish":
        server.restart(grace=2.0)
    server.silent = silent
    with pytest.raises(NoAnswer):
        manager.extend(hold, 60.0, shorten=True)
    assert (hold.state, hold.trusted_until) == (State.HELD, before)
    assert hold.tainted == (silent == "reestablish")


def test_the_end_of_a_hold_that_nobody_renews_is_told_when_its_trust_is_over(
    server: Server, manager: Manager, told: List[events.Event]
) -> None:
    hold = held(manager, renew=False)
    server.now = (hold.due + hold.trusted_until) / 2
    manager.watchdog.round()
    assert hold.state is State.HELD
    manager.extend(hold, LEASE)
    for _ in range(3):
        server.now = max(hold.due, server.now)
        manager.watchdog.round()
    assert server.now == hold.trusted_until
    assert hold.state is State.UNSURE
    assert [type(event) for event in told].count(events.Unsure) == 1
    assert manager.watchdog.renewing == []
