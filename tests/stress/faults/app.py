"""The shop of the fault runs: bodies that keep a diary of what they believe of their locks.

Into the body log goes when a body ran, with its fences; into the diary beside it what
``self.lock`` told it: until when it may trust its lock, when it was told that it may not, and when
its process stood still.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

from celery_redlock import LockedTask, LockLost
from celery_redlock.signals import lock_lost
from examples.demo.bodylog import now_ns
from tests.stress.faults.mail import Mail
from tests.worker.app import PREFIX, ShopSettings, make_app, task

SECOND = 1_000_000_000

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


def work_on(self: Any, numbers: List[int], seconds: float) -> str:
    """Run for so long, sure of the lock or not: a body that knows may go on."""
    log = self.app.body_log
    diary = Diary(diary_of(log.path), self.lock)
    sure = True
    try:
        with ExitStack() as logged:
            for resource, fence in self.lock.fences.items():
                logged.enter_context(log.body(resource, fence, self.request.id))
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


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
    Mail(app.body_log.path).note_all()
    note_losses(diary_of(app.body_log.path))
