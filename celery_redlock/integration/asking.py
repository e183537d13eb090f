"""Asking for everything that a call locks, until it is held or must not be.

The names come in an order that is the same for everybody, and are asked for in it: no two calls
wait for one another (``locking.ask`` says how).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable, Optional, Sequence, Tuple

from celery_redlock.core import events
from celery_redlock.core.policy import Conflict, Decision, asks_first, decide, has_own_copy
from celery_redlock.core.ports import NoAnswer, Seen, Terms
from celery_redlock.core.record import Record
from celery_redlock.core.why import is_overflow, who_overflowed
from celery_redlock.exceptions import LockError, LockLost, LockTimeout, LockUnavailable
from celery_redlock.integration import copies
from celery_redlock.integration.call import Call, worker_of
from celery_redlock.integration.handing import Refusal, token_of
from celery_redlock.integration.runtime import Runtime
from celery_redlock.integration.steps import Ask, Pause, Steps
from celery_redlock.locking.execution import Execution, NoLock
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Dropped, GaveUp, Held, Outcome, Patience, Taken, longest

#: Seconds between two tries, in place, of a call that cannot be published again.
_OUTAGE_PAUSE = (0.2, 5.0)

#: Seconds between two reports of one such call.
_TOLD_EVERY = 60.0


class Asking:
    """One call's asking. What it holds is in ``execution.holds`` from before it is asked for.

    With ``new_receipt`` it is the worker's parent that asks, which knows all tokens and keeps the
    message through an outage.
    """

    def __init__(
        self,
        runtime: Runtime,
        call: Call,
        execution: Execution,
        new_receipt: Optional[Callable[[], str]] = None,
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._execution = execution
        self._receipt = call.receipt
        self._new_receipt = new_receipt
        self._options = call.task.redlock_options()
        self._waited_before = call.waited
        #: Another copy of this task that was met on the way, as it held the resource.
        self.copy: Optional[Record] = call.sent.copy if call.sent else None
        self.terms: Terms = self._options.terms
        self._record = runtime.record(
            call.task.name, call.task_id, call.retries, worker_of(execution)
        )
        self._handed = {handed.resource: handed for handed in call.sent.holds} if call.sent else {}

    # --- outages

    def steps(self, names: Sequence[str]) -> Steps[Optional[Refusal]]:
        """Hold all of the names, or say why not.

        Raises LockTimeout, LockUnavailable, LockError, and what a callable policy raises.
        """
        pause, longest_pause = _OUTAGE_PAUSE
        tell_at = 0.0
        while True:
            try:
                return (yield from self._all(names))
            except NoAnswer as silence:
                decision = self._on_outage()
                if decision != "wait" or time.monotonic() >= tell_at:
                    tell_at = time.monotonic() + _TOLD_EVERY
                    self._tell_of_outage(names[0], silence, decision)
                if decision == "run":
                    self._execution.lock = NoLock("outage")
                    return None
                if decision == "fail":
                    raise LockUnavailable(silence.servers) from silence
                if decision == "retry":
                    left = self._left()
                    return Refusal(Decision.RETRY, names[0], None, "outage", silence, left)
            except LockLost as lost:
                if not self._is_own(lost):
                    raise  # the interruption of a body around this one
                # One that it held lapsed while it waited for the next: none is held, ask anew.
                continue
            yield Pause(min(pause, self._left() or pause))
            pause = min(2 * pause, longest_pause)

    def _is_own(self, lost: LockLost) -> bool:
        holds = self._execution.holds.values()
        return any((hold.resource, hold.fence) == lost.args for hold in holds)

    def _tell_of_outage(self, name: str, silence: NoAnswer, decision: str) -> None:
        self._runtime.emit(events.Unavailable(name, self._record, silence.servers, decision))

    def _on_outage(self) -> str:
        decision: str = self._options.on_outage
        if decision == "retry":
            left = self._left()
            if left is not None and left <= 0:
                decision = "fail"
            elif self._new_receipt is not None or not self._call.from_message:
                decision = "wait"
        return decision

    # --- all of them

    def _all(self, names: Sequence[str]) -> Steps[Optional[Refusal]]:
        own_copy = False
        # One whose first delivery is alive waits for it, however long: it would be seen too late.
        if asks_first(self._options.on_conflict) or self._call.is_redelivered:
            outcome = yield from self._ask(names, None)
            if isinstance(outcome, Taken):
                own_copy = has_own_copy(outcome.holders, self._call.own_ids)
                refusal = self._decided(outcome, own_copy)
                if refusal is not None:
                    return refusal
                outcome = yield from self._ask(names, self._patience(own_copy))
        else:
            outcome = yield from self._ask(names, self._patience(own_copy))
        if self._must_wait_on(outcome):
            # The line is full, or it has waited long: but a copy of itself is no conflict.
            outcome = yield from self._ask(names, self._patience(own_copy=True))
        return self._settled(outcome)

    def _must_wait_on(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Taken):
            return has_own_copy(outcome.holders, self._call.own_ids)
        return isinstance(outcome, GaveUp) and self.copy is not None

    def _ask(self, names: Sequence[str], patience: Optional[Patience]) -> Steps[Outcome]:
        outcome = yield Ask(self._new_holds(names), patience)
        assert outcome is not None
        # Not those that it asked for, if that was done anew.
        holds = tuple(self._execution.holds[name] for name in names)
        self._notice_copy(outcome, holds)
        if not isinstance(outcome, Held):
            for hold in holds:
                del self._execution.holds[hold.resource]
        return outcome

    def anew(self, ask: Ask, seqs: Sequence[int]) -> Ask:
        """The same once more, for whoever had left the line: with the places that it had there."""
        holds = self._new_holds([hold.resource for hold in ask.holds])
        for hold, seq in zip(holds, seqs):
            hold.seq = seq
        return ask._replace(holds=holds)

    def _new_holds(self, names: Sequence[str]) -> Tuple[Hold, ...]:
        if self._new_receipt is not None and not self._execution.asked.isdisjoint(names):
            self._receipt = self._new_receipt()
            self._execution.asked.clear()
        holds = tuple(self.new_hold(name) for name in names)
        for hold in holds:
            hold.seq = self._call.place_in(hold.resource)
            self._execution.holds[hold.resource] = hold
        return holds

    def _notice_copy(self, outcome: Outcome, holds: Sequence[Hold]) -> None:
        seen = () if isinstance(outcome, (Held, Dropped)) else outcome.holders
        for holders in (seen, *(hold.own_copies for hold in holds)):
            self.copy = copies.copy_among(holders, self._call) or self.copy

    def new_hold(self, name: str) -> Hold:
        """A hold to be asked for: the first one for a name has the token that the parent knows.

        One that was left or abandoned is dead: a later ask for the same name has a fresh one.
        """
        is_first = name not in self._execution.asked
        hold = Hold(
            name,
            self.terms,
            self._record,
            kept=self._kept(),
            # How long it is held counts where the body runs.
            max_hold=None if self._new_receipt else self._options.max_hold,
            token=token_of(self._receipt, name) if is_first else None,
        )
        if is_first:
            self._execution.asked.add(name)
            if name in self._handed:
                # Also where it is asked for again: the grant goes on under the parent's record.
                hold.record = hold.record._replace(since=self._handed[name].since)
                hold.record_is_due = True
        return hold

    def _decided(self, taken: Taken, own_copy: bool) -> Optional[Refusal]:
        name, holder = taken.resource, longest(taken.holders)
        waited = self.waited()
        conflict = Conflict(
            task=self._call.task.name,
            task_id=self._call.task_id,
            resource=name,
            holder=holder.holder if holder else None,
            since=holder.since if holder else None,
            waiting=taken.waiting,
            waited=waited,
        )
        decision = decide(
            self._options.on_conflict,
            conflict,
            own_copy=own_copy,
            republishable=self._call.from_message,
        )
        if decision is Decision.WAIT:
            return None
        left = self._left()
        if decision is Decision.RETRY and left is not None and left <= 0:
            self._runtime.emit(events.TimedOut(name, self._record, holder, waited))
            raise self._timeout(name, holder)
        self._runtime.emit(events.Conflicted(name, self._record, holder, decision.value))
        return Refusal(decision, name, holder, left=left)

    def _settled(self, outcome: Outcome) -> Optional[Refusal]:
        if isinstance(outcome, Held):
            return None
        if isinstance(outcome, GaveUp):
            raise self._timeout(outcome.resource, longest(outcome.holders))
        if isinstance(outcome, Taken):
            return self.skip(outcome.resource, outcome.holders, "full")
        return self._dropped(outcome)

    def _dropped(self, outcome: Dropped) -> Refusal:
        name = outcome.resource
        if not is_overflow(outcome.why):
            self._runtime.emit(events.Conflicted(name, self._record, None, "fail", "ended"))
            raise LockError(f"{name}: this wait was ended by an operator ({outcome.why})")
        return replace(self.skip(name, (), "replaced"), newcomer=who_overflowed(outcome.why))

    def skip(self, name: str, holders: Tuple[Seen, ...], reason: str) -> Refusal:
        """The body must not run, and everything is well; says so."""
        holder = longest(holders)
        self._runtime.emit(events.Conflicted(name, self._record, holder, "skip", reason))
        return Refusal(Decision.SKIP, name, holder, reason)

    # --- time

    def _patience(self, own_copy: bool) -> Patience:
        left = self.left()
        return Patience(
            until=None if left is None else time.monotonic() + left,
            max_waiting=0 if own_copy else self._options.max_waiting or 0,
            overflow=self._options.overflow,
            rides_out=self._options.on_outage == "retry",
        )

    def _left(self) -> Optional[float]:
        """Seconds that the call may still wait, None for ever."""
        timeout = self._options.wait_timeout
        if timeout is None and self._execution.is_nested_in_a_hold:
            timeout = self._runtime.settings.nested_wait_timeout
        return None if timeout is None else max(0.0, timeout - self.waited())

    def _timeout(self, name: str, holder: Optional[Record]) -> LockTimeout:
        """Names what this execution held itself meanwhile, too."""
        held = self._execution.held_elsewhere() or ()
        return LockTimeout(name, self.waited(), holder.holder if holder else None, *held)

    def left(self) -> Optional[float]:
        """Seconds after which its wait is over, None for never."""
        # A second copy must not record a failure of what the first one still does, or has done.
        return None if self.copy else self._left()

    def waited(self) -> float:
        """Seconds since the first ask of this task."""
        return self._waited_before + time.monotonic() - self._execution.began

    def _kept(self) -> str:
        if self._options.on_retry != "keep" or self._call.retries == 0:
            return ""
        return self._call.kept_name(self._call.retries)
