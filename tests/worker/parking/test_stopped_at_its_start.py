"""A child that is stopped when its task is granted the lock keeps it until its lease is over."""

from __future__ import annotations

import os
import signal

import pytest

from celery_redlock import Lock
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.worker.locked_tasks import resource_of

SOON = 20.0

#: How long a child is stopped: for longer than a release's grant waits to be confirmed, and for a
#: small part of the lease.
STOPPED_FOR = 2.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def child(shop: LockedShop) -> int:
    (pid,) = shop.worker(pool=PREFORK, concurrency=1).pids()
    return pid


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def test_a_body_that_is_stopped_at_its_first_line(
    shop: LockedShop, child: int, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("stand_still", account)
        shop.locks.wait_for_line(account, 1)
    assert eventually(lambda: is_stopped(child), SOON)
    stays_its_own(shop, account, result.id)
    os.kill(child, signal.SIGCONT)
    assert result.get(timeout=SOON) == "done"


def test_a_child_that_is_stopped_before_it_begins(
    shop: LockedShop, child: int, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        os.kill(child, signal.SIGSTOP)
    assert eventually(lambda: shop.locks.holding_tasks(account) == [result.id], SOON)
    stays_its_own(shop, account, result.id)
    os.kill(child, signal.SIGCONT)
    assert result.get(timeout=SOON) == "done"
    (body,) = shop.bodies_of(account)
    assert body.task_id == result.id


def stays_its_own(shop: LockedShop, account: str, task_id: str) -> None:
    """Somebody else who waits for it meanwhile is not granted it."""
    assert not Lock(resource_of(account), app=shop.app).acquire(blocking_timeout=STOPPED_FOR)
    assert shop.locks.holding_tasks(account) == [task_id]
