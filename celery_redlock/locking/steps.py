"""What an ask needs done, step by step, by whoever drives it.

An ask knows what comes next and does nothing itself: it yields a step and is sent what came of it,
or NoAnswer is thrown into it. ``in_place`` drives one ask and blocks its thread; the asker drives
any number of them from one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, NamedTuple, Sequence, Tuple, Union

from celery_redlock.core.ports import Acquire, AcquireAnswer, Leave, NoAnswer
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Outcome

if TYPE_CHECKING:
    from celery_redlock.locking.manager import Manager


class Send(NamedTuple):
    """Send the requests as one call; comes back as a Reply."""

    holds: Sequence[Hold]
    requests: Sequence[Acquire]


class Look(NamedTuple):
    """See who holds a resource; comes back as a ResourceView."""

    resource: str


class Bury(NamedTuple):
    """End a hold of a dead process."""

    request: Leave


class Pause(NamedTuple):
    """Wait: in no line, so nobody wakes it."""

    hold: Hold
    seconds: float


class Stand(NamedTuple):
    """Stand in line for ``hold``; comes back as whether it was woken, or else the time is over."""

    hold: Hold
    seconds: float


class Ready(NamedTuple):
    """Woken, and about to ask for what it may be granted: goes on when there is room for that."""

    hold: Hold


class Part(NamedTuple):
    """End these holds, the last first, whatever has become of each. Never fails."""

    holds: Sequence[Hold]


#: The answers, and when the request that they answer was sent.
Reply = Tuple[Sequence[AcquireAnswer], float]

Step = Union[Send, Look, Bury, Pause, Stand, Ready, Part]
Steps = Generator[Step, Any, Outcome]


def in_place(manager: Manager, steps: Steps) -> Outcome:
    """Take the steps in this thread, one after the other."""
    try:
        step = next(steps)
        while True:
            try:
                result = _send(manager, step) if isinstance(step, Send) else _take(manager, step)
            except NoAnswer as silence:
                step = steps.throw(silence)
            else:
                step = steps.send(result)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def _take(manager: Manager, step: Union[Look, Bury, Pause, Stand, Ready, Part]) -> Any:
    if isinstance(step, (Pause, Stand)):
        return step.hold.wake.wait(step.seconds)
    if isinstance(step, Look):
        return manager.store.inspect(step.resource)
    if isinstance(step, Bury):
        return manager.store.leave(step.request)
    if isinstance(step, Part):
        for hold in reversed(step.holds):
            manager.part(hold)
    return None


def _send(manager: Manager, step: Send) -> Reply:
    holds, requests = step
    if len(requests) == 1:
        answer, sent_at = manager.twice(holds, lambda: manager.store.acquire(requests[0]))
        return (answer,), sent_at
    return manager.twice(holds, lambda: manager.store.acquire_all(requests))
