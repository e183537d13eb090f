"""The watchdog: one thread a process that renews every hold, shows that every waiter is alive and
ends what was abandoned.

It renews what is in its table and nothing else. A hold enters the table in the step that learns of
its grant, and leaves it before its release is sent; so whatever raises afterwards, nothing renews
it. The tables are plain dicts changed by single atomic operations: no mutex is shared with a body,
and a body interrupted between any two instructions leaves no mutex behind.

A renewal that fails is tried again until it is certain that another was granted the place. What a
missed renewal alone means is little: the hold is AT_RISK, then UNSURE, and comes back from both.
"""

from __future__ import annotations

import math
import time
from operator import attrgetter
from typing import Callable, Dict, List

from celery_redlock.core import events, timing
from celery_redlock.core.lifecycle import LIVING, Move, State
from celery_redlock.core.ports import (
    Beat,
    Closed,
    Extended,
    NoAnswer,
    Queued,
    Reestablish,
    Store,
)
from celery_redlock.core.timing import PAST_DEADLINE
from celery_redlock.core.why import refused
from celery_redlock.locking import native
from celery_redlock.locking.abandoned import Abandoned, farewell
from celery_redlock.locking.hold import Hold

#: What is due within this share of a lease goes out with what is due now.
_TOGETHER = 1 / 12

#: Seconds after which a hold is a long one: then it must be noticed when the server goes, since one
#: that comes back empty waits for old holders for no longer than its grace.
_LONG = 1.0

_DUE = attrgetter("due")

_TROUBLED = (State.AT_RISK, State.UNSURE)

#: Seconds between two looks whether the server has gone.
_LOOK = 0.5

#: Seconds after which who has become the head of its line asks who holds the resource: many a body
#: is over by then.
_ASK_FOR_HOLDERS = 0.2

#: Seconds after which a hold is renewed that was granted for a moment only: many a body is over by
#: then.
_CONFIRM = 0.02


