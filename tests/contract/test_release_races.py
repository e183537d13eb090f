"""A release that races with a renewal leaves nothing: not even what would bring a hold back."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Tuple

import pytest

from celery_redlock.core.lifecycle import Move
from celery_redlock.core.ports import Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from tests.contract.desk import LONG, Desk


class Overtaken:
    """A store of the watchdog's on which something happens before a request of its own arrives."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: Dict[str, Callable[[], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def overtaken(*arguments: Any) -> Any:
            self.before.pop(name, lambda: None)()
            return call(*arguments)

        return overtaken


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store, "raced")


@pytest.fixture
def watched(store: Store) -> Tuple[Overtaken, Manager]:
    slow = Overtaken(store)
    return slow, Manager(store, lambda event: None, background=slow)


def a_hold() -> Hold:
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
    return Hold("raced", Terms(lease_ms=LONG), record)


def renew_now(manager: Manager, hold: Hold) -> None:
    """A round of the watchdog in this thread."""
    hold.due = 0.0
    manager.watchdog.round()


@pytest.mark.parametrize("overtakes", ["renew", "reestablish"])
def test_a_release_that_overtakes_the_watchdog_is_the_end_of_the_hold(
    watched: Any, desk: Desk, overtakes: str
) -> None:
    slow, manager = watched
    hold = a_hold()
    assert isinstance(manager.acquire(hold), Held)
    if overtakes == "reestablish":
        # The server has lost it, and nobody needed its place.
        desk.leave(hold.token)
    slow.before[overtakes] = lambda: manager.release(hold)
    renew_now(manager, hold)
    assert not slow.before, f"the watchdog sent no {overtakes}"
    assert desk.view().holders == ()
    assert manager.is_idle


def test_an_extension_that_a_release_overtakes_brings_nothing_back(store: Store) -> None:
    slow = Overtaken(store)
    manager = Manager(slow, lambda event: None, background=store)
    desk = Desk(store, "raced")
    hold = a_hold()
    assert isinstance(manager.acquire(hold), Held)
    desk.leave(hold.token)
    slow.before["reestablish"] = lambda: manager.release(hold)
    assert not manager.extend(hold, 60.0)
    assert desk.view().holders == ()


def test_a_wait_that_is_abandoned_while_its_heartbeat_is_under_way_is_ended_at_once(
    watched: Any, desk: Desk
) -> None:
    """The answer to the heartbeat plans the next one, which is seconds away."""
    slow, manager = watched
    assert manager.watchdog._starting.acquire(False), "its thread stays out of this"
    desk.granted("rival")
    hold = a_hold()
    hold.move(Move.ASKED)
    queued = desk.queued(hold.token)
    hold.place(queued, time.monotonic())
    manager.watchdog.attend(hold, queued)
    slow.before["heartbeat"] = lambda: manager.abandon(hold)
    renew_now(manager, hold)
    assert not slow.before, "the watchdog sent no heartbeat"
    assert desk.line() == []
    assert manager.is_idle
    desk.leave("rival")


def test_a_hold_that_was_brought_back_is_released_like_any_other(watched: Any, desk: Desk) -> None:
    _slow, manager = watched
    hold = a_hold()
    assert isinstance(manager.acquire(hold), Held)
    desk.leave(hold.token)
    renew_now(manager, hold)
    assert desk.live() == [hold.token]
    manager.release(hold)
    assert desk.view().holders == ()
    assert manager.is_idle
