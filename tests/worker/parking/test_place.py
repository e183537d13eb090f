"""What the parking place must not leave behind, whenever a grant comes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Iterable, List

import pytest

from celery_redlock.core.lifecycle import LIVING
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.integration.parking.parked import Parked
from celery_redlock.integration.parking.place import Place
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.store.memory import MemoryStore


class Consumer:
    """Nothing is asked of it."""


class Request:
    """A request, as far as Celery's books of them go."""

    id = "task"
    acknowledged = False


class GrantedAtThatMoment:
    """An asker that hears of a grant just before it is told to cancel."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def cancel_all(self, pendings: Iterable[Any]) -> None:
        for pending in pendings:
            self._manager.acquire(pending.hold)


def parked_with(hold: Hold, manager: Manager) -> Parked:
    request = Request()
    parked = Parked.__new__(Parked)
    parked.request = request  # type: ignore[assignment]
    parked.runtime = SimpleNamespace(  # type: ignore[assignment]
        manager=manager, asker=GrantedAtThatMoment(manager)
    )
    parked.call = SimpleNamespace(attempt=0, is_redelivered=False)  # type: ignore[assignment]
    parked.execution = SimpleNamespace(holds={hold.resource: hold})  # type: ignore[assignment]
    parked.asking = None
    parked.pending = SimpleNamespace(hold=hold)  # type: ignore[assignment]
    parked.awaited = parked.too_late = None
    parked.has_slot = parked.is_in_line = parked.is_gone = False
    parked.kept = SimpleNamespace(request=request, restore_prefetch=lambda: None)
    return parked


def test_what_is_granted_as_the_brokers_connection_goes_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "start_thread", lambda run: None)
    store, told = MemoryStore(), []  # type: ignore[var-annotated]
    manager = Manager(store, told.append)
    record = Record(host="here", pid=1, since=time.time(), task_id="task", task="t")
    hold = Hold("r", Terms(), record)
    calls: List[Any] = []
    loop: Any = SimpleNamespace(call=lambda *call: calls.append(call))
    slots: Any = SimpleNamespace(clear=lambda: None, give_back=lambda: None)
    place = Place(Consumer(), loop, slots)
    place._residents.add(parked_with(hold, manager))
    place.disconnected()
    assert hold.state not in LIVING
    assert manager.watchdog.renewing == []
    assert place.parked == []
    manager.watchdog.round()
    assert store.inspect("r").holders == ()
