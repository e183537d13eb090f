"""Which tasks park, and what else may be true of them: several resources, copies, settings."""

from __future__ import annotations

import uuid
from typing import Any, List

import pytest
from celery.result import AsyncResult

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 30.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=2)


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


def test_one_of_several_is_held_while_the_next_is_awaited(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    first, second = sorted(f"{account}-{number}" for number in range(2))
    with shop.locks.held(second):
        both = shop.send("transfer", second, first)
        shop.locks.wait_for_line(second, 1)
        assert shop.locks.holding_tasks(first) == [both.id]
        other = shop.send("work", first)
        shop.locks.wait_for_line(first, 1)
        assert shop.bodies_of(first) == []
    assert both.get(timeout=SOON)["resources"]
    assert other.get(timeout=SOON) == "done"
    assert ran(shop, first) == [both.id, other.id]


def test_crossing_transfers_all_end(shop: LockedShop, worker: WorkerProcess, account: str) -> None:
    accounts = [f"{account}-{number}" for number in range(3)]
    with shop.locks.held(accounts[1]):
        pairs = [(a, b) for a in accounts for b in accounts if a != b] * 2
        results = [shop.send("transfer", *pair) for pair in pairs]
        assert eventually(lambda: shop.locks.waiting_tasks(accounts[1]), SOON)
    for result in results:
        assert len(result.get(timeout=SOON)["resources"]) == 2
    for each in accounts:
        assert shop.overlaps_of(each) == []
        assert eventually(lambda each=each: shop.locks.is_free(each), SOON)


def test_a_revoked_task_frees_what_it_holds_of_several(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    first, second = sorted(f"{account}-{number}" for number in range(2))
    with shop.locks.held(second):
        both = shop.send("transfer", first, second)
        shop.locks.wait_for_line(second, 1)
        assert shop.locks.holding_tasks(first) == [both.id]
        both.revoke()
        assert eventually(lambda: both.state == "REVOKED", SOON)
        assert eventually(lambda: shop.locks.is_free(first), SOON)
        shop.locks.wait_for_line(second, 0)


def test_copies_of_a_parked_task_run_one_after_the_other(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    task_id = str(uuid.uuid4())
    with shop.locks.held(account):
        for number in range(3):
            shop.task("work").apply_async((account,), task_id=task_id)
            shop.locks.wait_for_line(account, number + 1)
        assert shop.locks.waiting_tasks(account) == [task_id] * 3
    assert AsyncResult(task_id, app=shop.app).get(timeout=SOON) == "done"
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert set(ran(shop, account)) == {task_id}
    assert shop.overlaps_of(account) == []


def test_a_revoked_copy_takes_all_copies_along(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    task_id = str(uuid.uuid4())
    with shop.locks.held(account):
        for number in range(2):
            shop.task("work").apply_async((account,), task_id=task_id)
            shop.locks.wait_for_line(account, number + 1)
        AsyncResult(task_id, app=shop.app).revoke()
        shop.locks.wait_for_line(account, 0)
    assert shop.send("add", 1, 2).get(timeout=SOON) == 3
    assert shop.bodies_of(account) == []


def test_a_policy_of_an_annotation_counts_before_a_task_is_parked(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop(
        task_annotations={"shop.work": {"lock_on_conflict": "skip"}},
    )
    shop.worker(concurrency=1)
    with shop.locks.held(account):
        skipped = shop.send("work", account).get(timeout=SOON)
    assert (skipped["redlock"], skipped["holder"]) == ("skipped", "rival")


def test_nothing_is_parked_where_locks_are_disabled(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop(redlock_enabled=False)
    shop.worker(concurrency=1)
    with shop.locks.held(account):
        assert shop.send("report_without_key", account).get(timeout=SOON)["reason"] == "disabled"
        assert shop.send("work", account).get(timeout=SOON) == "done"
        assert shop.locks.waiting_tasks(account) == []
    assert len(shop.bodies.bodies(resource_of(account))) == 1
