"""One ask that the asker drives: where it stands, and who is told.

All but the requests of its owner (``take``, ``go_on``, ``stand_back``, ``cancel``) runs in the
asker's thread, so that nothing here happens at the same time as anything else. Those are posted to
it; which of them came before the end is settled under a mutex, held for a few assignments.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Any, Callable, Optional, Protocol, Sequence, Tuple, Type, Union

from celery_redlock.core.ports import Leave, LeaveAnswer, NoAnswer, ResourceView
from celery_redlock.locking import native, process
from celery_redlock.locking.ask import Ask
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Cancelled, Held, Outcome, StoodBack
from celery_redlock.locking.steps import Bury, Look, Pause, Ready, Send, Stand, Step

Ended = Union[Outcome, StoodBack, Cancelled, Exception]

#: Seconds, or half of them, in which the owner of a woken one says whether there is a slot. Who has
#: not by then stands still himself, and would keep the lock from all others for as long.
_ANSWERS_WITHIN = 1.5


class Listener(Protocol):
    """Told in the asker's thread, which waits meanwhile: must be quick, and raise nothing."""

    def queued(self, pending: Pending) -> None:
        """In line, also once more after ``go_on``: it needs no slot until it is woken."""

    def woken(self, pending: Pending) -> None:
        """Granted by a release, or it has to ask again. Soon ``take``, and if that gives nothing
        ``go_on``; or else ``stand_back``. Without any of them it stands back by itself, and with it
        all who wait for the same owner."""

    def done(self, pending: Pending, ended: Ended) -> None:
        """Told once, and the last that is told. An exception is NoAnswer or LockLost."""


class Desk(Protocol):
    """What a pending ask has done for it, in the asker's thread."""

    manager: Manager

    def post(self, call: Callable[[], None]) -> None:
        """Have it called in the asker's thread; from any thread."""

    def post_idly(self, call: Callable[[], None]) -> None:
        """As ``post``, and not before there is something else to do."""

    def send(self, pending: Pending, send: Send) -> None: ...

    def leave(
        self, hold: Optional[Hold], request: Leave, then: Callable[[LeaveAnswer], None]
    ) -> None: ...

    def see(self, resource: str) -> ResourceView:
        """Who holds it; raises NoAnswer."""

    def look_in(self, pending: Pending, step: Step, seconds: float) -> None:
        """Call ``look(step)`` of it after so many seconds."""

    def stands_still(self) -> None:
        """The owner of one that was woken stands still: have all who need a slot stand back."""

    def closed(self, pending: Pending) -> None:
        """It has ended."""

    def failed(self, error: Exception) -> None:
        """Somebody who was told has raised."""


class Phase(Enum):
    ASKING = "asking"
    PAUSING = "pausing"
    IN_LINE = "in line"
    WOKEN = "woken"
    GRANTED = "granted"  # and not taken
    PARTING = "parting"
    DONE = "done"


class Bell(native.Signal):
    """Rings for a pending ask where a thread that waits by itself would be woken."""

    __slots__ = ("set",)

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self.set = ring  # type: ignore[method-assign]


