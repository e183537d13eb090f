"""Lock in the bodies of tasks: it re-enters what they hold, and ends with them."""

from __future__ import annotations

import pytest

from celery_redlock import Lock
from celery_redlock.integration.runtime import runtime_of
from tests.harness.locked_shop import LockedShop, MakeLockedShop
from tests.worker import lock_tasks
from tests.worker.locked_tasks import resource_of

APP = lock_tasks.__name__
SOON = 20.0


@pytest.fixture(scope="module", params=["prefork", "threads"])
def shop(make_locked_shop: MakeLockedShop, request: pytest.FixtureRequest) -> LockedShop:
    shop = make_locked_shop(redlock_nested_wait_timeout=0.5)
    shop.worker(app=APP, concurrency=2, pool=request.param)
    return shop


def test_a_lock_on_the_tasks_own_resource_reenters_its_hold(shop: LockedShop, account: str) -> None:
    own, again, is_locked = shop.send("lock_own", account).get(timeout=SOON)
    assert own == again
    assert is_locked, "the release inside took the task's own hold"
    assert shop.locks.is_free(account)


@pytest.mark.parametrize("how", ["return", "raise", "retry"])
def test_what_a_body_leaves_locked_is_released_with_it(
    shop: LockedShop, account: str, how: str
) -> None:
    other = f"{account}-other"
    result = shop.send("leave_locked", account, other, how)
    result.get(timeout=SOON, propagate=False)
    assert result.state == ("FAILURE" if how == "raise" else "SUCCESS")
    # Released before the result is stored.
    assert shop.locks.is_free(other)
    assert shop.locks.is_free(account)


def test_what_a_nested_body_leaves_locked_is_released_with_it(
    shop: LockedShop, account: str
) -> None:
    assert not shop.send("leave_locked_inside", account, f"{account}-o").get(timeout=SOON)


def test_a_lock_outside_tasks_and_a_task_exclude_each_other(shop: LockedShop, account: str) -> None:
    lock = Lock(resource_of(account), app=shop.app)
    with lock:
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        assert not shop.bodies_of(account)
    assert result.get(timeout=SOON) == "done"
    gate = shop.gate()
    result = shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=2, resource=resource_of(account), timeout=SOON)
    assert not lock.acquire(blocking=False)
    gate.open()
    assert lock.acquire(blocking_timeout=SOON)
    lock.release()
    assert result.get(timeout=SOON) == "done"


def test_a_bodys_wait_for_another_resource_is_bounded_and_names_both(
    shop: LockedShop, account: str
) -> None:
    gate = shop.gate()
    one, two = f"{account}-1", f"{account}-2"
    with Lock(resource_of(two), app=shop.app):
        result = shop.send("lock_other", one, two, gate.path)
        told = result.get(timeout=SOON)
    assert told["held"] == resource_of(one)
    assert told["owner"] == result.id
    assert told["holder"] == runtime_of(shop.app).record(None, None).holder


def test_a_lock_of_a_body_may_be_released_by_a_thread_of_it(shop: LockedShop, account: str) -> None:
    result = shop.send("release_in_a_thread", account, f"{account}-other")
    assert result.get(timeout=SOON) == [True, False]
