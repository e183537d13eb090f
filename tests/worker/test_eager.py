"""Eager mode: nothing is locked, or with ``redlock_eager`` everything as in a worker, in place."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Iterator

import pytest
from celery import chain, chord, group, states

from celery_redlock import LockConflict, LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop
from tests.worker import paths_app as paths_app
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def unlocked(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(task_always_eager=True)


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(task_always_eager=True, redlock_eager=True)


@pytest.fixture
def other(account: str) -> str:
    return f"other-{account}"


def assert_ran_locked(shop: LockedShop, account: str, bodies: int = 1) -> None:
    ran = shop.bodies_of(account)
    assert len(ran) == bodies
    assert all(body.fence for body in ran)
    assert shop.locks.is_free(account)


@contextmanager
def held_until_waited_for(shop: LockedShop, account: str) -> Iterator[None]:
    """A rival's, who lets go of it when somebody stands in line."""
    rival = shop.locks.held(account)
    rival.__enter__()

    def let_go() -> None:
        shop.locks.wait_for_line(account, 1)
        rival.__exit__(None, None, None)

    waiter = threading.Thread(target=let_go)
    waiter.start()
    yield
    waiter.join(SOON)
    assert not waiter.is_alive()


# --- by default


@pytest.mark.parametrize("task", ["report", "report_or_fail"])
def test_nothing_is_locked(unlocked: LockedShop, task: str, account: str) -> None:
    expected = {"fence": None, "is_held": False, "reason": "eager"}
    with unlocked.locks.held(account):
        assert unlocked.send(task, account).get() == expected
        assert unlocked.task(task).apply((account,)).get() == expected
        assert chain(unlocked.task(task).si(account)).delay().get() == expected


def test_no_policy_applies(unlocked: LockedShop, account: str) -> None:
    with unlocked.locks.held(account):
        for task in ("work_or_skip", "work_or_fail", "work_later", "work_soon"):
            assert unlocked.send(task, account).get() == "done"
    assert [body.fence for body in unlocked.bodies_of(account)] == [None] * 4


# --- with redlock_eager


def test_a_call_is_locked_for_its_body(shop: LockedShop, account: str) -> None:
    work = shop.task("work")
    for result in (work.delay(account), work.s(account).delay(), work.apply((account,))):
        assert (result.get(), result.state) == ("done", states.SUCCESS)
    assert_ran_locked(shop, account, bodies=3)


def test_a_conflict_fails_with_its_error(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        result = shop.send("work_or_fail", account)
        assert result.state == states.FAILURE
        with pytest.raises(LockConflict) as caught:
            result.get()
        with pytest.raises(LockConflict):
            shop.task("work_or_fail").apply((account,), throw=True)
        with pytest.raises(LockTimeout):
            shop.send("work_soon", account).get()
    assert (caught.value.resource, caught.value.holder) == (resource_of(account), "rival")
    assert shop.bodies_of(account) == []


def test_an_error_is_raised_at_once_where_eager_errors_propagate(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    eager = {"task_always_eager": True, "redlock_eager": True}
    shop = make_locked_shop(task_eager_propagates=True, **eager)
    with shop.locks.held(account), pytest.raises(LockConflict):
        shop.send("work_or_fail", account)


@pytest.mark.parametrize("task", ["work", "work_later"])
def test_a_wait_and_a_retry_wait_in_place(shop: LockedShop, task: str, account: str) -> None:
    with held_until_waited_for(shop, account):
        assert shop.send(task, account).get() == "done"
    assert_ran_locked(shop, account)


def test_the_callbacks_of_a_skipped_task_are_not_called(
    shop: LockedShop, account: str, other: str
) -> None:
    link = shop.task("work").si(other)
    with shop.locks.held(account):
        result = shop.task("work_or_skip").apply((account,), link=link)
    assert is_skipped(result.get())
    assert shop.bodies_of(other) == []
    shop.task("work_or_skip").apply((account,), link=link)
    assert_ran_locked(shop, other)


def test_a_chain_goes_on_with_the_marker_of_a_skipped_step(
    shop: LockedShop, account: str, other: str
) -> None:
    with shop.locks.held(account):
        steps = chain(shop.task("work_or_skip").si(account), shop.task("tally").s(other))
        assert is_skipped(steps.delay().get())
    assert_ran_locked(shop, other)


def test_steps_of_one_account_do_not_meet(shop: LockedShop, account: str) -> None:
    skip, tally = shop.task("work_or_skip"), shop.task("tally_or_skip")
    step = skip.si(account)
    assert chain(step, step).delay().get() == "done"
    assert group(step, step).delay().get() == ["done", "done"]
    assert chord([step, step], tally.s(account)).delay().get() == ["done", "done"]
    assert skip.map([account, account]).delay().get() == ["done", "done"]
    assert_ran_locked(shop, account, bodies=9)


def test_a_retry_takes_the_lock_anew(shop: LockedShop, account: str) -> None:
    retries, fence = shop.send("retry_at_once", account).get()
    bodies = shop.bodies_of(account)
    assert retries == 2
    assert len({body.fence for body in bodies}) == 3
    assert (bodies[-1].fence, bodies[0].task_id) == (fence, bodies[-1].task_id)
    assert shop.overlaps_of(account) == []
    assert shop.locks.is_free(account)


def test_an_eager_call_in_a_body_reenters_what_that_holds(shop: LockedShop, account: str) -> None:
    outer, inner, after = shop.send("apply_inside", account, account).get()
    assert outer["is_held"]
    assert inner == outer == after
    assert shop.locks.is_free(account)


def test_an_eager_call_in_a_body_locks_what_that_does_not_hold(
    shop: LockedShop, account: str, other: str
) -> None:
    outer, inner, after = shop.send("apply_inside", account, other).get()
    assert outer == after
    assert inner["is_held"]
    assert shop.locks.is_free(account)
    assert shop.locks.is_free(other)


@pytest.mark.parametrize(
    ("task", "expected"), [("replace_by_one", "done"), ("replace_by_chain", "last")]
)
def test_a_replacement_runs_inside_the_body_that_it_replaces(
    shop: LockedShop, account: str, task: str, expected: Any
) -> None:
    """Celery runs it there, so it has what that holds."""
    assert shop.task(task).apply((account,)).get() == expected
    outer, inner = shop.bodies_of(account)
    assert outer.fence == inner.fence
    assert shop.locks.is_free(account)
