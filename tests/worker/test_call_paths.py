"""Every way in to a body, on a real worker: locked for the body, by the right name, and released.

The plain way, and what a canvas becomes under each policy, is tested elsewhere.
"""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import WorkerLostError

from celery_redlock import LockConflict, LockLost, LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker import paths_app as paths_app
from tests.worker.locked_app import resource_of
from tests.worker.paths import SOON, assert_ran_locked, get


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(app="tests.worker.paths_app", concurrency=3)


pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def other(account: str) -> str:
    return f"other-{account}"


# --- by name


def test_a_client_without_the_tasks_code_sends_it_by_name(shop: LockedShop, account: str) -> None:
    client = Celery("client", set_as_current=False)
    client.conf.update(shop.app.conf.changes)
    queue = {"queue": shop.queue}
    sent = [
        lambda: client.send_task("shop.work_or_skip", (account,), **queue),
        lambda: client.signature("shop.work_or_skip", (account,)).apply_async(**queue),
        lambda: client.send_task("shop.work_or_skip", kwargs={"account": account}, **queue),
    ]
    with shop.locks.held(account):
        assert is_skipped(get(shop.app.AsyncResult(sent[0]().id)))
    for send in sent:
        assert get(shop.app.AsyncResult(send().id)) == "done"
    assert_ran_locked(shop, account, bodies=3)


# --- map, starmap, chunks


def test_each_item_of_a_map_has_a_lock_of_its_own(
    shop: LockedShop, account: str, other: str
) -> None:
    assert get(shop.task("work").map([account, other, account]).delay()) == ["done"] * 3
    assert_ran_locked(shop, account, bodies=2)
    assert_ran_locked(shop, other)


def test_each_item_of_a_starmap_and_of_chunks_has_a_lock_of_its_own(
    shop: LockedShop, account: str, other: str
) -> None:
    items = [(account,), (other, None), (account,)]
    assert get(shop.task("work").starmap(items).delay()) == ["done"] * 3
    assert get(shop.task("work").chunks(items, 2).apply_async()) == [["done"] * 2, ["done"]]
    assert_ran_locked(shop, account, bodies=4)
    assert_ran_locked(shop, other, bodies=2)


def test_the_items_of_a_map_are_locked_one_after_the_other(
    shop: LockedShop, account: str, other: str
) -> None:
    """What went before is free while a later one waits, and holds no other up."""
    with shop.locks.held(other):
        result = shop.task("work").map([account, other]).delay()
        shop.locks.wait_for_line(other, 1)
        assert shop.locks.is_free(account)
        assert len(shop.bodies_of(account)) == 1
    assert get(result) == ["done", "done"]


def test_an_item_of_a_map_that_is_skipped_leaves_its_marker(
    shop: LockedShop, account: str, other: str
) -> None:
    with shop.locks.held(other):
        results = get(shop.task("work_or_skip").map([other, account]).delay())
    assert results == [
        {"redlock": "skipped", "resource": resource_of(other), "holder": "rival"},
        "done",
    ]
    assert shop.bodies_of(other) == []


@pytest.mark.parametrize(
    ("task", "error"), [("work_or_fail", LockConflict), ("work_soon", LockTimeout)]
)
def test_an_item_of_a_map_that_fails_for_its_lock_fails_the_map(
    shop: LockedShop, account: str, other: str, task: str, error: Any
) -> None:
    with shop.locks.held(other), pytest.raises(error) as caught:
        get(shop.task(task).map([account, other, account]).delay())
    assert caught.value.resource == resource_of(other)
    assert_ran_locked(shop, account)


def test_an_item_of_a_map_waits_in_place_where_a_task_would_be_sent_again(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.task("work_later").map([account]).delay()
        shop.locks.wait_for_line(account, 1)
    assert get(result) == ["done"]
    assert_ran_locked(shop, account)


# --- direct calls


def test_a_direct_call_on_another_account_is_locked_for_its_body(
    shop: LockedShop, account: str, other: str
) -> None:
    with shop.locks.held(other):
        result = shop.send("call_directly", account, other, "work_later")
        shop.locks.wait_for_line(other, 1)  # in place: there is no message to send again
        assert shop.locks.holding_tasks(account) == [result.id]
    assert get(result) == "done"
    assert_ran_locked(shop, account)
    assert_ran_locked(shop, other)


def test_a_direct_call_is_skipped_and_fails_as_the_task_says(
    shop: LockedShop, account: str, other: str
) -> None:
    with shop.locks.held(other):
        assert is_skipped(get(shop.send("call_directly", account, other, "work_or_skip")))
        with pytest.raises(LockConflict) as caught:
            get(shop.send("call_directly", account, other, "work_or_fail"))
    assert caught.value.resource == resource_of(other)
    assert shop.bodies_of(other) == []
    assert_ran_locked(shop, account, bodies=2)


def test_an_eager_call_inside_a_body_locks_nothing(
    shop: LockedShop, account: str, other: str
) -> None:
    with shop.locks.held(other):
        outer, inner, after = get(shop.send("apply_inside", account, other))
    assert outer["is_held"]
    assert inner["reason"] == "eager"
    assert after == outer


# --- classes


def test_a_users_call_runs_inside_the_lock_and_not_at_all_when_it_is_skipped(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        assert is_skipped(get(shop.send("work_called", account)))
        assert is_skipped(get(shop.task("work_called").map([account]).delay())[0])
    assert get(shop.send("work_called", account)) == ["called", "done"]
    assert get(shop.task("work_called").map([account]).delay()) == [["called", "done"]]
    assert_ran_locked(shop, account, bodies=2)


@pytest.mark.needs("processes")
def test_a_users_request_is_told_of_a_dead_child_and_the_lock_is_released(
    shop: LockedShop, account: str
) -> None:
    result = shop.send("die", account)
    with pytest.raises(WorkerLostError):
        get(result)
    assert eventually(lambda: shop.said(task_id=result.id, failed="shop.die"), SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert len(shop.bodies_of(account)) == 1


def test_a_lock_that_was_lost_is_not_retried(shop: LockedShop, account: str) -> None:
    result = shop.send("outlive_its_lock", account)
    with pytest.raises(LockLost):
        get(result)
    assert [told["retries"] for told in shop.said(task_id=result.id) if "retries" in told] == [0]
    assert len(shop.bodies_of(account)) == 1
