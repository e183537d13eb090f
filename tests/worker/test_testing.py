"""What users' tests are given keeps its word: locks in memory, and what goes wrong on request."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator

import pytest
from celery import Celery

from celery_redlock import (
    ConfigurationError,
    Lock,
    LockConflict,
    LockedTask,
    LockLost,
    LockTimeout,
    is_skipped,
)
from celery_redlock.core import events
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import native
from celery_redlock.testing import MemoryLocks, Met, memory_locks
from tests.worker.local import apps_apart, local_app, local_worker

SOON = 20.0


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture
def app() -> Celery:
    """An app whose real lock server nobody can reach."""
    return local_app(redlock_url="redis://127.0.0.1:1/0")


@pytest.fixture
def locks() -> Iterator[MemoryLocks]:
    with memory_locks() as locks:
        yield locks


def fence_of(task: Any) -> Any:
    return task.lock.fence


def declare(app: Celery, body: Callable[[Any], Any] = fence_of, **options: Any) -> Any:
    @app.task(
        name="shop.sync",
        base=LockedTask,
        bind=True,
        shared=False,
        lock_key="account:{n}",
        **options,
    )
    def sync(self: Any, n: int = 1) -> Any:
        return body(self)

    return app.tasks["shop.sync"]


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_thread(run: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


# --- in memory


def test_a_direct_call_an_eager_one_and_a_lock_are_in_memory(
    app: Celery, locks: MemoryLocks
) -> None:
    sync = declare(app)
    with Lock("account:2", app=app):
        assert locks.is_held(sync, 2)
    assert 0 < sync(1) < sync.apply().get()
    assert not locks.is_held("account:1", app=app)


def test_eager_tasks_lock_only_if_asked_for(app: Celery) -> None:
    sync = declare(app)
    with memory_locks(eager=None):
        assert sync.apply().get() is None
        app.conf.task_always_eager = True
        assert sync.delay().get() is None
    with memory_locks():
        assert sync.delay().get() > 0


def test_locking_is_on_where_the_app_turns_it_off(locks: MemoryLocks) -> None:
    assert declare(local_app(redlock_enabled=False))() > 0


def test_one_test_leaves_nothing_to_the_next(app: Celery) -> None:
    sync = declare(app)
    with memory_locks() as first:
        first.hold(sync)
        first.killed(sync, 2)
    with memory_locks() as second:
        assert sync()
        assert second.conflicts == []
        assert second.holders(sync, 2) == []


def test_afterwards_the_real_settings_and_manager_are_back(app: Celery) -> None:
    runtime = runtime_of(app)
    settings, manager = runtime.settings, runtime.manager
    with memory_locks():
        assert runtime.settings is not settings
        assert runtime.manager is not manager
        assert runtime.manager is runtime.manager
    assert (runtime.settings, runtime.manager) == (settings, manager)


def test_of_nested_contexts_the_inner_one_counts(app: Celery) -> None:
    sync = declare(app, lock_on_conflict="fail")
    with memory_locks() as outer, outer.hold(sync):
        with memory_locks():
            assert sync()
        with pytest.raises(LockConflict):
            sync()


def test_apps_of_one_prefix_meet_and_others_do_not() -> None:
    ours, also_ours, theirs = local_app("ours"), local_app("ours"), local_app("theirs")
    with memory_locks(ours, also_ours, theirs) as locks:
        locks.hold("account:1", app=ours)
        with pytest.raises(LockConflict):
            locks.hold("account:1", app=also_ours)
        locks.hold("account:1", app=theirs)


def test_an_app_that_is_not_named_is_left_alone(app: Celery) -> None:
    other = local_app("other")
    with memory_locks(other):
        assert runtime_of(app).settings is runtime_of(app).settings
        assert not isinstance(runtime_of(app).manager, type(runtime_of(other).manager))


def test_no_thread_of_ours_outlives_the_test(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = [], []
    start = native._start

    def noted(run: Callable[[], None], _arguments: Any) -> None:
        begun.append(run)
        start(lambda: (run(), ended.append(run)), ())

    monkeypatch.setattr(native, "_start", noted)
    sync = declare(app, lock_wait_timeout=0.05)
    with memory_locks() as locks:
        sync()
        with locks.hold(sync), pytest.raises(LockTimeout):
            sync()
        assert len(begun) == 2
    until(lambda: len(ended) == 2)


# --- what a test arranges


def test_a_rival_holds_until_its_release(app: Celery, locks: MemoryLocks) -> None:
    sync = declare(app, lock_on_conflict="fail")
    with locks.hold(sync, n=1) as rival:
        assert locks.holders(sync) == ["rival"]
        with pytest.raises(LockConflict, match="account:1 is held by rival"):
            sync()
    assert sync() > rival.fences["account:1"]


def test_a_rival_may_share(app: Celery, locks: MemoryLocks) -> None:
    locks.hold("account:1", app=app, mode="shared")
    assert declare(app, lock_mode="shared")()
    with pytest.raises(LockConflict):
        locks.hold("account:1", app=app)


def test_a_rival_holds_all_that_a_call_locks(app: Celery, locks: MemoryLocks) -> None:
    @app.task(base=LockedTask, lock_key=["from:{a}", "to:{b}"])
    def move(a: int, b: int) -> None: ...

    locks.hold("to:2", app=app)
    with pytest.raises(LockConflict):
        locks.hold(move, 1, 2)
    assert not locks.is_held("from:1", app=app)
    assert locks.hold(move, 3, 4).resources == ("from:3", "to:4")


def test_a_waiter_is_granted_what_a_rival_gives_back(app: Celery, locks: MemoryLocks) -> None:
    sync, fences = declare(app), []
    rival = locks.hold(sync)
    waiter = in_thread(lambda: fences.append(sync()))
    until(lambda: Met("account:1", "shop.sync", "wait") in locks.conflicts)
    rival.release()
    waiter.join(SOON)
    assert len(fences) == 1


def test_a_dead_holder_is_taken_over(app: Celery, locks: MemoryLocks) -> None:
    sync = declare(app, lock_on_conflict="fail")
    locks.killed(sync)
    assert locks.is_held(sync)
    assert sync()
    assert [type(event) for event in locks.events][:2] == [events.Reclaimed, events.Acquired]
    assert locks.conflicts == []


def test_a_lease_that_is_over_is_in_nobodys_way(app: Celery, locks: MemoryLocks) -> None:
    sync = declare(app, lock_on_conflict="fail")
    locks.expired(sync)
    assert not locks.is_held(sync)
    assert sync()


def test_the_clock_goes_forward(app: Celery, locks: MemoryLocks) -> None:
    lock = Lock("account:1", app=app, ttl=30, renew=False)
    assert lock.acquire()
    locks.advance(31)
    assert not lock.owned()
    lock.release()


def test_a_body_is_told_of_its_loss(app: Celery, locks: MemoryLocks) -> None:
    def body(self: Any) -> None:
        assert self.lock.is_held
        locks.lose("account:1", app=app)
        self.lock.check()

    with pytest.raises(LockLost):
        declare(app, body)()
    assert locks.holders("account:1", app=app) == ["rival"]


def test_a_worker_in_this_process_locks_in_memory_and_its_bodies_are_interrupted(
    locks: MemoryLocks,
) -> None:
    app, begun = local_app(), threading.Event()

    def body(self: Any) -> None:
        begun.set()
        until(lambda: False)

    sync = declare(app, body, lock_on_conflict="skip")
    with local_worker(app, pool="threads", concurrency=1):
        locks.hold(sync, 2)
        assert is_skipped(sync.delay(2).get(timeout=SOON))
        result = sync.delay(1)
        assert begun.wait(SOON)
        locks.lose(sync)
        with pytest.raises(LockLost):
            result.get(timeout=SOON)
    assert locks.conflicts == [Met("account:2", "shop.sync", "skip")]


def test_in_an_outage_the_lock_server_does_not_answer(app: Celery, locks: MemoryLocks) -> None:
    sync = declare(app, lambda self: self.lock.reason, lock_on_outage="run")
    with locks.outage():
        assert sync() == "outage"
    assert sync() is None
    assert events.Unavailable in [type(event) for event in locks.events]


# --- what a test asks


def test_each_conflict_is_told_with_what_was_decided(app: Celery, locks: MemoryLocks) -> None:
    locks.hold("account:1", app=app)
    with pytest.raises(LockTimeout):
        declare(app, lock_wait_timeout=0.05)()
    with pytest.raises(LockConflict):
        declare(local_app(), lock_on_conflict="fail")()
    assert [met.decision for met in locks.conflicts] == ["wait", "timeout", "fail"]


def test_nobody_waits_for_longer_than_a_test_may_take(app: Celery) -> None:
    sync = declare(app, lock_wait_timeout=600)
    with memory_locks(longest_wait=0.05) as locks, locks.hold(sync):
        with pytest.raises(LockTimeout):
            sync()
        with pytest.raises(LockTimeout), Lock("account:1", app=app):
            pass


def test_a_lock_that_is_left_fails_the_test(app: Celery) -> None:
    locks = memory_locks().__enter__()
    locks.hold("account:2", app=app)
    assert Lock("account:1", app=app).acquire()
    with pytest.raises(AssertionError, match=r"^locks are left: account:1 is held by [^;]*$"):
        locks.assert_none_left(within=0)
    with pytest.raises(AssertionError, match="account:1"):
        locks.__exit__(None)


def test_a_failure_of_the_test_itself_is_what_is_told(app: Celery) -> None:
    def fail() -> None:
        with memory_locks():
            assert Lock("account:1", app=app).acquire()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_body_that_ends_soon_is_waited_for(app: Celery) -> None:
    begun, over = threading.Event(), threading.Event()

    def body(_self: Any) -> None:
        begun.set()
        over.wait(SOON)

    sync = declare(app, body)
    with memory_locks() as locks:
        ending = in_thread(sync)
        assert begun.wait(SOON)
        threading.Timer(0.05, over.set).start()
        locks.assert_none_left(within=SOON)
        ending.join(SOON)


def test_what_cannot_be_held_is_refused_with_one_clear_error(
    app: Celery, locks: MemoryLocks
) -> None:
    @app.task(base=LockedTask, lock_key=lambda n: None)
    def free(n: int) -> None: ...

    for wrong in (
        lambda: locks.hold(free, 1),
        lambda: locks.hold("account:1", 7),
        lambda: locks.hold("account:1", nobody=7),
        lambda: locks.hold("account:1", mode="none"),
    ):
        with pytest.raises(ConfigurationError):
            wrong()
