"""One task's way through the parking place: a slot, its lock or a place in line, and its body.

As soon as a slot of the pool is free for it, its lock is asked for. Granted, it takes the slot, and
the process that runs it takes over what was granted. Who must wait gives the slot back and stands
in the server's line; woken by the release, it is given a slot before all others, or, if there is
none within a moment, passes the grant on and asks again when there is one, before all who were
behind it (``passed_over``). So a lock is held by a task that runs, or is about to. If it was a body
of this worker that has released it, the slot of that body is about to be free, and is given away
before it is.

Everything here runs in the consumer's thread (or greenlet), but what the asker's thread tells and
what is done aside: both only call the consumer's.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Sequence

from celery_redlock.core.ports import NoAnswer
from celery_redlock.exceptions import LockLost, RedlockError
from celery_redlock.integration import copies
from celery_redlock.integration.handing import Sent
from celery_redlock.integration.parking import monitoring
from celery_redlock.integration.parking.aside import Aside
from celery_redlock.integration.parking.bounds import Bounds
from celery_redlock.integration.parking.ears import Ears
from celery_redlock.integration.parking.keeping import (
    forget,
    is_revoked,
    let_go,
    wants_none,
    wants_slot,
)
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.parked import Parked
from celery_redlock.integration.parking.passed_over import PassedOver
from celery_redlock.integration.parking.residents import Residents
from celery_redlock.integration.parking.slots import Slots
from celery_redlock.integration.parking.underway import Underway
from celery_redlock.integration.steps import Ask, Pause
from celery_redlock.locking.outcomes import Cancelled, Dropped, GaveUp, Held, StoodBack, Taken
from celery_redlock.observe.logs import logger

#: What a task does with its slot.
Then = Callable[[Parked], None]

#: Seconds that a granted task may wait for a slot, before the grant is passed on.
_SLOT_WITHIN = 0.25


class Passage:
    """For all tasks of one consumer."""

    def __init__(
        self, consumer: Any, loop: Loop, slots: Slots, residents: Residents, aside: Aside
    ) -> None:
        self._consumer = consumer
        self._loop = loop
        self._slots = slots
        self._residents = residents
        self._aside = aside
        self._bounds = Bounds(consumer, loop)
        self._passed_over = PassedOver()
        self._underway = Underway(slots)

    def begin(self, parked: Parked) -> None:
        """It has just come."""
        if parked.call.is_redelivered or parked.runs_users_code:
            self._aside.call(lambda: self._name_aside(parked))
        else:
            self._name(parked)
            self._named(parked)

    def _name_aside(self, parked: Parked) -> None:
        self._name(parked)
        self._loop.call(self._named, parked)

    def _name(self, parked: Parked) -> None:
        request = parked.request
        with suppress(Exception):  # it is raised once more where the task is traced
            names = request.task.redlock_names(request.args, request.kwargs)
            # A copy of what has succeeded asks for nothing: it ends where it runs.
            if names and not (parked.call.is_redelivered and copies.has_succeeded(parked.call)):
                parked.begin(names)

    def _named(self, parked: Parked) -> None:
        if parked.is_gone:
            return
        if parked.steps is None:
            self._with_slot(parked, self._run)
        else:
            self._with_slot(parked, self._begin)

    def _begin(self, parked: Parked) -> None:
        # Until now it has waited for a slot, and not for its lock.
        parked.execution.began = time.monotonic()
        self._advance(parked)

    # --- steps

    def _advance(self, parked: Parked, answer: Any = None) -> None:
        if parked.runs_users_code:
            self._aside.call(lambda: self._loop.call(self._take_step(parked, answer)))
        else:
            self._take_step(parked, answer)()

    def _take_step(self, parked: Parked, answer: Any) -> Callable[[], None]:
        """What is to be done then, in the loop."""
        steps = parked.steps
        assert steps is not None
        try:
            if isinstance(answer, Exception):
                parked.step = steps.throw(answer)
            else:
                parked.step = steps.send(answer)
        except StopIteration as end:
            return partial(self._settled, parked, Sent(refusal=end.value))
        except RedlockError as error:
            return partial(self._settled, parked, Sent(error=error))
        except Exception:  # noqa: BLE001 - users' code: raised once more where the task is traced
            return partial(self._settled, parked, Sent())
        return partial(self._do, parked)

    def _do(self, parked: Parked) -> None:
        if parked.is_gone:
            return
        if isinstance(parked.step, Pause):
            self._return_slot(parked)
            # Nothing bounds those that wait for a lock server but this.
            if self._residents.count <= parked.runtime.settings.max_parked:
                wants_none(self._consumer, parked.kept)
            parked.awaited = self._loop.later(
                parked.step.seconds, lambda: self._with_slot(parked, self._advance)
            )
        else:
            self._with_slot(parked, self._ask)

    def _ask(self, parked: Parked) -> None:
        assert isinstance(parked.step, Ask)
        asker = parked.runtime.asker
        parked.pending = asker.ask(
            parked.step.holds,
            parked.step.patience,
            Ears(self._loop, self, parked),
            began=time.monotonic() - parked.waited,
        )

    # --- answers, as the asker's thread tells them (``ears``)

    def queued(self, parked: Parked) -> None:
        """It stands in line: it needs no slot until it is woken."""
        self._return_slot(parked)
        wants_none(self._consumer, parked.kept)
        if self._residents.enter_line(parked):
            monitoring.waiting(parked)
        self.send_back_if_too_much(parked)

    def woken(self, parked: Parked) -> None:
        """A release has granted it: for a slot, and not for long."""
        assert parked.pending is not None
        if parked.has_slot:
            parked.pending.go_on()
            return
        if self._underway.leaves_a_slot(parked) and self._slots.borrow():
            self._confirm(parked)
            return
        parked.too_late = self._loop.later(_SLOT_WITHIN, lambda: self._stand_back(parked))
        parked.awaited = self._slots.take(lambda: self._confirm(parked), first=True)

    def _confirm(self, parked: Parked) -> None:
        self._call_off(parked)
        parked.has_slot = True
        assert parked.pending is not None
        held = parked.pending.take()
        if held is not None:
            self.ended(parked, held)
        else:
            parked.pending.go_on()

    def _stand_back(self, woken: Parked) -> None:
        """No slot is free: pass the grant on, and do not be in the way until one is."""
        self._call_off(woken)
        logger.debug("no slot is free for %s: its lock is passed on", woken.request.id)
        for parked in self._residents.in_line:
            if parked.pending is not None and not parked.has_slot:
                if parked is woken or parked.too_late is not None:
                    wants_slot(self._consumer, parked.kept)
                self._call_off(parked)
                parked.pending.stand_back()

    def ended(self, parked: Parked, ended: Any) -> None:
        """An ask is over."""
        parked.pending = None
        self._residents.leave_line(parked)
        self._call_off(parked)
        if isinstance(ended, Cancelled):
            return
        if isinstance(ended, Held):
            monitoring.granted(parked)
        if isinstance(ended, StoodBack):
            self._take_up_place(parked, ended.seqs)
        elif isinstance(ended, (Held, Taken, GaveUp, Dropped, NoAnswer, LockLost)):
            self._advance(parked, ended)
        else:
            # A fault of ours: it asks where it runs.
            logger.error("could not ask for the lock of %s", parked.request.id, exc_info=ended)
            self._settled(parked, Sent())

    # --- slots

    def _with_slot(self, parked: Parked, then: Then) -> None:
        if parked.has_slot:
            self._in_slot(parked, then)
        elif not parked.is_gone:
            parked.awaited = self._slots.take(lambda: self._served(parked, then))

    def _take_up_place(self, parked: Parked, seqs: Sequence[int]) -> None:
        """Ask again when there is a slot, and nobody for the same who was behind it before it."""
        parked.ask_anew(seqs)
        self._passed_over.add(parked)
        self._with_slot(parked, self._ask)

    def _served(self, parked: Parked, then: Then) -> None:
        """It is its turn, unless one is before it in line: these two change turns."""
        first = self._passed_over.first_before(parked)
        if first is None:
            self._in_slot(parked, then)
            return
        parked.awaited = first.awaited
        parked.awaited.callback = lambda: self._served(parked, then)
        self._in_slot(first, self._ask)

    def _in_slot(self, parked: Parked, then: Then) -> None:
        self._passed_over.remove(parked)
        parked.awaited = None
        parked.has_slot = True
        if not self.is_over(parked):
            then(parked)

    def _return_slot(self, parked: Parked) -> None:
        if parked.has_slot:
            parked.has_slot = False
            self._slots.give_back()

    def _call_off(self, parked: Parked) -> None:
        self._passed_over.remove(parked)
        for each in (parked.awaited, parked.too_late):
            if each is not None:
                each.cancel()
        parked.awaited = parked.too_late = None

    # --- the end of it

    def _settled(self, parked: Parked, sent: Sent) -> None:
        """Its asking is over: it goes to a process of the pool, with what came of it."""
        if parked.is_gone:
            return
        execution = parked.execution
        parked.sent = sent._replace(
            waited=parked.waited,
            was_queued=any(hold.seq for hold in parked.holds),
            copy=parked.asking.copy if parked.asking else None,
            unlocked=execution.lock is not None,
        )
        self._with_slot(parked, self._run)

    def _run(self, parked: Parked) -> None:
        """Run it in the slot that it has."""
        request = parked.request
        try:
            handed = parked.hand_over()
        except LockLost:  # at this very moment: it asks where it runs, with other tokens
            handed = ()
            request.new_receipt()
            parked.abandon()
        request.send_along(parked.sent._replace(space=parked.runtime.space, holds=handed))
        self._residents.remove(parked)
        let_go(self._consumer, parked.kept)
        # The slot goes with the request.
        parked.has_slot = False
        try:
            self._slots.run(request)
        except BaseException:
            parked.abandon()
            raise
        if request._already_revoked:
            parked.abandon()
        elif handed:
            self._underway.add(parked, [each.resource for each in handed])

    def disconnected(self) -> None:
        """Celery has lost its connection to the broker."""
        self._underway.disconnected()

    def look_at_sent(self) -> None:
        """End those in the pool's buffer that must not run any more."""
        self._underway.look()

    def is_over(self, parked: Parked) -> bool:
        """Whether it must not run any more: revoked, expired, or no longer here."""
        if parked.is_gone:
            self._return_slot(parked)
            return True
        if not is_revoked(parked.request):
            return False
        self.drop(parked)
        forget(self._consumer, parked.kept)
        return True

    def drop(self, parked: Parked) -> None:
        """Keep it no more; its message has been seen to."""
        self._residents.remove(parked)
        self._call_off(parked)
        self._return_slot(parked)
        if parked.pending is not None:
            parked.pending.cancel()
        parked.abandon()

    # --- too many, or too long

    def send_back_if_too_much(self, parked: Parked) -> None:
        if parked.is_gone or parked.pending is None or parked.has_slot:
            return
        if not self._bounds.are_exceeded(parked, self._residents.count_in_line):
            return
        if self._bounds.send_back(parked, lambda is_sent: self._sent_back(parked, is_sent)):
            # It keeps its place, and stays out of the way of others meanwhile.
            pending, parked.pending = parked.pending, None
            pending.cancel()
            self._residents.leave_line(parked)
            self._call_off(parked)

    def _sent_back(self, parked: Parked, is_sent: bool) -> None:
        if parked.is_gone:
            return
        if is_sent:
            self._residents.remove(parked)
        else:
            self._take_up_place(parked, [hold.seq for hold in parked.holds])

    def close(self) -> None:
        """Nobody is sent back any more; waits until who is being sent back is."""
        self._bounds.close()
