"""The steps of asking, and who carries them out: the thread that asks, or the parking place.

What is asked for, in which order and what an answer means is one generator of steps
(``asking.Asking``); it waits for nothing itself.
"""

from __future__ import annotations

import time
from typing import Generator, NamedTuple, Optional, Tuple, TypeVar, Union

from celery_redlock.core.ports import NoAnswer
from celery_redlock.exceptions import LockLost
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Outcome, Patience


class Ask(NamedTuple):
    """Ask for these holds; is answered by the outcome. NoAnswer and LockLost are thrown in."""

    holds: Tuple[Hold, ...]
    patience: Optional[Patience]


class Pause(NamedTuple):
    """Go on after so many seconds; is answered by None."""

    seconds: float


Step = Union[Ask, Pause]

Result = TypeVar("Result")

Steps = Generator[Step, Optional[Outcome], Result]


def walk(steps: Steps[Result], manager: Manager) -> Result:
    """Carry the steps out in this thread, which waits."""
    answer: Optional[Outcome] = None
    error: Optional[Exception] = None
    while True:
        try:
            step = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            result: Result = end.value
            return result
        answer = error = None
        try:
            if isinstance(step, Ask):
                answer = manager.acquire_all(step.holds, step.patience)
            else:
                time.sleep(step.seconds)
        except (NoAnswer, LockLost) as raised:
            error = raised
