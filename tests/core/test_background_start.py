"""The background threads run when they are needed, whatever has become of an earlier start."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable

import pytest

from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.wakeups import Wakeups
from celery_redlock.store.memory import MemoryStore

SOON = 10.0


class Interrupt(Exception):
    """A time limit, a revoke, or no room for one more thread."""


@pytest.fixture(autouse=True)
def _first_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start ends in an error, the next ones do what they should."""
    starts = iter([_interrupted])

    def start(run: Callable[[], None]) -> None:
        next(starts, start_thread)(run)

    start_thread = native.start_thread
    monkeypatch.setattr(native, "start_thread", start)


def _interrupted(run: Callable[[], None]) -> None:
    raise Interrupt


def hold(resource: str) -> Hold:
    return Hold(resource, Terms(lease_ms=1000), Record("here", 1, 0.0, "id", "shop.work"))


def test_holds_are_renewed_although_the_watchdogs_first_start_failed() -> None:
    manager = Manager(MemoryStore(), lambda event: None)
    with pytest.raises(Interrupt):
        manager.acquire(hold("first"))
    held = hold("second")
    manager.acquire(held)
    granted = held.trusted_until
    deadline = time.monotonic() + SOON
    while held.trusted_until == granted:
        assert time.monotonic() < deadline, "nobody renews it"
        time.sleep(0.01)
    manager.release(held)


def test_waiters_are_woken_although_the_first_start_of_the_inbox_failed() -> None:
    is_open = threading.Event()
    wakeups: Any = Wakeups(MemoryStore(), lambda _broke: is_open.set())
    with pytest.raises(Interrupt):
        wakeups.expect(hold("first"))
    wakeups.expect(hold("second"))
    assert is_open.wait(SOON)


def test_one_thread_runs_however_many_are_started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks may need it before the first start has shown."""
    ready, started = [], threading.Event()
    monkeypatch.setattr(native, "start_thread", ready.append)
    opened = []
    wakeups = Wakeups(MemoryStore(), lambda _broke: (opened.append(1), started.set())[1])
    for resource in ("first", "second", "third"):
        wakeups.expect(hold(resource))
    threads = [threading.Thread(target=run, daemon=True) for run in ready]
    for thread in threads:
        thread.start()
    assert started.wait(SOON)
    deadline = time.monotonic() + SOON
    while sum(thread.is_alive() for thread in threads) > 1:
        assert time.monotonic() < deadline, "more than one stays"
        time.sleep(0.01)
    assert len(opened) == 1
