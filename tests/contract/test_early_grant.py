"""A grant may be announced before its asker has read that it stands in line: it is not missed."""

from __future__ import annotations

import time
from threading import Timer
from typing import Any, Iterator

import pytest

from celery_redlock.core.ports import AcquireAnswer, Queued, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Patience
from celery_redlock.store.urls import open_store
from tests.harness.servers import LockServer


class SlowReader:
    """A store whose caller reads a Queued answer only when ``meanwhile`` has happened."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.meanwhile: Any = lambda: None

    def acquire(self, request: Any) -> AcquireAnswer:
        answer = self._store.acquire(request)
        if isinstance(answer, Queued):
            self.meanwhile()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def server() -> Iterator[LockServer]:
    with LockServer.start(unix=True) as server:
        yield server


def new_hold() -> Hold:
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t", retries=0)
    return Hold("a", Terms(lease_ms=30_000), record)


def test_a_grant_announced_before_the_answer_is_read_wakes_the_waiter(server: LockServer) -> None:
    plain = open_store(server.url, prefix="p:", restart_grace=0)
    slow = SlowReader(plain)
    holder = Manager(plain, lambda event: None)
    waiting = Manager(slow, lambda event: None, background=plain)

    # A first wait opens the inbox; it stays open for the second.
    first = held_by(holder)
    release_later = Timer(0.2, holder.release, [first])
    release_later.start()
    seconds_to_get(waiting)
    release_later.join()

    second = held_by(holder)
    slow.meanwhile = lambda: (holder.release(second), time.sleep(0.2))
    # A heartbeat would find the grant after five seconds.
    assert seconds_to_get(waiting) < 2.0
    plain.close()


def held_by(manager: Manager) -> Hold:
    hold = new_hold()
    assert isinstance(manager.acquire(hold), Held)
    return hold


def seconds_to_get(manager: Manager) -> float:
    hold = new_hold()
    asked = time.monotonic()
    assert isinstance(manager.acquire(hold, Patience()), Held)
    took = time.monotonic() - asked
    manager.release(hold)
    return took
