"""A worker whose process has another app beside its own, with the same tasks."""

from __future__ import annotations

from typing import Iterator

import pytest

from celery_redlock.integration.runtime import runtime_of
from tests.harness.locked_shop import LockedShop, Locks, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.harness.servers import LockServer
from tests.worker.locked_app import resource_of
from tests.worker.two_apps_app import OTHER_LOCK_URL, Die

SOON = 20.0

#: A lease is 30 seconds.
WELL_UNDER_A_LEASE = 10.0


@pytest.fixture(scope="module")
def other_server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop, other_server: LockServer) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(
        app="tests.worker.two_apps_app",
        pool=PREFORK,
        concurrency=2,
        environment={OTHER_LOCK_URL: other_server.url},
    )
    return shop


@pytest.fixture(scope="module")
def elsewhere(shop: LockedShop, other_server: LockServer) -> Iterator[Locks]:
    locks = Locks(other_server.url, runtime_of(shop.app).settings.prefix)
    yield locks
    locks.close()


def test_it_locks_by_its_own_app_and_tells_of_it_once(
    shop: LockedShop, elsewhere: Locks, account: str
) -> None:
    with elsewhere.held(account):
        with shop.locks.held(account):
            result = shop.send("work", account)
            assert shop.locks.wait_for_line(account, 1) == [result.id]
            assert elsewhere.waiting_tasks(account) == []
        assert result.get(timeout=SOON) == "done"
    told = [(said["signal"], said["server"]) for said in shop.said(task_id=result.id)]
    own = shop.settings.lock_url
    assert told == [(name, own) for name in ("lock_waiting", "lock_acquired", "lock_released")]


def test_what_a_dead_child_held_by_the_other_apps_settings_is_freed_there(
    shop: LockedShop, elsewhere: Locks, account: str
) -> None:
    result = shop.app.send_task(Die.name, (account,))
    (body,) = shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    assert body.fence
    assert eventually(lambda: elsewhere.is_free(account), WELL_UNDER_A_LEASE)
    assert shop.locks.is_free(account)
    result.get(timeout=SOON, propagate=False)
    assert result.state == "FAILURE"
