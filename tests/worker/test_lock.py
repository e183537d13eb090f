"""Lock for code that is no task: its whole interface, on a real server and from several threads."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context, copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from celery import Celery

from celery_redlock import (
    ConfigurationError,
    Lock,
    LockedTask,
    LockError,
    LockLost,
    LockNotOwned,
    LockTimeout,
    LockUnavailable,
    LockUnsure,
    current_lock,
    resource,
)
from celery_redlock.core.ports import Leave
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import execution as executions
from celery_redlock.locking import native
from celery_redlock.locking.execution import NoLock
from celery_redlock.locking.manager import Manager
from examples.demo.bodylog import BodyLog
from tests.harness.locked_shop import eventually
from tests.harness.servers import LockServer, missing
from tests.worker.local import apps_apart, local_app
from tests.worker.scripts import Scripts

PREFIX = "locks:"
SOON = 20.0

MakeApp = Callable[..., Celery]


@pytest.fixture(scope="module")
def make_app(lock_server: LockServer) -> Iterator[MakeApp]:
    with apps_apart(), ExitStack() as stack:

        def make(**conf: Any) -> Celery:
            given = {"redlock_url": lock_server.url, "redlock_restart_grace": 0}
            app = local_app(**{**given, "redlock_prefix": PREFIX, **conf})
            stack.callback(_close, app)
            return app

        yield make


def _close(app: Celery) -> None:
    runtime = runtime_of(app)
    if runtime._manager is not None:
        runtime.manager.store.close()


@pytest.fixture(scope="module")
def app(make_app: MakeApp) -> Celery:
    return make_app()


@pytest.fixture(scope="module")
def rival_app(make_app: MakeApp) -> Celery:
    """Another process as the lock server sees it: the same prefix, a manager of its own."""
    return make_app()


@pytest.fixture
def scripts(lock_server: LockServer, tmp_path: Path) -> Iterator[Scripts]:
    with ExitStack() as stack:
        yield Scripts(lock_server.url, PREFIX, tmp_path, stack)


@pytest.fixture
def name(account: str) -> str:
    return resource("account:{account}", account=account)


@pytest.fixture
def lock(app: Celery, name: str) -> Lock:
    return Lock(name, app=app)


@pytest.fixture
def rival(rival_app: Celery, name: str) -> Lock:
    return Lock(name, app=rival_app)


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call it in a thread of its own; what it returns or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(SOON)


def manager_of(app: Celery) -> Manager:
    return runtime_of(app).manager


# --- one owner


def test_it_is_held_from_acquire_to_release(lock: Lock, rival: Lock) -> None:
    assert not lock.locked()
    assert lock.acquire()
    assert (lock.is_held, lock.locked(), lock.owned()) == (True, True, True)
    assert 25 < lock.expires_in <= 30
    lock.check()
    assert rival.locked()
    assert not rival.owned()
    assert not rival.acquire(blocking=False)
    lock.release()
    assert (lock.is_held, lock.locked(), lock.owned()) == (False, False, False)
    assert rival.acquire(blocking=False)
    rival.release()


def test_its_fence_grows(lock: Lock, rival: Lock) -> None:
    with lock:
        first = lock.fence
    with rival:
        second = rival.fence
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first < second


def test_it_is_the_very_lock_of_a_task(app: Celery, rival_app: Celery, account: str) -> None:
    @app.task(base=LockedTask, lock_on_conflict="fail", shared=False)
    def by_hash(account: str) -> str:
        return str(current_lock().resource)

    @app.task(base=LockedTask, lock_on_conflict="fail", lock_key="a b:{account}", shared=False)
    def by_template(account: str) -> str:
        return str(current_lock().resource)

    for task in (by_hash, by_template):
        with Lock(task.lock_resource(account), app=rival_app) as lock:
            (holder,) = task.lock_state(account).holders
            assert holder["fence"] == lock.fence
            assert holder["pid"] == os.getpid()


def test_what_an_instance_holds_it_does_not_acquire_again(lock: Lock) -> None:
    with lock, pytest.raises(LockError, match="already"):
        lock.acquire(blocking=False)
    with lock:
        assert lock.owned()


def test_what_is_not_held_cannot_be_used(lock: Lock) -> None:
    for call in (lock.release, lock.reacquire, lambda: lock.fence):
        with pytest.raises(LockError, match="does not hold it"):
            call()
    with pytest.raises(LockNotOwned):
        lock.check()


def test_the_errors_of_a_block_go_through(lock: Lock) -> None:
    with pytest.raises(KeyError), lock:
        raise KeyError("the block's own")
    assert not lock.locked()


def test_it_may_be_released_by_another_thread(lock: Lock) -> None:
    lock.acquire()
    elsewhere(lock.release)
    assert not lock.locked()
    assert lock.acquire(blocking=False), "this thread still believed that it holds it"
    lock.release()


def test_of_two_threads_that_release_one_does(lock: Lock) -> None:
    for _ in range(20):
        lock.acquire()
        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(lock.release) for _ in range(2)]
        errors = [result.exception(SOON) for result in results]
        assert sorted(type(error).__name__ for error in errors) == ["LockError", "NoneType"]


def test_two_apps_of_different_prefixes_do_not_meet(
    lock: Lock, make_app: MakeApp, name: str
) -> None:
    other = Lock(name, app=make_app(redlock_prefix="others:"))
    with lock, other:
        assert lock.owned()
        assert other.owned()


def test_the_current_app_is_its_app(make_app: MakeApp, name: str) -> None:
    app = make_app()
    app.set_current()
    try:
        with Lock(name):
            assert Lock(name, app=app).locked()
    finally:
        local_app().set_current()


# --- waiting


def test_threads_take_turns(app: Celery, name: str, tmp_path: Path) -> None:
    bodies = BodyLog(tmp_path / "bodies.log")

    def work(number: int) -> None:
        for turn in range(10):
            with Lock(name, app=app) as lock, bodies.body(name, lock.fence, f"{number}-{turn}"):
                pass

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(4)]:
            done.result(SOON)
    bodies.assert_exclusive()
    bodies.assert_fences_grow()
    assert len(bodies.bodies(name)) == 40


def test_a_release_wakes_who_waits(lock: Lock, rival: Lock) -> None:
    lock.acquire()
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(rival.acquire)
        assert eventually(lambda: manager_of(rival._app).inspect(rival.name).waiters)
        released = time.monotonic()
        lock.release()
        assert waiter.result(SOON)
    assert time.monotonic() - released < 5.0
    rival.release()


def test_it_gives_up_in_time_and_leaves_the_line(lock: Lock, rival: Lock) -> None:
    with rival:
        began = time.monotonic()
        assert not lock.acquire(blocking_timeout=timedelta(milliseconds=200))
        assert time.monotonic() - began >= 0.2
        assert not lock.acquire(blocking_timeout=0)
        assert not manager_of(rival._app).inspect(rival.name).waiters
        with pytest.raises(LockError, match="does not hold it"):
            lock.release()
    assert lock.acquire(blocking=False)
    lock.release()


def test_one_that_waits_cannot_be_released_nor_acquired(lock: Lock, rival: Lock) -> None:
    rival.acquire()
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(lock.acquire)
        assert eventually(lambda: manager_of(rival._app).inspect(rival.name).waiters)
        with pytest.raises(LockError, match="does not hold it"):
            lock.release()
        with pytest.raises(LockError, match="already"):
            lock.acquire()
        rival.release()
        assert waiter.result(SOON)
    lock.release()


def test_a_limit_lets_so_many_in(app: Celery, name: str) -> None:
    locks = [Lock(name, app=app, limit=2) for _ in range(3)]
    assert [elsewhere(lambda lock=lock: lock.acquire(blocking=False)) for lock in locks] == [
        True,
        True,
        False,
    ]
    for lock in locks[:2]:
        lock.release()


def test_readers_share_and_a_writer_does_not(app: Celery, rival_app: Celery, name: str) -> None:
    with Lock(name, app=app, mode="shared"):
        with Lock(name, app=rival_app, mode="shared"):
            pass
        assert not Lock(name, app=rival_app).acquire(blocking=False)


class Interrupt(Exception):
    """What another thread throws in, as time limits of thread pools do."""


def is_waiting(thread: threading.Thread) -> bool:
    """Whether it sleeps until the lock is its own."""
    frame = sys._current_frames()[thread.ident or 0]
    return frame.f_code is native.Signal.wait.__code__


def test_an_exception_thrown_into_the_waiting_thread_leaves_nothing(
    app: Celery, rival: Lock, name: str
) -> None:
    lock = Lock(name, app=app, ttl=1)
    caught = []

    def wait() -> None:
        try:
            lock.acquire()
        except Interrupt as error:
            caught.append(error)

    with rival:
        waiter = threading.Thread(target=wait)
        waiter.start()
        # Not before: logging, for one, swallows whatever is thrown into parts of it.
        assert eventually(lambda: is_waiting(waiter))
        ident = ctypes.c_ulong(waiter.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Interrupt))
        waiter.join(SOON)
        assert caught
        assert eventually(lambda: not manager_of(rival._app).inspect(name).waiters)
    assert eventually(lambda: not rival.locked())
    assert lock.acquire(blocking_timeout=SOON)
    lock.release()


def test_ctrl_c_while_it_waits_leaves_nothing(rival: Lock, scripts: Scripts, name: str) -> None:
    with rival:
        script = scripts.start("interrupted", name)
        assert eventually(lambda: manager_of(rival._app).inspect(name).waiters, SOON)
        script.program.send(signal.SIGINT)
        assert script.ends()[-1] == {"waiting": 0, "is_held": False}


# --- leases


def test_it_is_renewed_while_it_is_held(app: Celery, name: str) -> None:
    with Lock(name, app=app, ttl=1) as lock:
        renewed = lock._claims.now.hold.trusted_until  # type: ignore[union-attr]
        assert eventually(lambda: lock._claims.now.hold.trusted_until > renewed + 1)  # type: ignore
        lock.check()


def test_without_renewal_it_ends_with_its_lease(app: Celery, rival: Lock, name: str) -> None:
    lock = Lock(name, app=app, ttl=1, renew=False)
    lock.acquire()
    assert rival.acquire(blocking_timeout=SOON)
    assert not lock.is_held
    with pytest.raises(LockUnsure):
        lock.check()
    assert not lock.owned()
    with pytest.raises(LockNotOwned):
        lock.release()
    assert rival.owned(), "the release of one that was lost took another's"
    rival.release()
    assert eventually(lambda: manager_of(app).is_idle)


def test_one_that_nobody_needed_is_released_although_its_lease_is_over(
    app: Celery, name: str
) -> None:
    with Lock(name, app=app, ttl=1, renew=False) as lock:
        assert eventually(lambda: not lock.is_held)


def test_extending_outlives_the_lease(app: Celery, rival: Lock, name: str) -> None:
    lock = Lock(name, app=app, ttl=1, renew=False)
    lock.acquire()
    ends_at = time.monotonic() + lock.expires_in
    assert lock.extend(timedelta(seconds=30))
    assert 29 < lock.expires_in < 31
    assert not rival.acquire(blocking_timeout=ends_at + 0.3 - time.monotonic())
    lock.check()
    lock.release()


def test_a_lease_is_never_shortened_and_trust_may_be(app: Celery, name: str) -> None:
    lock = Lock(name, app=app, ttl=60, renew=False)
    lock.acquire()
    assert lock.extend(2, replace_ttl=True)
    assert lock.expires_in < 2
    (holder,) = manager_of(app).inspect(name).holders
    assert holder.remaining_ms > 50_000
    assert lock.reacquire()
    assert lock.expires_in > 50
    lock.release()


def test_one_whose_time_was_over_comes_back_if_nobody_needed_it(app: Celery, name: str) -> None:
    lock = Lock(name, app=app, ttl=1, renew=False)
    lock.acquire()
    assert eventually(lambda: not lock.is_held)
    assert lock.reacquire()
    lock.check()
    # Watched again: its second end is noticed too.
    assert eventually(lambda: not manager_of(app).watchdog.renewing)
    lock.release()


@pytest.mark.parametrize("call", ["extend", "reacquire"])
def test_what_was_lost_cannot_be_extended(app: Celery, rival: Lock, name: str, call: str) -> None:
    lock = Lock(name, app=app, ttl=1, renew=False)
    lock.acquire()
    assert rival.acquire(blocking_timeout=SOON)
    with pytest.raises(LockLost):
        lock.extend(5) if call == "extend" else lock.reacquire()
    with pytest.raises(LockLost):
        lock.check()
    with pytest.raises(LockError, match="already"):
        lock.acquire()
    with pytest.raises(LockLost):
        lock.release()
    assert rival.owned()
    rival.release()


def test_a_lost_lock_is_told_at_the_end_of_its_block(app: Celery, name: str) -> None:
    with pytest.raises(LockLost), Lock(name, app=app, ttl=1) as lock:
        force(lock)
    with pytest.raises(KeyError), Lock(name, app=app, ttl=1) as lock:
        _ = {}[force(lock)]


def force(lock: Lock) -> None:
    """End its hold as an operator does, and wait until it knows."""
    name, store = lock.name, manager_of(lock._app).store
    tokens = tuple(holder.token for holder in store.inspect(name).holders)
    store.leave(Leave(name, tokens, tomb_ms=60_000, why="forced"))
    assert eventually(lambda: not lock.is_held)


def test_one_that_is_forgotten_is_not_renewed(app: Celery, rival: Lock, name: str) -> None:
    Lock(name, app=app, ttl=1).acquire()
    gc.collect()
    assert rival.acquire(blocking_timeout=SOON)
    rival.release()


# --- the lock server is away


def test_a_server_that_is_away_is_told_and_a_release_does_not_wait_for_it(
    make_app: MakeApp, name: str
) -> None:
    with LockServer.start() as server:
        app = make_app(redlock_url=server.url, redlock_options={"socket_timeout": 0.3})
        lock, other = Lock(name, app=app), Lock(f"{name}-other", app=app)

        @app.task(base=LockedTask, lock_key=name)
        def work() -> None: ...

        lock.acquire()
        server.pause()
        try:
            calls = (lock.locked, lock.owned, lock.reacquire, other.acquire, work.lock_state)
            for call in calls:
                with pytest.raises(LockUnavailable) as told:
                    call()
                assert told.type is LockUnavailable
            assert lock.is_held
            began = time.monotonic()
            lock.release()
            assert time.monotonic() - began < 5.0
            with pytest.raises(LockError):
                other.release()
        finally:
            server.resume()
        assert eventually(lambda: not lock.locked())
        assert not other.locked()


def test_a_waiter_is_told_of_an_outage(make_app: MakeApp, name: str) -> None:
    with LockServer.start() as server:
        app, rival_app = make_app(redlock_url=server.url), make_app(redlock_url=server.url)
        rival = Lock(name, app=rival_app)
        rival.acquire()
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(Lock(name, app=app, ttl=1).acquire)
            assert eventually(lambda: manager_of(rival_app).inspect(name).waiters)
            server.kill()
            with pytest.raises(LockUnavailable):
                waiter.result(SOON)
        server.restart()
        elsewhere(lambda: None)
        assert eventually(lambda: manager_of(app).is_idle)


# --- re-entrance


def test_locks_of_one_thread_nest(app: Celery, name: str) -> None:
    outer, inner = Lock(name, app=app), Lock(name, app=app)
    with outer:
        with inner:
            assert inner.fence == outer.fence
            assert inner.owned()
        assert outer.owned(), "the inner release took the outer hold"
        outer.check()
    assert not outer.locked()


def test_a_task_called_inside_a_lock_reenters_it(app: Celery, name: str, account: str) -> None:
    @app.task(base=LockedTask, lock_key="account:{account}", shared=False)
    def sync(account: str) -> Any:
        with Lock(name, app=app) as again:
            return current_lock().fence, again.fence

    with Lock(name, app=app) as lock:
        assert sync(account) == (lock.fence, lock.fence)
        # In eager mode the task takes no lock of its own.
        assert sync.apply((account,)).get() == (None, lock.fence)
        lock.check()
        with pytest.raises(LockError):
            current_lock()
    fence, again = sync(account)
    assert fence == again
    assert not lock.locked()


def test_a_hold_ends_with_its_owner(app: Celery, name: str) -> None:
    outer, inner = Lock(name, app=app), Lock(name, app=app)
    outer.acquire()
    inner.acquire()
    outer.release()
    assert not inner.locked()
    with pytest.raises(LockNotOwned):
        inner.check()
    with pytest.raises(LockNotOwned):
        inner.release()


@pytest.mark.parametrize(
    ("outer", "inner"), [({"mode": "shared"}, {}), ({"limit": 2}, {"limit": 1})]
)
def test_more_than_is_held_cannot_be_had_inside(
    app: Celery, name: str, outer: Any, inner: Any
) -> None:
    with Lock(name, app=app, **outer), pytest.raises(LockError, match="cannot be had"):
        Lock(name, app=app, **inner).acquire()


def test_concurrent_copies_of_a_context_exclude_each_other(app: Celery, name: str) -> None:
    """As the threads of asyncio.to_thread have, two of which may run at once."""
    with Lock(f"{name}-around", app=app) as around:
        one, two = copy_context(), copy_context()
        lock = Lock(name, app=app)
        assert one.run(lock.acquire)
        rival = Lock(name, app=app)
        assert not two.run(rival.acquire, blocking=False)
        for copied in (one, two):
            again = Lock(around.name, app=app)
            assert copied.run(again.acquire), "what was held around both"
            again.release()
        lock.release()


def test_a_thread_that_outlives_its_body_has_locks_of_its_own(
    app: Celery, name: str, account: str
) -> None:
    copies = []

    @app.task(base=LockedTask, lock_key=("account",), shared=False)
    def leave_a_context(account: str) -> None:
        copies.append(copy_context())

    leave_a_context(account)
    lock = Lock(name, app=app, ttl=1)
    copies[0].run(lock.acquire)
    lock.check()
    del lock
    gc.collect()
    assert eventually(lambda: not Lock(name, app=app).locked()), "nobody ended it"


def test_what_was_released_elsewhere_is_not_reentered(app: Celery, rival: Lock, name: str) -> None:
    lock = Lock(name, app=app)
    lock.acquire()
    Context().run(lock.release)
    with rival:
        assert not Lock(name, app=app).acquire(blocking=False)


def test_one_that_is_over_is_not_reentered(app: Celery, rival: Lock, name: str) -> None:
    lock = Lock(name, app=app, ttl=1, renew=False)
    lock.acquire()
    assert elsewhere(lambda: rival.acquire(blocking_timeout=SOON))
    assert not Lock(name, app=app).acquire(blocking=False), "two hold it"
    assert not lock.is_held
    rival.release()


def test_one_that_is_forgotten_is_not_reentered(app: Celery, rival: Lock, name: str) -> None:
    Lock(name, app=app, ttl=2).acquire()
    gc.collect()
    lock = Lock(name, app=app, ttl=2)
    assert not lock.acquire(blocking=False), "nobody renews what it would be in"
    assert lock.acquire(blocking_timeout=SOON)
    assert executions.here().locks == (lock._claims.now,)
    lock.release()


def test_a_wait_after_one_that_is_over_is_not_bounded(
    make_app: MakeApp, rival: Lock, name: str
) -> None:
    app = make_app(redlock_nested_wait_timeout=0.2)
    kept = Lock(f"{name}-mine", app=app, ttl=1, renew=False)
    kept.acquire()
    assert eventually(lambda: not kept.is_held)
    elsewhere(rival.acquire)
    threading.Timer(1.0, rival.release).start()
    assert Lock(name, app=app).acquire()


def test_a_wait_inside_a_hold_is_bounded_and_names_both(
    make_app: MakeApp, rival: Lock, name: str
) -> None:
    app = make_app(redlock_nested_wait_timeout=0.2)
    mine = f"{name}-mine"
    with rival, Lock(mine, app=app):
        with pytest.raises(LockTimeout) as caught, Lock(name, app=app):
            pass
        assert Lock(name, app=app).acquire(blocking_timeout=0.1) is False
    error = caught.value
    holder = error.holder
    assert (error.resource, error.held) == (name, mine)
    assert error.owner == holder
    assert holder is not None
    assert holder.endswith(f"/{os.getpid()}")
    assert name in str(error)
    assert mine in str(error)
    assert type(error)(*error.args).args == error.args


def test_a_task_called_inside_a_lock_waits_no_longer_than_allowed(
    make_app: MakeApp, rival: Lock, name: str, account: str
) -> None:
    app = make_app(redlock_nested_wait_timeout=0.2)

    @app.task(base=LockedTask, lock_key="account:{account}", shared=False)
    def sync(account: str) -> None:
        raise AssertionError("it ran")

    with rival, Lock(f"{name}-mine", app=app), pytest.raises(LockTimeout) as caught:
        sync(account)
    assert (caught.value.resource, caught.value.held) == (name, f"{name}-mine")


# --- disabled, forked, patched


def test_where_locking_is_disabled_it_locks_nothing(make_app: MakeApp, name: str) -> None:
    app = make_app(redlock_enabled=False, redlock_url="redis://127.0.0.1:1/0")
    lock, other = Lock(name, app=app), Lock(name, app=app)
    with lock, other:
        lock.check()
        assert (lock.fence, lock.is_held, lock.locked(), lock.owned()) == (
            None,
            False,
            False,
            False,
        )
        assert lock.extend(5)
        with pytest.raises(LockError, match="already"):
            lock.acquire()
    with pytest.raises(LockError):
        lock.release()


def test_a_forked_child_holds_nothing_and_its_parent_keeps_it(scripts: Scripts, name: str) -> None:
    facts = scripts.start("fork", name).ends()
    assert facts == [
        {"child": True, "owned": False, "is_held": False, "released": "LockError"},
        {"acquired": False, "locked": True},
        {"child": False, "owned": True, "is_held": True, "released": ""},
        {"locked": False},
    ]


def test_a_child_does_not_wait_for_a_thread_that_its_parent_had(lock: Lock) -> None:
    """Which was about to acquire or release this instance when the process forked."""
    claims = lock._claims
    with claims._mutex():
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)
            claims.take(NoLock("disabled"))
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_greenlets_take_turns_and_release_for_one_another(
    scripts: Scripts, name: str, kind: str
) -> None:
    if importlib.util.find_spec(kind) is None:
        missing(kind)
    assert scripts.start(kind, name).ends() == [
        {"bodies": 5, "at_once": 1},
        {"locked": False, "is_held": False},
    ]


# --- what it cannot be


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": ""}, "printable"),
        ({"name": " "}, "printable"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "\udc80"}, "printable"),
        ({"name": None}, "a NoneType"),
        ({"name": b"a"}, "a bytes"),
        ({"name": ("a", "b")}, "several names"),
        ({"name": "é" * 101}, "at most 200 bytes, got 202"),
        ({"ttl": 0.5}, "ttl must be a duration from 1 to 86400 seconds"),
        ({"ttl": "30"}, "ttl"),
        ({"ttl": None}, "ttl"),
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"mode": "write"}, "mode must be one of"),
        ({"mode": "shared", "limit": 2}, 'limit must be 1 with mode="shared"'),
        ({"renew": 1}, "renew must be True or False"),
    ],
)
def test_what_it_cannot_be_is_told_when_it_is_made(given: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Lock(**{"name": "account:1", **given})
    assert says in str(caught.value)


@pytest.mark.parametrize("timeout", [-1, "1", float("nan")])
def test_what_a_timeout_cannot_be_is_told(lock: Lock, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="blocking_timeout"):
        lock.acquire(blocking_timeout=timeout)
    with lock, pytest.raises(ConfigurationError, match="additional_time"):
        lock.extend(timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e9])
def test_a_timeout_that_is_too_long_is_told_its_bound(lock: Lock, timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="ten years at most"):
        lock.acquire(blocking_timeout=timeout)
