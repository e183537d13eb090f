"""Tasks that wait for a lock are kept in the worker's parent, and take nothing from others."""

from __future__ import annotations

import signal
import time
from typing import List

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=1)


pytestmark = pytest.mark.usefixtures("worker")


def test_a_task_that_waits_takes_no_slot(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        waiting = [shop.send("work", account) for _ in range(5)]
        shop.locks.wait_for_line(account, 5)
        assert shop.send("work", f"{account}-other").get(timeout=SOON) == "done"
        assert {result.state for result in waiting} == {"PENDING"}
    assert [result.get(timeout=SOON) for result in waiting] == ["done"] * 5


def test_tasks_run_in_the_order_in_which_they_asked(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        ids: List[str] = []
        for number in range(8):
            ids.append(shop.send("work", account).id)
            shop.locks.wait_for_line(account, number + 1)
    shop.bodies.wait_for(count_ended=8, resource=resource_of(account), timeout=SOON)
    assert [body.task_id for body in shop.bodies_of(account)] == ids


def test_a_revoked_task_leaves_the_line_at_once(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        result.revoke()
        assert eventually(lambda: result.state == "REVOKED", SOON)
        shop.locks.wait_for_line(account, 0)
    assert shop.bodies_of(account) == []


def test_a_task_that_expires_while_it_waits_leaves_the_line(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        sent = time.monotonic()
        result = shop.task("work").apply_async((account,), expires=2.0)
        shop.locks.wait_for_line(account, 1)
        assert eventually(lambda: result.state == "REVOKED", SOON)
        assert time.monotonic() - sent >= 2.0
        shop.locks.wait_for_line(account, 0)
    assert shop.bodies_of(account) == []


def test_a_worker_that_ends_gives_back_what_waits(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    worker = shop.worker(concurrency=1)
    with shop.locks.held(account):
        waiting = [shop.send("work", account) for _ in range(5)]
        shop.locks.wait_for_line(account, 5)
        worker.send(signal.SIGTERM)
        worker.wait(SOON)
        assert not shop.locks.waiting_tasks(account)
    shop.worker(concurrency=1)
    assert [result.get(timeout=SOON) for result in waiting] == ["done"] * 5
    ran = [body.task_id for body in shop.bodies_of(account)]
    ids = [each.id for each in waiting]
    assert [ids.index(each) for each in ran] == [0, 1, 2, 3, 4]
