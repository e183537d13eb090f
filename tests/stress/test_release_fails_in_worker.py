"""A release that raises in a pool process that is used again: the second founding bug, end to end.

Real workers behind a proxy that cuts the release. The body log and the lock server are the judges.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Iterator, List

import pytest

from tests.harness.locked_shop import LockedShop, Locks, eventually
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.worker.app import ShopSettings
from tests.worker.locked_tasks import resource_of

LEASE = 3.0
SOON = 20.0

points = pytest.mark.parametrize("point", ["before", "after", "stopped"])

# Celery calls what redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Call to deprecated:DeprecationWarning:celery.backends.redis"
)


@pytest.fixture(scope="module")
def broker() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def lock_server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def module_proxy(lock_server: LockServer) -> Iterator[Proxy]:
    with Proxy(lock_server.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: Proxy) -> Iterator[Proxy]:
    yield module_proxy
    module_proxy.mend()


def shop_at(broker: LockServer, lock_url: str, directory: Path) -> LockedShop:
    settings = ShopSettings(
        broker_url=broker.url,
        backend_url=f"{broker.url[: -len('/0')]}/1",
        lock_url=lock_url,
        body_log=str(directory / "bodies.log"),
        conf={"redlock_restart_grace": 0, "redlock_ttl": LEASE},
    )
    return LockedShop(settings, directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both shops write one body log."""
    return tmp_path_factory.mktemp("shops")


@pytest.fixture(scope="module")
def shop(broker: LockServer, module_proxy: Proxy, directory: Path) -> Iterator[LockedShop]:
    """Its one pool process, used for every task, reaches the lock server through the proxy."""
    with shop_at(broker, module_proxy.url, directory) as shop:
        shop.worker(concurrency=1)
        yield shop


@pytest.fixture(scope="module")
def other_shop(
    broker: LockServer, lock_server: LockServer, directory: Path
) -> Iterator[LockedShop]:
    """A worker with the same locks and a connection that nobody cuts."""
    with shop_at(broker, lock_server.url, directory) as shop:
        shop.worker(concurrency=1)
        yield shop


@pytest.fixture
def locks(lock_server: LockServer, shop: LockedShop) -> Iterator[Locks]:
    """The server itself, not through the proxy."""
    locks = Locks(lock_server.url, "redlock:shop:1:")
    yield locks
    locks.close()


class Running:
    """A task whose body runs until its release is made to fail."""

    def __init__(self, shop: LockedShop, account: str) -> None:
        self._gate = shop.gate()
        self._task = shop.send("work", account, self._gate.path)
        shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)

    def fail_release(self, server: LockServer, proxy: Proxy, point: str) -> None:
        """Let it end; its release gets no answer, nor does any later one until the proxy mends."""
        if point == "stopped":
            server.pause()
            try:
                self._succeed()
            finally:
                # What waits in the server's socket runs; what is sent from now on is cut.
                proxy.cut("leave", "before", times=100_000)
                server.resume()
        else:
            proxy.cut("leave", point, times=100_000)
            self._succeed()

    def _succeed(self) -> None:
        self._gate.open()
        assert self._task.get(timeout=SOON) == "done"
        assert self._task.state == "SUCCESS"


def fields(server: LockServer, account: str) -> List[str]:
    """What is left of a resource, but for the tombstones that keep late copies out."""
    with server.client() as client:
        left = client.keys(f"*{{{resource_of(account)}}}:*")
        assert all(key.endswith(":h") for key in left), left
        found = [field for key in left for field in client.hkeys(key)]
        return [field for field in found if not field.startswith("x:")]


@points
def test_the_next_task_in_the_process_gets_it_at_once(
    shop: LockedShop, locks: Locks, lock_server: LockServer, proxy: Proxy, point: str
) -> None:
    account = f"next-{point}"
    Running(shop, account).fail_release(lock_server, proxy, point)
    sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert shop.send("work", account).get(timeout=SOON) == "done"
    first, second = shop.bodies_of(account)
    assert second.pid == first.pid, "another process ran it: the test proves nothing"
    assert (second.start - sent) / 1e9 < LEASE / 2, "the process waited for its own old hold"
    assert not shop.overlaps_of(account)
    shop.bodies.assert_fences_grow()

    proxy.mend()
    assert eventually(lambda: fields(lock_server, account) == ["f"]), fields(lock_server, account)


@points
def test_nothing_renews_it_any_more(
    shop: LockedShop, locks: Locks, lock_server: LockServer, proxy: Proxy, point: str
) -> None:
    account = f"idle-{point}"
    Running(shop, account).fail_release(lock_server, proxy, point)
    renewals = proxy.calls["renew"]
    ended = time.monotonic()
    deadlines = []
    while time.monotonic() < ended + 2 * LEASE:
        deadlines += [time.time() + h.remaining_ms / 1000 for h in locks.holders(account)]
        time.sleep(0.05)
    assert proxy.calls["renew"] == renewals
    if deadlines:
        assert max(deadlines) - min(deadlines) < LEASE / 4, "its lease was extended"
    assert locks.is_free(account)

    proxy.mend()
    assert eventually(lambda: fields(lock_server, account) == ["f"]), fields(lock_server, account)


@points
def test_another_process_gets_it_no_later_than_the_lease(
    shop: LockedShop,
    other_shop: LockedShop,
    locks: Locks,
    lock_server: LockServer,
    proxy: Proxy,
    point: str,
) -> None:
    account = f"other-{point}"
    running = Running(shop, account)
    rival = other_shop.send("work", account)
    locks.wait_for_line(account, 1)
    running.fail_release(lock_server, proxy, point)
    assert rival.get(timeout=SOON) == "done"
    first, second = shop.bodies_of(account)
    assert first.end is not None
    assert second.pid != first.pid
    assert 0 <= (second.start - first.end) / 1e9 < LEASE + 1.0
    assert not shop.overlaps_of(account)

    proxy.mend()
    assert eventually(lambda: fields(lock_server, account) == ["f"]), fields(lock_server, account)
