"""What a body, its helpers, its hooks and the bodies that it calls see of its lock."""

from __future__ import annotations

import pytest

from celery_redlock import LockError, current_lock
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(concurrency=2)
    return shop


def stand_in(reason: str) -> object:
    return {"fence": None, "is_held": False, "reason": reason}


def test_a_body_has_its_lock_and_a_fence_that_grows(shop: LockedShop, account: str) -> None:
    reports = [shop.send("report", account).get(timeout=SOON) for _ in range(2)]
    for report in reports:
        assert (report["is_held"], report["reason"]) == (True, None)
    assert reports[0]["fence"] < reports[1]["fence"]


def test_a_direct_call_on_the_same_account_reenters(shop: LockedShop, account: str) -> None:
    outer, inner, after = shop.send("report_nested", account).get(timeout=SOON)
    assert inner == outer
    assert after == outer, "the inner body's end took the lock"
    assert outer["is_held"]
    assert shop.locks.is_free(account)


def test_a_direct_call_outside_a_worker_is_locked(shop: LockedShop, account: str) -> None:
    assert shop.task("report")(account)["is_held"]
    assert shop.locks.is_free(account)


def test_what_is_held_as_shared_cannot_be_had_as_exclusive(shop: LockedShop, account: str) -> None:
    with pytest.raises(LockError, match="shared"):
        shop.send("write_while_reading", account).get(timeout=SOON)
    assert shop.locks.is_free(account)


def test_hooks_are_outside_the_lock(shop: LockedShop, account: str) -> None:
    result = shop.send("report_hooked", account)
    assert result.get(timeout=SOON)["is_held"]
    for hook in ("before_start", "on_success"):
        # The result is stored before on_success is called.
        assert eventually(lambda hook=hook: shop.said(task_id=result.id, hook=hook), SOON)
        (told,) = shop.said(task_id=result.id, hook=hook)
        assert told["lock"] == "LockError"


def test_there_is_no_lock_outside_a_body(shop: LockedShop) -> None:
    with pytest.raises(LockError):
        current_lock()
    with pytest.raises(LockError):
        _ = shop.task("report").lock


def test_a_call_without_a_key_is_not_locked(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        report = shop.send("report_without_key", account).get(timeout=SOON)
    assert report == stand_in("no key")


def test_an_eager_call_is_not_locked(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        assert shop.task("report").apply((account,)).get() == stand_in("eager")


def test_a_disabled_lock_locks_nothing(make_locked_shop: MakeLockedShop, account: str) -> None:
    shop = make_locked_shop(redlock_enabled=False)
    with shop.locks.held(account):
        assert shop.task("report")(account) == stand_in("disabled")
    assert resource_of(account) == shop.task("report").lock_resource(account)


def test_an_eager_call_is_locked_where_the_setting_says_so(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop(redlock_eager=True)
    assert shop.task("report").apply((account,)).get()["is_held"]
    with shop.locks.held(account):
        skipped = shop.task("work_or_skip").apply((account,)).get()
    assert skipped["holder"] == "rival"
