"""The shop of the fault runs: bodies that keep a diary of what they believe of their locks.

Into the body log goes when a body ran, with its fences; into the diary beside it what
``self.lock`` told it: until when it may trust its lock, when it was told that it may not, and when
its process stood still.
"""

from __future__ import annotations

import contextvars
import json
import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping

from celery_redlock import Lock, LockedTask, LockLost
from celery_redlock.locking import proof
from celery_redlock.signals import lock_lost
from examples.demo.bodylog import BodyLog, now_ns
from tests.stress.faults.mail import Mail
from tests.worker.app import PREFIX, ShopSettings, make_app, task

SECOND = 1_000_000_000

#: Set where no process can prove that another is dead.
APART = PREFIX + "APART"

#: The longest that a body waits for a Lock that others forget.
PATIENT = 3.0

#: After it ``linger`` has lost its lock.
LONGEST_STAY = 1.0

#: For so long ``halt`` is stopped.
STOP = 1.6

#: Between two looks at the lock.
LOOK_EVERY = 0.01

#: A body that was not looked after for so long did not run, and nor may its watchdog have run.
STOOD_STILL = 0.25


def resources_of(numbers: Iterable[int]) -> List[str]:
    return [f"r:{number}" for number in numbers]


def diary_of(body_log: Path) -> Path:
    return body_log.with_suffix(".diary")


class Diary:
    """What one body is told by its lock; written at once, since it may be killed at any time."""

    def __init__(self, path: Path, lock: Any) -> None:
        self._path = path
        self._lock = lock
        self._fences: Dict[str, Any] = dict(lock.fences)
        self._looked_at = now_ns()
        self._until = 0
        self._was_sure = True

    def look(self) -> bool:
        """Whether the lock says that it is held.

        It is not asked by ``check``: who expects LockLost may swallow an interruption.
        """
        # Before it is asked: this process may be stopped between the two.
        now = now_ns()
        if now - self._looked_at > STOOD_STILL * SECOND:
            self._write(stood_still=[self._looked_at, now])
        self._looked_at = now
        left = self._lock.expires_in
        if left <= 0:
            self._note_doubt()
            return False
        self._was_sure = True
        until = now + int(left * SECOND)
        if until > self._until + SECOND // 1000:
            self._until = until
            self._write(trusted_until=until)
        return True

    def note_interruption(self) -> None:
        self._note_doubt()
        self._write(interrupted_at=now_ns())

    def _note_doubt(self) -> None:
        if self._was_sure:
            self._write(unsure_at=now_ns())
        self._was_sure = False

    def _write(self, **fields: Any) -> None:
        write(self._path, self._fences, **fields)


def write(path: Path, fences: Mapping[str, Any], **fields: Any) -> None:
    """Add one line to a diary."""
    line = json.dumps({"pid": os.getpid(), "fences": fences, **fields})
    descriptor = os.open(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def note_losses(path: Path) -> None:
    """Write down what this process and those forked from it tell of locks that are lost."""

    def note(resource: str, fence: int, **_others: Any) -> None:
        write(path, {resource: fence}, lost_at=now_ns())

    lock_lost.connect(note, weak=False)


def work_on(
    self: Any, numbers: List[int], seconds: float, first: Callable[[], Any] = lambda: None
) -> str:
    """Run for so long, sure of the lock or not: a body that knows may go on."""
    log = self.app.body_log
    diary = Diary(diary_of(log.path), self.lock)
    sure = True
    try:
        with ExitStack() as logged:
            for resource, fence in self.lock.fences.items():
                logged.enter_context(log.body(resource, fence, self.request.id))
            first()
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                sure = diary.look() and sure
                time.sleep(LOOK_EVERY)
            sure = diary.look() and sure
    except LockLost:
        diary.note_interruption()
        return "interrupted"
    return "sure" if sure else "unsure"


@task(base=LockedTask, bind=True, lock_key=lambda numbers, seconds: resources_of(numbers))
def strike(self: Any, numbers: List[int], seconds: float) -> str:
    return work_on(self, numbers, seconds)


@task(
    base=LockedTask,
    bind=True,
    lock_key=lambda numbers, seconds: resources_of(numbers),
    lock_on_conflict="skip",
)
def strike_or_skip(self: Any, numbers: List[int], seconds: float) -> str:
    return work_on(self, numbers, seconds)


@task(base=LockedTask, bind=True, lock_key=lambda numbers, seconds: resources_of(numbers))
def stray(self: Any, numbers: List[int], seconds: float) -> str:
    """Work with a Lock that is forgotten, beside a thread that tries to have the task's lock."""
    with take(self, Lock(f"forgotten:{numbers[0]}", app=self.app)):
        run_beside(lambda: try_all(self, resources_of(numbers)))
        return work_on(self, numbers, seconds)


@task(base=LockedTask, bind=True, lock_key=lambda numbers, seconds: resources_of(numbers))
def halt(self: Any, numbers: List[int], seconds: float) -> str:
    """Work that is stopped as it begins, for longer than a release's grant lasts by itself."""
    return work_on(self, numbers, seconds, stop_for_a_moment)


def stop_for_a_moment() -> None:
    pid = os.getpid()
    os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", f"sleep {STOP}; kill -CONT {pid}")
    os.kill(pid, signal.SIGSTOP)


@task(base=LockedTask, bind=True, lock_key=lambda numbers, seconds: resources_of(numbers))
def repeat(self: Any, numbers: List[int], seconds: float) -> str:
    """Work with a Lock of this process's own that is taken twice."""
    lock = Lock(f"repeated:{os.getpid()}", app=self.app)
    with take(self, lock):
        pass
    lock.release()
    with take(self, lock):
        lock.release()
    return work_on(self, numbers, seconds)


@task(
    base=LockedTask,
    bind=True,
    lock_key=lambda numbers, seconds: resources_of(numbers),
    lock_max_hold=LONGEST_STAY,
)
def linger(self: Any, numbers: List[int], seconds: float) -> str:
    """Forget a Lock: where its release takes long, the task's own is lost after the body."""
    Lock(f"forgotten:{os.getpid()}", app=self.app).acquire()
    return work_on(self, numbers, seconds)


def take(self: Any, lock: Lock) -> ContextManager[None]:
    """Acquire it, and log a body for as long as it is meant to be held."""
    asked = now_ns()
    if not lock.acquire(blocking_timeout=PATIENT):
        raise TimeoutError(f"{lock.name} was not to be had")
    return held(self.app.body_log, lock, asked)


def held(log: BodyLog, lock: Lock, asked: int) -> ContextManager[None]:
    write(diary_of(log.path), {lock.name: lock.fence}, asked_at=asked)
    return log.body(lock.name, lock.fence)


def run_beside(call: Callable[[], None]) -> None:
    """In a thread that has the body's context, and until it is done."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
    thread.start()
    thread.join()


def try_all(self: Any, names: List[str]) -> None:
    """Whoever is let in to what a body holds logs a body of his own."""
    for name in names:
        lock, asked = Lock(name, app=self.app), now_ns()
        if lock.acquire(blocking=False):
            with held(self.app.body_log, lock, asked):
                time.sleep(LOOK_EVERY)
            lock.release()


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
    Mail(app.body_log.path).note_all()
    note_losses(diary_of(app.body_log.path))
    if APART in os.environ:
        proof.is_of_this_host = lambda record: False
