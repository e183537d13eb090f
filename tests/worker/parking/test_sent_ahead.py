"""A task whose job is in the pool's buffer, ahead of the slot that it is to have."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from celery_redlock.integration.runtime import runtime_of
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 30.0

#: A lease is 30 seconds.
WELL_UNDER_A_LEASE = 10.0


class Busy:
    """A worker with one slot, whose broker's connection can be lost."""

    def __init__(self, shop: LockedShop, broker: Proxy, **options: Any) -> None:
        self.shop = shop
        self.broker = broker
        environment = {"REDLOCK_TEST_BROKER_URL": broker.url}
        self.node: WorkerProcess = shop.worker(
            pool=PREFORK, concurrency=1, environment=environment, **options
        )

    def sent_ahead(self, account: str, gate: str, **options: Any) -> Any:
        """One that was granted the lock of a body that still has the slot."""
        locks = self.shop.locks
        with locks.held(account):
            # Each asks with the slot, and gives it back.
            self.shop.send("lose_warned", account, gate=gate)
            locks.wait_for_line(account, 1)
            second = self.shop.task("work").apply_async((account,), **options)
            locks.wait_for_line(account, 2)
        resource = resource_of(account)
        self.shop.bodies.wait_for(count_started=1, resource=resource, timeout=SOON)
        manager = runtime_of(self.shop.app).manager
        assert manager.force(resource, manager.inspect(resource).holders, "a test")
        assert eventually(lambda: locks.holding_tasks(account) == [second.id], SOON)
        return second


@pytest.fixture
def busy(make_locked_shop: MakeLockedShop, redis_server: LockServer) -> Any:
    with Proxy(redis_server.url) as broker:
        yield lambda **options: Busy(make_locked_shop(), broker, **options)


MakeBusy = Callable[..., Busy]


def test_it_runs_when_the_slot_is_free(busy: MakeBusy, account: str) -> None:
    worker = busy()
    gate = worker.shop.gate()
    second = worker.sent_ahead(account, gate.path)
    gate.open()
    assert second.get(timeout=WELL_UNDER_A_LEASE) == "done"
    assert eventually(lambda: worker.shop.locks.is_free(account), SOON)


def test_its_lock_is_anothers_when_the_slot_is_long_in_coming(busy: MakeBusy, account: str) -> None:
    """What a release grants is for a moment, and nobody renews it in the buffer."""
    worker = busy()
    locks, gate = worker.shop.locks, worker.shop.gate()
    second = worker.sent_ahead(account, gate.path)
    assert eventually(lambda: locks.is_free(account), WELL_UNDER_A_LEASE)
    with locks.held(account):
        gate.open()
        assert eventually(lambda: locks.waiting_tasks(account) == [second.id], SOON)
    assert second.get(timeout=WELL_UNDER_A_LEASE) == "done"


@pytest.mark.parametrize("how", ["revoked", "revoked with SIGKILL", "expired"])
def test_it_ends_there_if_it_is_revoked_or_expires_and_leaves_no_lock(
    busy: MakeBusy, how: str, account: str
) -> None:
    # Where it has asked it has a whole lease.
    worker = busy(app="tests.worker.deaf_app")
    shop, gate = worker.shop, worker.shop.gate()
    expires = 4.0 if how == "expired" else None
    second = worker.sent_ahead(account, gate.path, expires=expires)
    children = worker.node.pids()
    if how != "expired":
        second.revoke(terminate="SIGKILL" in how, signal="SIGKILL")
    worker.node.wait_for_output(f"Discarding revoked task: shop.work[{second.id}]", SOON)
    assert eventually(lambda: shop.locks.is_free(account), WELL_UNDER_A_LEASE)
    assert second.state == "REVOKED"
    # Meanwhile the one slot is another's still; and it is nobody's for good.
    more = [shop.send("work", account), shop.send("hold", account)]
    gate.open()
    assert [each.get(timeout=SOON) for each in more] == ["done", account]
    assert shop.send("work", account).get(timeout=SOON) == "done"
    assert second.id not in [body.task_id for body in shop.bodies_of(account)]
    assert worker.node.pids() == children


def test_what_celery_discards_with_its_connection_keeps_no_lock(
    busy: MakeBusy, account: str
) -> None:
    # Where it has asked it has a whole lease.
    worker = busy(app="tests.worker.deaf_app")
    locks, gate = worker.shop.locks, worker.shop.gate()
    second = worker.sent_ahead(account, gate.path)
    assert eventually(lambda: locks.holders(account)[0].state == "confirmed", SOON)
    worker.broker.drop()
    assert eventually(lambda: locks.is_free(account), WELL_UNDER_A_LEASE)
    gate.open()
    assert second.get(timeout=WELL_UNDER_A_LEASE) == "done"
    assert [body.task_id for body in worker.shop.bodies_of(account)].count(second.id) == 1
