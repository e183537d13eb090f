"""The two bugs that this project starts from: each against a naive lock, which has it, and ours."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from typing import Any, Callable, Iterator, List, Optional, Set

import pytest
from redis import Redis

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Patience
from celery_redlock.store.urls import open_store
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.stress.naive import GatedLocks, ThreadOwnedLocks

WAITERS = 100


@pytest.fixture
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


def manager_of(url: str) -> Manager:
    return Manager(open_store(url, prefix="test:1:", restart_grace=0), lambda event: None)


def new_hold(resource: str = "r", lease: float = 1.0) -> Hold:
    record = Record(host="here", pid=os.getpid(), since=time.time(), task_id="task")
    return Hold(resource, Terms(lease_ms=int(lease * 1000)), record)


def eventually(holds: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- (a) many waiters of one process


def contend(take: Callable[[float], Optional[Callable[[], None]]], seconds: float) -> List[str]:
    """A hundred threads take, hold for a moment or give up; the names of those that got stuck."""
    ends_at = time.monotonic() + seconds

    def loop(seed: int) -> None:
        rnd = random.Random(seed)
        while time.monotonic() < ends_at:
            release = take(rnd.choice((0.0, 0.005, 0.05, 0.3)))
            if release is not None:
                time.sleep(rnd.random() * 0.002)
                release()

    threads = [
        threading.Thread(target=loop, args=(seed,), daemon=True, name=f"waiter-{seed}")
        for seed in range(WAITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends_at + 10.0 - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


def test_a_gate_that_sends_under_its_mutex_deadlocks() -> None:
    gate = GatedLocks()

    def take(timeout: float) -> Optional[Callable[[], None]]:
        return gate.release if gate.acquire(timeout) else None

    assert contend(take, seconds=2.0), "the naive lock has lost its bug: the test proves nothing"


def test_a_hundred_waiters_of_one_process_always_return(server: LockServer) -> None:
    """While the holder releases, waiters give up and pub/sub connections are cut, all the time."""
    before = threads_inside_our_locks()
    manager = manager_of(server.url)
    bodies = threading.Semaphore(1)
    overlaps: List[str] = []
    cutting = threading.Event()

    def take(timeout: float) -> Optional[Callable[[], None]]:
        hold = new_hold()
        outcome = manager.acquire(hold, Patience(until=time.monotonic() + timeout))
        if not isinstance(outcome, Held):
            return None
        if not bodies.acquire(blocking=False):
            overlaps.append(threading.current_thread().name)

        def release() -> None:
            bodies.release()
            manager.release(hold)

        return release

    def cut() -> None:
        while not cutting.wait(0.05):
            server.cut_pubsub()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        stuck = contend(take, seconds=8.0)
    finally:
        cutting.set()
        cutter.join()
    assert not stuck
    assert not overlaps
    began = time.monotonic()
    last = new_hold()
    assert isinstance(manager.acquire(last, Patience(until=began + 5.0)), Held)
    assert time.monotonic() - began < 1.0
    manager.release(last)
    assert manager.is_idle, "a local table keeps an entry"
    assert not threads_inside_our_locks() - before
    client = server.client()
    assert eventually(lambda: client.keys("test:1:*") == ["test:1:{r}:h"], within=5.0)
    assert client.hkeys("test:1:{r}:h") == ["f"]


def threads_inside_our_locks() -> Set[int]:
    """Threads, other than our two background ones, that stand in the locking package."""
    found = set()
    for thread, frame in sys._current_frames().items():
        stack = traceback.extract_stack(frame)
        ours = [entry for entry in stack if "celery_redlock/locking" in entry.filename]
        if ours and ours[0].name != "in_background":
            found.add(thread)
    return found


# --- (b) a release that raises, in a process that is reused

LEASE = 1.0


class Flaky:
    """A Redis client whose DEL fails when told so."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.fails = False

    def delete(self, name: str) -> Any:
        if self.fails:
            raise ConnectionError("cut")
        return self._client.delete(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_lock_owned_by_a_thread_is_inherited_and_renewed_for_ever(server: LockServer) -> None:
    client = Flaky(server.client())
    locks = ThreadOwnedLocks(client, LEASE)  # type: ignore[arg-type]
    try:
        assert locks.acquire("r", timeout=0) == 1
        client.fails = True
        with pytest.raises(ConnectionError):
            locks.release("r")
        client.fails = False
        # The next task of the same thread inherits a count, and nobody else ever gets it.
        assert locks.acquire("r", timeout=0) == 2
        time.sleep(2.5 * LEASE)
        assert client.exists("r")
    finally:
        locks.close()


@pytest.mark.parametrize("point", ["before", "after", "stopped"])
def test_nothing_renews_a_hold_whose_release_raised(server: LockServer, point: str) -> None:
    """The next task here gets it at once, and while nobody asks nothing renews it."""
    with Proxy(server.url) as proxy:
        manager = manager_of(proxy.url)
        first = new_hold(lease=LEASE)
        assert isinstance(manager.acquire(first, Patience()), Held)
        fail_release(server, proxy, point, manager, first)
        assert first.state is State.ABANDONED
        assert manager.watchdog.renewing == []
        renewals = proxy.calls["renew"]

        began = time.monotonic()
        second = new_hold(lease=LEASE)
        assert isinstance(manager.acquire(second, Patience(until=began + 10.0)), Held)
        assert time.monotonic() - began < LEASE / 2, "the process waited for its own old hold"
        assert proxy.calls["renew"] == renewals
        assert manager.watchdog.renewing == [second]
        assert first.state is State.ENDED
        proxy.mend()
        manager.release(second)
        assert eventually(lambda: manager.is_idle, within=5.0)


@pytest.mark.parametrize("point", ["before", "after", "stopped"])
def test_another_process_gets_it_no_later_than_the_lease(server: LockServer, point: str) -> None:
    with Proxy(server.url) as proxy:
        manager, other = manager_of(proxy.url), manager_of(server.url)
        first = new_hold(lease=LEASE)
        assert isinstance(manager.acquire(first, Patience()), Held)
        fail_release(server, proxy, point, manager, first)
        began = time.monotonic()
        rival = new_hold(lease=LEASE)
        assert isinstance(other.acquire(rival, Patience(until=began + 10.0)), Held)
        assert time.monotonic() - began < LEASE + 0.5
        other.release(rival)
        proxy.mend()
        assert eventually(lambda: manager.is_idle, within=10.0)


def fail_release(
    server: LockServer, proxy: Proxy, point: str, manager: Manager, hold: Hold
) -> None:
    if point == "stopped":
        # Every answer is late: the release gives up and the server goes on.
        server.pause()
        try:
            manager.release(hold)
        finally:
            server.resume()
    else:
        proxy.cut("leave", point, times=1000)
        manager.release(hold)


# --- interrupted anywhere


class Interruption(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs pthread_kill")
# An interrupted connect of redis-py leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_an_acquire_interrupted_anywhere_leaves_nothing_renewed(server: LockServer) -> None:
    manager = manager_of(server.url)
    main = threading.get_ident()
    # Plain flags: a handler must not wait for a mutex that its own thread may hold.
    armed, done = [False], [False]

    def interrupt(_number: int, _frame: Any) -> None:
        if armed[0]:
            armed[0] = False
            raise Interruption

    def shoot() -> None:
        rnd = random.Random(1)
        while not done[0]:
            if not armed[0]:
                time.sleep(0.0001)
                continue
            at = time.perf_counter() + rnd.random() * 0.001
            while time.perf_counter() < at:
                pass
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    shooter = threading.Thread(target=shoot)
    shooter.start()
    interrupted = 0
    try:
        for turn in range(1000):
            hold = new_hold(f"r{turn % 3}", lease=30.0)
            try:
                try:
                    armed[0] = True
                    manager.acquire(hold, Patience(until=time.monotonic() + 0.01))
                finally:
                    armed[0] = False
            except Interruption:
                interrupted += 1
            manager.release(hold)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        done[0] = True
        shooter.join()
        signal.signal(signal.SIGUSR1, before)
    assert interrupted > 100
    assert manager.watchdog.renewing == []
    assert eventually(lambda: manager.is_idle, within=30.0)
    client = server.client()
    held = [
        field
        for key in client.keys("test:1:*:h")
        for field in client.hkeys(key)
        if field.startswith("h:")
    ]
    assert held == []


# --- forks


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_clean_and_frees_nothing_of_its_parents(server: LockServer) -> None:
    manager = manager_of(server.url)
    hold = new_hold(lease=LEASE)
    assert isinstance(manager.acquire(hold, Patience()), Held)
    child = os.fork()
    if child == 0:
        os._exit(_in_child(manager, hold))
    _pid, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == 0, f"the child's check {os.WEXITSTATUS(status)} failed"
    # The child has renewed nothing, and the parent's watchdog goes on.
    time.sleep(1.5 * LEASE)
    assert hold.state is State.HELD
    assert isinstance(manager_of(server.url).acquire(new_hold()), Held) is False
    manager.release(hold)
    assert manager.is_idle


def _in_child(manager: Manager, hold: Hold) -> int:
    try:
        if hold.state is not State.FOREIGN or not manager.is_idle:
            return 1
        manager.release(hold)
        manager.abandon(hold)
        if not manager.is_idle:
            return 2
        mine = new_hold("mine", lease=0.3)
        if not isinstance(manager.acquire(mine, Patience()), Held):
            return 3
        time.sleep(1.0)  # three leases of its own, renewed by a watchdog of its own
        if mine.state is not State.HELD or mine.trusted_until < time.monotonic():
            return 4
        manager.release(mine)
        if isinstance(manager.acquire(new_hold()), Held):
            return 5
        return 0
    except BaseException:  # noqa: BLE001 - a fork of the test run must end here
        traceback.print_exc()
        return 9