class Watchdog:
    """Starts its thread on the first hold; it sleeps while there is nothing to do.

    ``store`` is used from its thread alone. ``on_doubt`` is told of each hold that has become
    unsure or lost, before anybody else: it must be quick. Fork: see ``after_fork``.
    """

    def __init__(
        self,
        store: Store,
        emit: events.Emit,
        abandoned: Abandoned,
        clock: Callable[[], float] = time.monotonic,
        on_doubt: Callable[[Hold], None] = lambda hold: None,
    ) -> None:
        self._store = store
        self._emit = emit
        self._clock = clock
        self._abandoned = abandoned
        self._on_doubt = on_doubt
        self.after_fork()

    def after_fork(self) -> None:
        self._held: Dict[str, Hold] = {}
        self._waiting: Dict[str, Hold] = {}
        self._abandoned.clear()
        #: A renewal has failed: some hold may be AT_RISK or UNSURE. No other is.
        self._is_troubled = False
        self._signal = native.Signal()
        self._starting = native.mutex()
        self._planned = math.inf
        self._asked = math.inf

    def stop(self) -> None:
        """Forget everything and end the thread, which the next hold starts again."""
        signal = self._signal
        self.after_fork()
        signal.set()

    # --- called by owners

    def watch(self, hold: Hold) -> None:
        """Renew this hold from now on."""
        self._plan_renewal(hold, hold.held_since)
        self._held[hold.token] = hold
        self._wake_for(min(hold.due, hold.held_since + _LONG))

    def attend(self, hold: Hold, queued: Queued) -> None:
        """Keep this waiter's place in line from now on."""
        self._plan_beat(hold, queued, self._clock())
        self._waiting[hold.token] = hold
        self._wake_for(hold.due)

    def attend_no_more(self, hold: Hold) -> None:
        self._waiting.pop(hold.token, None)

    def ask_for_holders(self, hold: Hold) -> None:
        """This waiter has become the head of its line, and may have to prove that one is dead."""
        hold.due = min(hold.due, self._clock() + _ASK_FOR_HOLDERS)
        self._wake_for(hold.due)

    def forget(self, hold: Hold) -> None:
        """Never renew it again, nor keep its place."""
        self._held.pop(hold.token, None)
        self._waiting.pop(hold.token, None)

    def end_later(self, hold: Hold) -> None:
        """Release an abandoned hold in the background, until the server has acknowledged it."""
        hold.end_due = self._clock()
        self._wake_for(hold.end_due)

    def beat_now(self) -> None:
        """Ask about every waiter at once: wake-ups may have been missed."""
        now = self._clock()
        for hold in list(self._waiting.values()):
            hold.due = now
        self._wake_for(now)

    def renew_now(self) -> None:
        """Renew everything at once: the server was away, and perhaps has lost what it knew."""
        now = self._clock()
        for hold in list(self._held.values()):
            hold.due = now
        self._wake_for(now)

    @property
    def renewing(self) -> List[Hold]:
        return list(self._held.values())

    @property
    def is_idle(self) -> bool:
        return not (self._held or self._waiting or self._abandoned)

    # --- its thread

    def _wake_for(self, due: float) -> None:
        if not self._starting.locked():
            native.start_thread(self._run)
        elif due < self._planned:
            self._asked = due
            self._signal.set()

    def _run(self) -> None:
        # The thread takes it, for as long as it lives: a start that failed, or a body that was
        # interrupted at it, leaves the next one free. Of several started at once one stays.
        if not self._starting.acquire(False):
            return
        signal = self._signal
        while signal is self._signal:
            # Whoever adds something while the next wake-up is being planned sets the signal. What
            # was asked for counts although it may be over: a process that takes one short lock
            # after the other would otherwise wake this thread for each of them.
            self._planned = math.inf
            self._planned = planned = min(self._next_due(), self._asked)
            self._asked = math.inf
            signal.wait(planned - self._clock())
            try:
                self.round()
            except Exception as error:  # noqa: BLE001 - a fault must not end every renewal
                self._emit(events.WatchdogFailed(error))
                signal.wait(0.1)

    def _next_due(self) -> float:
        due = min(_first_due(self._held), _first_due(self._waiting), self._abandoned.first_due())
        return min(due, self._clock() + _LOOK) if self._held else due

    def round(self) -> None:
        """Do everything that is due."""
        if self._has_gone():
            self.renew_now()
        # First what bodies hold: a server that does not answer is waited for by each of these.
        self._renew([hold for hold in self._due(self._held) if self._may_live(hold)])
        self._beat(self._due(self._waiting))
        self._abandoned.end_due()

    def _has_gone(self) -> bool:
        """Whether the server has gone under long holds that nobody knows to be in trouble."""
        holds = list(self._held.values())
        since = self._clock() - _LONG
        if not any(hold.renew and hold.held_since <= since for hold in holds):
            return False
        if self._is_troubled:
            self._is_troubled = any(hold.state in _TROUBLED for hold in holds)
        if self._is_troubled:
            return False  # their renewals are tried again already
        try:
            return self._store.has_broken()
        except NoAnswer:
            return True

    def _due(self, table: Dict[str, Hold]) -> List[Hold]:
        now = self._clock()
        if _first_due(table) > now:
            return []
        return [hold for hold in list(table.values()) if hold.due <= now + hold.lease * _TOGETHER]

    # --- renewal

    def _may_live(self, hold: Hold) -> bool:
        if hold.state not in LIVING:
            self._held.pop(hold.token, None)
            return False
        if hold.renew_until is not None and self._clock() >= hold.renew_until:
            self._lose(hold, "held for as long as allowed")
            return False
        if not hold.renew:
            self._run_out(hold)
            return False
        return True

    def _run_out(self, hold: Hold) -> None:
        """Nobody renews it: say when its trust is over, and forget it."""
        if self._clock() < hold.trusted_until:
            hold.due = hold.trusted_until
            return
        self._held.pop(hold.token, None)
        if hold.watched(Move.TRUST_OVER):
            self._doubt(hold)

    def _renew(self, holds: List[Hold]) -> None:
        if not holds:
            return
        sent_at = self._clock()
        requests = [hold.renewal(hold.terms.lease_ms) for hold in holds]
        for hold, answer in zip(holds, self._store.renew(requests)):
            if isinstance(answer, Extended):
                self._renewed(hold, sent_at, Move.RENEWED)
            elif isinstance(answer, NoAnswer):
                self._renewal_failed(hold, answer)
            elif isinstance(answer, Closed):
                self._lose(hold, answer.why)
            else:
                self._reestablish(hold)

    def _plan_renewal(self, hold: Hold, sent_at: float) -> None:
        due = sent_at + timing.renew_after(hold.lease)
        if hold.settle_lease is not None:
            due = min(due, sent_at + _CONFIRM)
        hold.due = due if hold.renew_until is None else min(due, hold.renew_until)

    def _renewed(self, hold: Hold, sent_at: float, move: Move) -> None:
        was = hold.state
        if not hold.watched(move, timing.trusted_until(sent_at, hold.lease)):
            return
        self._plan_renewal(hold, sent_at)
        if move is Move.REESTABLISHED:
            self._emit(events.Reestablished(hold.resource, hold.fence, hold.record))
        elif was is not State.HELD:
            self._emit(events.Recovered(hold.resource, hold.record))

    def _renewal_failed(self, hold: Hold, silence: NoAnswer) -> None:
        now = self._clock()
        was = hold.state
        left = hold.trusted_until - now
        hold.due = now + timing.retry_renewal_after(hold.lease, left)
        self._is_troubled = True
        if not hold.watched(Move.RENEWAL_FAILED):
            return
        if was is State.HELD:
            certain = max(0.0, left)
            self._emit(events.RenewalFailed(hold.resource, hold.record, certain, silence.servers))
        if left <= 0 and was is not State.UNSURE and hold.watched(Move.TRUST_OVER):
            self._doubt(hold)

    def _doubt(self, hold: Hold) -> None:
        self._on_doubt(hold)
        self._emit(events.Unsure(hold.resource, hold.record))

    def _reestablish(self, hold: Hold) -> None:
        """The server does not know it: a grant needed its room, or the server lost its data."""
        if not hold.may_return():
            return  # released meanwhile: that is why
        sent_at = self._clock()
        request = Reestablish(
            hold.resource,
            hold.token,
            hold.fence or 0,
            hold.terms,
            hold.record.encode(),
            trusted=sent_at < hold.trusted_until,
        )
        try:
            answer = self._store.reestablish(request)
        except NoAnswer as silence:
            self._renewal_failed(hold, silence)
            return
        if isinstance(answer, Extended):
            self._renewed(hold, sent_at, Move.REESTABLISHED)
        elif isinstance(answer, Closed):
            self._lose(hold, answer.why)
        else:
            self._lose(hold, refused(is_trusted=request.trusted))

    def lost(self, hold: Hold, why: str) -> bool:
        """Another was granted its place: never renew it again; whether that is news."""
        self._held.pop(hold.token, None)
        if not hold.watched(Move.GRANTED_TO_ANOTHER, why=why):
            return False
        self._on_doubt(hold)
        self._emit(events.Lost(hold.resource, hold.fence, hold.record, why))
        return True

    def _lose(self, hold: Hold, why: str) -> None:
        if not self.lost(hold, why):
            return
        try:
            self._store.leave(farewell(hold))
        except NoAnswer:
            # Said once: its lease is not renewed any more, and a late copy finds it expired.
            hold.tainted = True

    # --- the line

    def _beat(self, holds: List[Hold]) -> None:
        if not holds:
            return
        now = self._clock()
        beats = [
            Beat(hold.resource, hold.token, timing.to_ms(timing.waiter_ttl(hold.lease)))
            for hold in holds
        ]
        for hold, answer in zip(holds, self._store.heartbeat(beats)):
            hold.silence = answer if isinstance(answer, NoAnswer) else None
            if isinstance(answer, Queued):
                hold.place(answer, now)
                hold.is_lookout = bool(answer.holders)
                self._plan_beat(hold, answer, now)
            elif isinstance(answer, NoAnswer):
                hold.due = now + timing.retry_renewal_after(hold.lease)
            else:
                # Granted, forgotten or dropped: the waiter asks again and is told which.
                hold.due = now + timing.heartbeat_every(hold.lease)
                hold.closed = isinstance(answer, Closed)
                hold.wake.set()

    def _plan_beat(self, hold: Hold, queued: Queued, now: float) -> None:
        pause = timing.heartbeat_every(hold.lease)
        if queued.rank == 0:
            pause = min(pause, queued.next_ms / 1000 + PAST_DEADLINE)
        hold.due = now + pause


def _first_due(table: Dict[str, Hold]) -> float:
    # At each of its looks the watchdog goes through all holds: nothing in Python runs for each.
    return min(map(_DUE, list(table.values())), default=math.inf)
