"""An ask, its wait and its release, interrupted at every line; run by test_interrupted.

``python -m tests.core.interrupted_everywhere SystemExit``, or ``TimeLimit``.
"""

from __future__ import annotations

import sys
from linecache import getline
from types import FrameType
from typing import Any, Optional, Type

from celery_redlock import locking
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Patience
from tests.core.stage import Sleeper, Stage

PACKAGE = locking.__path__[0]

#: Changes under a mutex, which a trace function can interrupt at the end of a ``with`` where, from
#: Python 3.10 on, nothing else can.
UNDER_A_MUTEX = f"{PACKAGE}/hold.py"


class TimeLimit(Exception):
    """Ends a body; its process goes on."""


class Interruption:
    """Raises ``error`` at the line that is number ``count`` of those that run."""

    def __init__(self, count: int, error: Type[BaseException]) -> None:
        self._left = count
        self._error = error
        self.at: Optional[str] = None

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if self.at or not file.startswith(PACKAGE) or file == UNDER_A_MUTEX:
            return None
        # A line with nothing but ``try:`` does nothing that an interruption could end.
        if event == "line" and getline(file, frame.f_lineno).strip() != "try:":
            self._left -= 1
            if not self._left:
                self.at = f"{file}:{frame.f_lineno}"
                raise self._error
        return self


def body(stage: Stage, interruption: Interruption) -> Hold:
    """Wait for the lock, have it and release it, as a gate does."""
    rivals = stage.held_by_rival()
    hold = stage.hold()
    hold.wake = Sleeper(lambda: stage.rivals.release(rivals))  # type: ignore[assignment]
    before = sys.gettrace()
    sys.settrace(interruption)
    try:
        stage.ours.acquire(hold, Patience())
    except (TimeLimit, SystemExit):
        assert interruption.at
    finally:
        try:
            stage.ours.release(hold)
        except (TimeLimit, SystemExit):
            assert interruption.at
        sys.settrace(before)
    return hold


def is_gone(stage: Stage, hold: Hold) -> bool:
    view = stage.server.inspect(hold.resource)
    return hold.token not in [each.token for each in (*view.holders, *view.waiters)]


def assert_nothing_is_left(error: Type[BaseException]) -> None:
    native.start_thread = lambda run: None  # type: ignore[assignment]
    count = 0
    while True:
        count += 1
        stage, interruption = Stage(), Interruption(count, error)
        hold = body(stage, interruption)
        if not interruption.at:
            break
        if error is SystemExit:
            # Its process ends now: there is nobody who could release it later.
            assert is_gone(stage, hold), interruption.at
        for _ in range(2):
            stage.clock.now += 0.1
            stage.ours.watchdog.round()
        assert is_gone(stage, hold), interruption.at
        assert stage.ours.is_idle, interruption.at
    assert count > 100, "hardly anything was interrupted: the test proves nothing"


if __name__ == "__main__":
    assert_nothing_is_left({"SystemExit": SystemExit, "TimeLimit": TimeLimit}[sys.argv[1]])
