"""The slots of a worker's pool, reserved one at a time, in one line with all that the worker runs.

A slot is reserved before a lock is asked for, so that a granted task never stands in the buffer of
a busy worker. Who asks for one stands in line with the tasks that need no lock: nobody starves.

What tells of a slot that is free (a semaphore, a future, a greenlet's end) only wakes; whether one
is free is counted each time. Celery's own account is too high after a child's ``SystemExit``, a
``pool_grow`` or a lost connection. The waiting look again now and then by themselves.

Everything here runs in the consumer's loop.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from celery_redlock.integration.parking.loop import Loop

#: Puts a request into the pool: the consumer's ``on_task_request`` as Celery made it.
Submit = Callable[[Any], Any]

#: Seconds after which the waiting look for themselves, though nothing has told of a free slot.
LOOK = 0.5


class Turn:
    """A place in the line for a slot."""

    __slots__ = ("_slots", "callback")

    def __init__(self, slots: Slots, callback: Callable[[], None]) -> None:
        self._slots = slots
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        """Never call it; harmless when it was called. In the loop, as all of this."""
        if self.callback is not None:
            self.callback = None
            self._slots.leave(self)


class Slots:
    """What all pools have in common; ``pools.slots_of`` chooses."""

    def __init__(self, consumer: Any, loop: Loop, submit: Submit) -> None:
        self._consumer = consumer
        self._loop = loop
        self._submit = submit
        #: Slots that are free and promised.
        self._reserved = 0
        self._looks_again = False

    def take(self, callback: Callable[[], None], first: bool = False) -> Turn:
        """Have ``callback`` called with a slot reserved for it, never before this returns.

        ``first`` stands before all who wait.
        """
        raise NotImplementedError

    def borrow(self) -> bool:
        """Reserve a slot that is about to be free, and take it as soon as it is; whether that can
        be. One at a time.
        """
        return False

    def pass_through(self, request: Any) -> None:
        """A request that needs no lock: at once, or behind those who came before it."""
        raise NotImplementedError

    def give_back(self) -> None:
        """The slot that was reserved is not used after all."""
        raise NotImplementedError

    def run(self, request: Any) -> None:
        """Run the request in the slot that was reserved, which goes with it."""
        raise NotImplementedError

    def job_of(self, request: Any) -> Any:
        """What the pool calls a request that was run; None where that is of no use."""
        return None

    def take_back(self, job: Any, is_wanted: Callable[[], bool]) -> bool:
        """Have the pool forget a job that no process has begun to be given, if that is wanted: its
        slot is as if it had never been used. Whether it was; ``is_wanted`` is asked if it can be.
        """
        return False

    def is_discarded(self, job: Any) -> bool:
        """Whether no process was given this job, nor will be, now that the connection is lost."""
        return False

    def clear(self) -> None:
        """The connection is lost: who stands in line is forgotten, as Celery forgets its own.

        Slots that are reserved stay so until they are given back or used.
        """
        raise NotImplementedError

    def close(self) -> None:
        """The worker ends: nobody is served any more, where the loop still turns."""

    def leave(self, turn: Turn) -> None:
        """For ``Turn.cancel``."""
        raise NotImplementedError

    def _look(self) -> None:
        """Serve who can be served."""
        raise NotImplementedError

    def _serve(self, turn: Turn) -> None:
        self._reserved += 1
        self._loop.call(self._hand, turn)

    def _hand(self, turn: Turn) -> None:
        callback, turn.callback = turn.callback, None
        if callback is None:
            self.give_back()
        else:
            callback()

    def _look_later(self) -> None:
        if not self._looks_again:
            self._looks_again = True
            self._loop.later(LOOK, self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self._look()
