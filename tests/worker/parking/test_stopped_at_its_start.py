"""A child that is stopped when its task is granted the lock: before its body begins, and after."""

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
#: part of the lease.
STOPPED_FOR = 2.0
LEASE = 6.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(redlock_ttl=LEASE)


@pytest.fixture(scope="module")
def child(shop: LockedShop) -> int:
    (pid,) = shop.worker(pool=PREFORK, concurrency=1).pids()
    return pid


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def test_a_body_that_is_stopped_at_its_first_line_keeps_it(
    shop: LockedShop, child: int, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("stand_still", account)
        shop.locks.wait_for_line(account, 1)
    assert eventually(lambda: is_stopped(child), SOON)
    assert not Lock(resource_of(account), app=shop.app).acquire(blocking_timeout=STOPPED_FOR)
    assert shop.locks.holding_tasks(account) == [result.id]
    os.kill(child, signal.SIGCONT)
    assert result.get(timeout=SOON) == "done"


def test_one_that_is_stopped_before_its_body_begins_lets_the_next_one_pass(
    shop: LockedShop, child: int, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        os.kill(child, signal.SIGSTOP)
    assert eventually(lambda: shop.locks.holding_tasks(account) == [result.id], SOON)
    with Lock(resource_of(account), app=shop.app):
        os.kill(child, signal.SIGCONT)
        shop.locks.wait_for_line(account, 1)
        assert not shop.bodies_of(account)
    assert result.get(timeout=SOON) == "done"
