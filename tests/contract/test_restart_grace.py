"""How long a server that has just started does not grant what it does not know."""

from __future__ import annotations

import time

from celery_redlock.core.ports import Acquire, Granted, Store, Terms
from celery_redlock.store.urls import open_store
from tests.harness.servers import LockServer

GRACE = 2.0


def test_the_grace_is_no_shorter_when_the_server_starts_late_in_a_second() -> None:
    """A server tells its uptime as a difference of whole seconds: 0.1 s may be called 1 s."""
    time.sleep(1.75 - time.time() % 1)
    started = time.time()
    with LockServer.start() as server:
        time.sleep(max(0.0, 1.15 - (time.time() - started // 1)))
        store = open_store(server.url, prefix="test:1:", restart_grace=GRACE)
        try:
            granted_after = time_until_granted(store) - started
        finally:
            store.close()
    assert GRACE < granted_after < GRACE + 5.0


def time_until_granted(store: Store) -> float:
    request = Acquire("r", "token", Terms(lease_ms=1000), "")
    while not isinstance(store.acquire(request), Granted):
        time.sleep(0.01)
    return time.time()
