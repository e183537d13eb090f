"""The interruption of a body whose lock was lost.

The watchdog tells of each hold that is lost, or unsure; the body that holds it, as its task says in
``lock_on_lost``, is interrupted by a LockLost, once: what it does about it is its own affair and
not interrupted again. A body that has just ended, the next task of its thread and an idle process
are never hit: ending and interrupting take the same mutex, and what was set off before the end is
withdrawn by it.

What runs in the body when it is interrupted may be a nested task's gate, which asks or releases.
Both may be interrupted anywhere, once.
"""

from __future__ import annotations

import itertools
from typing import Callable, Collection, Dict, Optional, TypeVar

from celery_redlock.core.lifecycle import State
from celery_redlock.exceptions import LockLost, LockUnsure
from celery_redlock.integration.raising import Target, plain
from celery_redlock.locking import native, process
from celery_redlock.locking.hold import Hold

Result = TypeVar("Result")

_numbers = itertools.count()


class Body(Target):
    """One body that may be interrupted, and what it holds itself."""

    __slots__ = ("holds", "is_over", "on_lost")

    def __init__(self, holds: Collection[Hold], on_lost: str, in_worker: bool) -> None:
        super().__init__(next(_numbers), in_worker)
        self.holds = tuple(holds)
        self.on_lost = on_lost
        self.is_over = False

    def interruption(self, hold: Hold) -> Optional[LockLost]:
        """What the state of this hold means for the body, None where it may go on."""
        state = hold.state
        if state is State.LOST:
            return LockLost(hold.resource, hold.fence)
        if state is State.UNSURE and self.on_lost == "cancel_unsure":
            return LockUnsure(hold.resource, hold.fence)
        return None


class Interrupter:
    """The bodies of this process that may be interrupted, by what they hold."""

    def __init__(self) -> None:
        process.join(self)
        self.after_fork()

    def after_fork(self) -> None:
        self._bodies: Dict[str, Body] = {}
        self._mutex = native.mutex()

    def begin(self, body: Body) -> None:
        """From now on it may be interrupted; raises LockLost if it must not even begin."""
        for hold in body.holds:
            self._bodies[hold.token] = body
        for hold in body.holds:
            # Told before it could be found here.
            error = body.interruption(hold)
            if error is not None:
                raise error

    def end(self, body: Body) -> None:
        """It is not interrupted any more; idempotent, to be called where it ran."""
        if body.is_over:
            return
        with self._mutex:
            body.withdraw()
        for hold in body.holds:
            self._bodies.pop(hold.token, None)
        body.is_over = True

    def interrupt(self, hold: Hold) -> None:
        """Interrupt the body that holds this, if its task says so; from any thread."""
        body = self._bodies.get(hold.token)
        if body is None:
            return
        with self._mutex:
            if not body.is_running or body.error is not None:
                return
            body.error = body.interruption(hold)
            if body.error is not None:
                body.raise_error()


interrupter = Interrupter()


def interruptible(
    holds: Collection[Hold], on_lost: str, in_worker: bool, run: Callable[[], Result]
) -> Result:
    """Run a body; a loss of what it holds raises LockLost in it."""
    body = Body(holds, on_lost, in_worker)
    try:
        interrupter.begin(body)
        return run()
    except LockLost as error:
        if plain(error) is error:
            raise
        raise plain(error).with_traceback(error.__traceback__) from None
    finally:
        try:
            interrupter.end(body)
        except LockLost:
            pass  # it came at the last moment: the body had ended
        finally:
            # Whatever came instead of the first one, this one comes to its end.
            interrupter.end(body)
