"""Renewal by a running watchdog, on a real server."""

from __future__ import annotations

import os
import threading
import time
from typing import Iterator, List

import pytest

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from celery_redlock.store.urls import open_store
from tests.harness.servers import LockServer

LEASE = 1.5


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


def hold_of(resource: str) -> Hold:
    record = Record(host="here", pid=os.getpid(), since=time.time())
    return Hold(resource, Terms(lease_ms=int(LEASE * 1000)), record)


def os_threads() -> int:
    return len(os.listdir(f"/proc/{os.getpid()}/task"))


def test_a_hold_outlives_many_leases_and_its_end_ends_it(server: LockServer) -> None:
    store = open_store(server.url, prefix="test:1:", restart_grace=0)
    manager = Manager(store, lambda event: None)
    hold = hold_of("r")
    assert isinstance(manager.acquire(hold), Held)
    ends_at = time.monotonic() + 3 * LEASE
    while time.monotonic() < ends_at:
        (seen,) = store.inspect("r").holders
        assert seen.remaining_ms > 0
        assert hold.state is State.HELD
        assert hold.trusted_until > time.monotonic()
        time.sleep(0.05)
    manager.release(hold)
    assert store.inspect("r").holders == ()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_a_thousand_holds_cost_one_thread_and_none_is_lost(server: LockServer) -> None:
    manager = Manager(open_store(server.url, prefix="test:2:", restart_grace=0), lambda event: None)
    before, python_threads = os_threads(), threading.active_count()
    holds: List[Hold] = [hold_of(f"r{number}") for number in range(1000)]
    for hold in holds:
        assert isinstance(manager.acquire(hold), Held)
    ends_at = time.monotonic() + 3 * LEASE
    while time.monotonic() < ends_at:
        assert os_threads() - before <= 1
        assert all(hold.state is State.HELD for hold in holds)
        time.sleep(0.1)
    now = time.monotonic()
    assert all(hold.trusted_until > now for hold in holds)
    assert threading.active_count() == python_threads
    for hold in holds:
        manager.release(hold)
    assert manager.is_idle
