"""``task(…)``, from a script and from bodies: locked in place, by the policy of the task."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest
from celery import Celery

from celery_redlock import LockConflict, LockedTask, LockTimeout, current_lock, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop
from tests.harness.servers import LockServer
from tests.worker import paths_app as paths_app
from tests.worker.local import apps_apart, local_app
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(redlock_nested_wait_timeout=0.2)


@pytest.fixture
def app(lock_server: LockServer) -> Iterator[Celery]:
    with apps_apart():
        yield local_app(redlock_url=lock_server.url)


@pytest.fixture
def other(account: str) -> str:
    return f"other-{account}"


def test_a_call_is_locked_for_its_body(shop: LockedShop, account: str) -> None:
    work = shop.task("work")
    assert work(account) == work(account=account) == work.s(account)() == "done"
    fences = [body.fence for body in shop.bodies_of(account)]
    assert fences == sorted(set(fences))
    assert len(fences) == 3
    assert shop.locks.is_free(account)


def test_a_conflict_is_settled_as_the_task_says(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        assert is_skipped(shop.task("work_or_skip")(account))
        with pytest.raises(LockConflict) as caught:
            shop.task("work_or_fail")(account)
        with pytest.raises(LockTimeout):
            shop.task("work_soon")(account)
        with pytest.raises(LockTimeout):
            shop.task("work_later_but_soon")(account)
    assert (caught.value.resource, caught.value.holder) == (resource_of(account), "rival")
    assert shop.bodies_of(account) == []


@pytest.mark.parametrize("task", ["work", "work_later"])
def test_a_call_waits_in_place(shop: LockedShop, task: str, account: str) -> None:
    with ThreadPoolExecutor() as threads:
        with shop.locks.held(account):
            call = threads.submit(shop.task(task), account)
            shop.locks.wait_for_line(account, 1)
        assert call.result(SOON) == "done"
    assert shop.locks.is_free(account)


def test_a_wait_inside_a_body_is_bounded(shop: LockedShop, account: str, other: str) -> None:
    with shop.locks.held(other), pytest.raises(LockTimeout) as caught:
        shop.task("call_directly")(account, other, "work")
    assert caught.value.resource == resource_of(other)
    assert shop.locks.is_free(account)


def test_calls_from_several_threads_run_one_after_the_other(shop: LockedShop, account: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(shop.task("work"), account) for _ in range(8)]
        assert [call.result(SOON) for call in calls] == ["done"] * 8
    assert len(shop.bodies_of(account)) == 8
    assert shop.overlaps_of(account) == []


def test_a_body_may_call_itself(app: Celery) -> None:
    @app.task(base=LockedTask, bind=True, lock_key=())
    def count(self: Any, down: int) -> Any:
        return [self.lock.fence, *(count(down - 1) if down else ())]

    fences = count(3)
    assert len(fences) == 4
    assert len(set(fences)) == 1
    assert count.lock_state(0).holders == ()


def in_a_thread(call: Callable[[], Any]) -> Any:
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join(SOON)
    return results[0]


def test_a_thread_is_a_rival_of_the_body_that_started_it(app: Celery) -> None:
    @app.task(base=LockedTask, lock_key="stock", lock_on_conflict="skip")
    def inner() -> Any:
        return current_lock().fence

    @app.task(base=LockedTask, lock_key="stock")
    def outer() -> Any:
        context = contextvars.copy_context()
        within, without = in_a_thread(lambda: context.run(inner)), in_a_thread(inner)
        return [is_skipped(within), is_skipped(without)]

    assert outer() == [True, True]


def test_run_itself_is_not_locked(app: Celery) -> None:
    @app.task(base=LockedTask, lock_key="stock")
    def count(x: int) -> int:
        return x

    @app.task(base=LockedTask, lock_key="stock")
    def hold() -> Any:
        return in_a_thread(lambda: count.run(3))

    assert hold() == 3
    assert count.run(4) == 4