class Pending:
    """An ask on its way. Its owner's methods may be called by any thread, at any time."""

    def __init__(
        self, desk: Desk, holds: Sequence[Hold], listener: Listener, ask: Callable[[], Ask]
    ) -> None:
        self.holds: Tuple[Hold, ...] = tuple(holds)
        self._desk = desk
        self._listener = listener
        self._phase = Phase.ASKING
        self._steps = ask().steps()
        self._step: Optional[Step] = None
        self._rung = False
        #: It was told to stand in line, and not to go on since.
        self._needs_slot = False
        self._withdrawn: Optional[Type[Union[StoodBack, Cancelled]]] = None
        self._settled = False
        self._granted: Optional[Held] = None
        self._mutex = native.mutex()
        self._life = process.life()
        for hold in self.holds:
            hold.wake = Bell(partial(self._post, self.ring))

    # --- its owner's

    def take(self) -> Optional[Held]:
        """There is a slot: what it was granted, if nothing need be asked. Then it has ended so, and
        ``done`` is not told.
        """
        with self._mutex:
            if self._granted is None or self._settled or self._withdrawn is not None:
                return None
            self._settled = True
        if self._life == process.life():
            # In its own time: what is to be done now is to begin the body.
            self._desk.post_idly(self._taken)
        return self._granted

    def go_on(self) -> None:
        """There is a slot: ask. Nothing unless it was woken."""
        self._post(self.asks_again)

    def stand_back(self) -> bool:
        """There is no slot: leave the line and remember the place. Whether it has not ended yet."""
        return self._withdraws(StoodBack)

    def cancel(self) -> bool:
        """Leave for good. Whether it has not ended yet: then it ends as Cancelled, with none held.

        What it was granted meanwhile is released. One that has ended as Held is its owner's.
        """
        return self._withdraws(Cancelled)

    def withdraws(self, how: Type[Union[StoodBack, Cancelled]]) -> bool:
        """Settle that it is to end so, unless it has ended; ``withdraw`` does it."""
        with self._mutex:
            if not self._settled and self._withdrawn is not Cancelled:
                self._withdrawn = how
            return not self._settled

    def _withdraws(self, how: Type[Union[StoodBack, Cancelled]]) -> bool:
        lives = self.withdraws(how)
        if lives:
            self._post(self.withdraw)
        return lives

    def _post(self, call: Callable[[], None]) -> None:
        # A forked child neither asks for its parent nor leaves.
        if self._life == process.life():
            self._desk.post(call)

    # --- the asker's

    @property
    def is_asking(self) -> bool:
        return self._phase is Phase.ASKING

    @property
    def is_cancelled(self) -> bool:
        return self._withdrawn is Cancelled

    @property
    def is_in_line(self) -> bool:
        return self._phase is Phase.IN_LINE

    def begin(self) -> None:
        if self._phase is Phase.ASKING:
            self._advance(partial(next, self._steps))

    def sending(self) -> None:
        """What rang before is answered by the request that is now sent."""
        self._rung = False

    def answered(self, reply: Any) -> None:
        self._advance(partial(self._steps.send, reply))

    def unanswered(self, error: Exception) -> None:
        self._advance(partial(self._steps.throw, error))

    def ring(self) -> None:
        if self._phase is Phase.ASKING:
            self._rung = True
        elif self._phase is Phase.IN_LINE:
            self._phase = Phase.ASKING
            self.answered(True)

    def asks_again(self) -> None:
        if self._phase in (Phase.WOKEN, Phase.GRANTED):
            self._needs_slot = False
            if self._granted is not None:
                self._end(self._granted)
            else:
                self._phase = Phase.ASKING
                self.answered(None)

    def look(self, step: Step) -> None:
        if step is not self._step:
            return
        if self._phase in (Phase.IN_LINE, Phase.PAUSING):
            self.answered(False)
        elif self._phase in (Phase.WOKEN, Phase.GRANTED):
            self._desk.stands_still()

    def stand_back_by_itself(self) -> None:
        """Its owner stands still. Nothing unless it needs a slot."""
        waits = self._phase in (Phase.IN_LINE, Phase.WOKEN, Phase.GRANTED)
        if waits and self.withdraws(StoodBack):
            self.withdraw()

    def withdraw(self) -> None:
        if self._phase not in (Phase.PARTING, Phase.DONE):
            self._steps.close()
            self._part(self.holds, self._left)

    # --- steps

    def _advance(self, resume: Callable[[], Step]) -> None:
        try:
            step = resume()
        except StopIteration as end:
            self._end(end.value)
        except Exception as error:  # noqa: BLE001 - told to its owner
            for hold in self.holds:
                self._desk.manager.abandon(hold)
            self._end(error)
        else:
            self._step = step
            self._take(step)

    def _take(self, step: Step) -> None:
        if isinstance(step, Send):
            self._phase = Phase.ASKING
            self._desk.send(self, step)
        elif isinstance(step, Bury):
            self._phase = Phase.ASKING
            self._desk.leave(None, step.request, partial(self._buried, step))
        elif isinstance(step, Look):
            self._see(step)
        elif isinstance(step, Pause):
            self._phase = Phase.PAUSING
            self._desk.look_in(self, step, step.seconds)
        elif isinstance(step, Stand):
            self._stand(step)
        elif isinstance(step, Ready):
            self._wake(Phase.WOKEN, step)
        else:
            self._part(step.holds, partial(self.answered, None))

    def _wake(self, phase: Phase, step: Ready) -> None:
        self._phase, self._step = phase, step
        self._desk.look_in(self, step, _ANSWERS_WITHIN)
        self._tell(self._listener.woken)

    def _see(self, step: Look) -> None:
        try:
            view = self._desk.see(step.resource)
        except NoAnswer as silence:
            self.unanswered(silence)
        else:
            self.answered(view)

    def _stand(self, step: Stand) -> None:
        self._phase = Phase.IN_LINE
        self._desk.look_in(self, step, step.seconds)
        if not self._needs_slot:
            self._needs_slot = True
            self._tell(self._listener.queued)
        if self._rung:
            self._rung = False
            self.ring()

    def _buried(self, step: Step, answer: LeaveAnswer) -> None:
        if step is not self._step or self._phase is not Phase.ASKING:
            return
        if isinstance(answer, Exception):
            self.unanswered(answer)
        else:
            self.answered(answer)

    # --- the end

    def _part(self, holds: Sequence[Hold], then: Callable[[], None]) -> None:
        self._phase = Phase.PARTING
        manager = self._desk.manager
        requests = [(hold, manager.parting(hold)) for hold in reversed(holds)]
        awaited = [(hold, request) for hold, request in requests if request is not None]
        outstanding = len(awaited)

        def parted(hold: Hold, request: Leave, answer: LeaveAnswer) -> None:
            nonlocal outstanding
            manager.parted(hold, request, answer)
            outstanding -= 1
            if not outstanding:
                then()

        for hold, request in awaited:
            self._desk.leave(hold, request, partial(parted, hold, request))
        if not awaited:
            then()

    def _left(self) -> None:
        self._end(StoodBack(tuple(hold.seq for hold in self.holds)))

    def _end(self, ended: Ended) -> None:
        if isinstance(ended, Held) and self._needs_slot:
            self._granted = ended
            self._wake(Phase.GRANTED, Ready(self.holds[-1]))
            return
        with self._mutex:
            self._settled = self._withdrawn is None or not isinstance(ended, Held)
            withdrawn = self._withdrawn
        if not self._settled:
            self._part(self.holds, self._left)
            return
        if withdrawn is Cancelled:
            ended = Cancelled()
        elif withdrawn is StoodBack and isinstance(ended, Exception):
            # What it was told otherwise is the end of its wait, and has been reported.
            ended = StoodBack(tuple(hold.seq for hold in self.holds))
        self._phase = Phase.DONE
        self._desk.closed(self)
        self._tell(partial(self._tell_end, ended))

    def _taken(self) -> None:
        self._phase = Phase.DONE
        self._desk.closed(self)

    def _tell_end(self, ended: Ended, pending: Pending) -> None:
        self._listener.done(pending, ended)

    def _tell(self, what: Callable[[Pending], None]) -> None:
        try:
            what(self)
        except Exception as error:  # noqa: BLE001 - the others are to be told as well
            self._desk.failed(error)
