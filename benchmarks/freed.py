"""F: how long a resource stays locked after what held it has died.

"worker" is a whole worker that is killed: from its death, or the next ask after it, until another
process of the host has what it held. "host" is one whose processes cannot be looked up: from the
end of its lease until who waits has it.

A death is taken from a pidfd, which the kernel makes readable at that moment; the release is seen
by asking the lock server again and again. The processes are those of real prefork workers.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional

from benchmarks.freed_app import BEGUN, BROKER, LOCKS, make_app
from benchmarks.measure import Middle
from benchmarks.report import Goal, table
from celery_redlock import Lock
from celery_redlock.core.ports import Acquire, Granted, Terms
from celery_redlock.integration.runtime import runtime_of
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess

PROCESSES = 4
WITHIN = 60.0

#: Seconds of the lease of a host that is lost.
LEASE = 1.0


class Size(NamedTuple):
    kills: int
    ends: int
    workers: int
    hosts: int


FULL = Size(kills=50, ends=20, workers=5, hosts=10)
QUICK = Size(kills=5, ends=2, workers=1, hosts=2)


class Way(NamedTuple):
    """A way to die: the milliseconds that each release took, and how many it may take."""

    name: str
    took: List[float]
    worst: float
    median: Optional[float] = None

    def goals(self) -> List[Goal]:
        goals = [Goal(f"{self.name}: worst", Middle.of([max(self.took)]), self.worst)]
        if self.median is not None:
            goals.append(Goal(f"{self.name}: median", Middle.of(self.took), self.median))
        return goals


def run(quick: bool) -> None:
    """Measure and print."""
    if not hasattr(os, "pidfd_open"):
        print("F: needs pidfds, which Linux and Python 3.9 or later have\n")
        return
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        site = _Site(stack)
        ways = [
            *site.deaths_of_children(size),
            Way("worker, asked", site.worker_deaths(size.workers), 1000),
            Way("worker, in line", site.waits(size.workers), 1000),
            Way("host lost", site.lost_hosts(size.hosts), 100),
        ]
        print(_report(ways))


class _Site:
    """The servers, the workers, and the ways in which what holds a lock dies."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-")))
        broker = stack.enter_context(LockServer.start())
        locks = stack.enter_context(LockServer.start())
        self._locks = stack.enter_context(locks.client())
        self._place = {BROKER: broker.url, LOCKS: locks.url}
        self._app = stack.enter_context(make_app(self._place))
        self._store = runtime_of(self._app).manager.store

    def deaths_of_children(self, size: Size) -> List[Way]:
        worker = self._worker(PROCESSES)
        control = self._app.control

        def kill(pid: int, _task: Any) -> None:
            os.kill(pid, signal.SIGKILL)

        def revoke(number: str) -> Callable[[int, Any], None]:
            return lambda _pid, task: control.revoke(task.id, terminate=True, signal=number)

        def leave(_pid: int, _task: Any) -> None: ...

        def deaths(count: int, end: Callable[[int, Any], None], **options: Any) -> List[float]:
            return [self._freed_after(end, **options) for _ in range(count)]

        ways = [
            Way("child SIGKILLed", deaths(size.kills, kill), 100, 30),
            Way("hard time limit", deaths(size.ends, leave, time_limit=1), 100),
            Way("revoke, SIGTERM", deaths(size.ends, revoke("SIGTERM")), 100),
            Way("revoke, SIGKILL", deaths(size.ends, revoke("SIGKILL")), 100),
        ]
        worker.kill()
        return ways

    def worker_deaths(self, count: int) -> List[float]:
        """From the death of a whole worker until the next on the host has what it held."""
        took = []
        for _ in range(count):
            resource, worker = self._held_by_a_worker()
            died_at = _kill_all(worker)
            asked_at = time.monotonic()
            with Lock(resource, app=self._app):
                took.append(_ms(min(asked_at, died_at)))
        return took

    def waits(self, count: int) -> List[float]:
        """The same for who stood in line already."""
        took = []
        for _ in range(count):
            resource, worker = self._held_by_a_worker()
            granted = self._waiter(resource)
            died_at = _kill_all(worker)
            took.append((granted() - died_at) * 1000)
        return took

    def lost_hosts(self, count: int) -> List[float]:
        """From the end of the lease of a holder elsewhere until who waits has it."""
        took = []
        for number in range(count):
            resource = f"lost:{number}"
            record = runtime_of(self._app).record("hold", "of another host")
            record = record._replace(host="elsewhere", pid_namespace="pid:[1]")
            ask = Acquire(
                resource, secrets.token_hex(16), Terms(lease_ms=int(LEASE * 1000)), record.encode()
            )
            assert isinstance(self._store.acquire(ask), Granted)
            ends_at = time.monotonic() + LEASE
            took.append((self._waiter(resource)() - ends_at) * 1000)
        return took

    def _worker(self, concurrency: int) -> WorkerProcess:
        worker = WorkerProcess(
            self._directory,
            self._place,
            app="benchmarks.freed_app",
            pool="prefork",
            concurrency=concurrency,
        )
        self._stack.callback(worker.kill)
        return worker.start()

    def _held_by_a_worker(self) -> Any:
        worker = self._worker(1)
        resource, _pid, _task = self._begin()
        return resource, worker

    def _begin(self, **options: Any) -> Any:
        """A body that holds: its resource, its process and its task."""
        account = secrets.token_hex(4)
        task = self._app.tasks["hold"].apply_async((account,), **options)
        deadline = time.monotonic() + WITHIN
        while True:
            begun = self._locks.blpop([BEGUN], timeout=1)
            if begun:
                return f"account:{account}", int(begun[1]), task
            assert time.monotonic() < deadline, "no body has begun"

    def _freed_after(self, end: Callable[[int, Any], None], **options: Any) -> float:
        """Milliseconds from the death of a body's process until its resource is free."""
        resource, pid, task = self._begin(**options)
        pidfd = os.pidfd_open(pid)
        try:
            end(pid, task)
            died_at = _death(pidfd)
        finally:
            os.close(pidfd)
        while any(holder.remaining_ms > 0 for holder in self._store.inspect(resource).holders):
            assert time.monotonic() < died_at + WITHIN, f"{resource} is never freed"
            time.sleep(0.0005)
        return _ms(died_at)

    def _waiter(self, resource: str) -> Callable[[], float]:
        """Stand in line; what is given waits for the grant and says when it was."""
        granted: List[float] = []

        def wait() -> None:
            with Lock(resource, app=self._app):
                granted.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        while not self._store.inspect(resource).waiters:
            assert not granted, f"{resource} was free"
            time.sleep(0.001)

        def outcome() -> float:
            thread.join(WITHIN)
            return granted[0]

        return outcome


def _kill_all(worker: WorkerProcess) -> float:
    """Kill a worker's parent; when the last of its processes was dead."""
    pidfds = [os.pidfd_open(pid) for pid in worker.members()]
    os.kill(worker.pid, signal.SIGKILL)
    died_at = max(map(_death, pidfds))
    for pidfd in pidfds:
        os.close(pidfd)
    return died_at


def _death(pidfd: int) -> float:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(WITHIN * 1000), "it does not die"
    return time.monotonic()


def _ms(since: float) -> float:
    return (time.monotonic() - since) * 1000


def _report(ways: List[Way]) -> str:
    rows = [[way.name, len(way.took), Middle.of(way.took), max(way.took)] for way in ways]
    lines = [table("F from a death to the release", ("deaths", "median ms", "worst ms"), rows)]
    lines += [f"  {goal}" for way in ways for goal in way.goals()]
    return "\n".join(lines) + "\n"
