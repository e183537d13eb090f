"""The manager: takes holds from asked (``ask``) to ended. What goes on beside the caller is the
watchdog's and the wake-ups'.

What the caller may rely on, whatever is raised and wherever it is interrupted: once ``acquire`` was
called, ``release`` (or ``abandon``) ends the hold. An ask or a release without an answer leaves an
orphan: it rides on every later call of this process for that resource and is released in the
background, until the server has acknowledged that.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Callable, Iterable, Optional, Sequence, Tuple, TypeVar

from celery_redlock.core import events, timing
from celery_redlock.core.lifecycle import LIVING, Move, State
from celery_redlock.core.ports import (
    Extended,
    HolderView,
    Leave,
    LeaveAnswer,
    Left,
    NoAnswer,
    ResourceView,
    Store,
)
from celery_redlock.core.record import Record
from celery_redlock.core.timing import LATE_MS
from celery_redlock.exceptions import LockLost
from celery_redlock.locking import handover, native, oversight, process, proof
from celery_redlock.locking.abandoned import Abandoned
from celery_redlock.locking.ask import Ask
from celery_redlock.locking.extension import lengthen, settle
from celery_redlock.locking.handover import Handed
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Outcome, Patience
from celery_redlock.locking.oversight import Survey
from celery_redlock.locking.wakeups import Wakeups
from celery_redlock.locking.watchdog import Watchdog

#: A silence shorter than this (a closed connection, a refused one) is asked once more at once.
QUICK = 0.5

#: So many of the bodies that it handed holds to are remembered as over.
_OVER = 1000

Answer = TypeVar("Answer")


class Manager:
    """The holds of one process on one store.

    ``background`` is the store as the watchdog's and the wake-ups' threads use it (the same, or one
    made of unpatched sockets); ``on_doubt`` is the watchdog's. Thread-safe; after a fork the child
    starts with no hold and releases none of its parent's.
    """

    def __init__(
        self,
        store: Store,
        emit: events.Emit,
        *,
        background: Optional[Store] = None,
        clock: Callable[[], float] = time.monotonic,
        is_dead: proof.Proof = proof.is_dead,
        on_doubt: Callable[[Hold], None] = lambda hold: None,
    ) -> None:
        self.store = store
        self.emit = emit
        self.clock = clock
        self.proof = is_dead
        self._over: OrderedDict[str, None] = OrderedDict()
        self.background = background or store
        self.abandoned = Abandoned(self.background, emit, clock)
        self.watchdog = Watchdog(self.background, emit, self.abandoned, clock, on_doubt)
        self.wakeups = Wakeups(
            self.background, self._inbox_opened, self.watchdog.ask_for_holders, clock
        )
        process.join(self)

    def after_fork(self) -> None:
        self._over = OrderedDict()
        self.watchdog.after_fork()
        self.wakeups.after_fork()

    def stop(self) -> None:
        """Forget every hold, and end the threads of the background. For a store that is given up.

        The manager stays usable.
        """
        self.watchdog.stop()
        self.wakeups.stop()

    def acquire(self, hold: Hold, patience: Optional[Patience] = None) -> Outcome:
        """Ask for a new hold; without ``patience`` once, else in line until granted.

        Raises NoAnswer when the server is away. Whatever it raises, the hold has been abandoned.
        """
        return self.acquire_all((hold,), patience)

    def acquire_all(self, holds: Sequence[Hold], patience: Optional[Patience] = None) -> Outcome:
        """Ask for new holds of different resources: in the end all are held, or none.

        They are taken in the given order, and those before the awaited one are held meanwhile: if
        everybody has the same order, no two wait for one another. Otherwise as ``acquire``; raises
        LockLost as well, when one that it held lapsed while it waited for another.
        """
        for hold in holds:
            hold.move(Move.ASKED)
        try:
            return Ask(self, holds, patience).outcome()
        except BaseException as error:
            # Interrupted or unanswered: the script may have run, or may run later.
            for hold in holds:
                self.abandon(hold)
                self._end_before_exit(hold, error)
            raise

    def release(self, hold: Hold) -> Optional[Left]:
        """End a hold; does nothing to one that has ended, was lost or is a parent process's.

        Gives what the server had of it, None where that is not certain. Never raises for a server
        that is away: the release then goes on in the background.
        """
        try:
            return self._release(hold)
        except NoAnswer:
            self.abandon(hold)
            return None
        except BaseException as error:
            # Interrupted, perhaps before anything was sent.
            self.abandon(hold)
            self._end_before_exit(hold, error)
            raise

    def release_all(self, holds: Sequence[Hold]) -> None:
        """Release holds, the last first; a server that is away is waited for once, not for each."""
        is_away = False
        for hold in reversed(holds):
            if is_away:
                self.abandon(hold)
                continue
            was_held = hold.state in LIVING
            self.release(hold)
            is_away = was_held and hold.state is State.ABANDONED

    def abandon(self, hold: Hold) -> None:
        """End a hold without waiting for the server. Idempotent, and safe to repeat."""
        self.watchdog.forget(hold)
        self.wakeups.forget(hold)
        if hold.is_final or hold.state in (State.NEW, State.HANDED):
            return
        hold.tainted = True
        self.abandoned.add(hold)
        if hold.state in LIVING:
            hold.try_move(Move.ENDING)
        first = hold.try_move(Move.OUTCOME_UNKNOWN, Move.NO_ANSWER)
        self.watchdog.end_later(hold)
        if first:
            self.emit(events.Abandoned(hold.resource, hold.record))

    def hand_over(self, hold: Hold) -> Handed:
        """Leave a hold to another process of this host, which has its token; see ``handover``.

        Nobody here renews it any more. Raises LockLost if it was lost. Once the receiver is known
        to have it, ``hold.move(Move.ADOPTED)`` ends it here.
        """
        return handover.hand_over(self, hold)

    def bodies_over(self, tokens: Iterable[str]) -> None:
        """What had these tokens was handed over, and its body is over.

        Whoever asks here and still meets one of them as a holder ends it: its receiver's release
        did not come through.
        """
        for token in tokens:
            self._over[token] = None
        while len(self._over) > _OVER:
            self._over.popitem(last=False)

    def is_over(self, token: str) -> bool:
        return token in self._over

    def take_back(self, hold: Hold) -> Optional[Left]:
        """Release what was handed over: its receiver is dead, or never came.

        Does nothing to a hold that is not HANDED. As ``release`` for a server that is away.
        """
        if not handover.take_back(hold):
            return None
        try:
            return self._released(hold, self.leave(hold))
        except NoAnswer:
            self.abandon(hold)
            return None

    def adopt(self, hold: Hold, handed: Handed) -> bool:
        """Make a new hold, given the token, what another process was granted; whether it is held.

        It is not, and is still new, when too little trust is left. To ask with the token, as for
        any new hold, then confirms it.
        """
        return handover.adopt(self, hold, handed)

    def give_back(self, holds: Sequence[Hold], handed: Sequence[Handed]) -> None:
        """Release what another process has handed over and nobody takes over, for all it waits.

        The holds are new, with the tokens. As ``release`` for a server that is away.
        """
        for hold, each in zip(holds, handed):
            # Their leases may be over by now, which is no loss that anybody has to be told of.
            hold.adopted(each.fence, each.trusted_until, each.held_since, tainted=True)
        self.release_all(holds)

    def keep(self, hold: Hold, name: str, countdown: float) -> None:
        """Leave a hold to whoever asks for it under ``name``, for ``countdown`` plus its lease.

        Nobody renews it. Without a definite answer it stays ours, to be released.
        """
        self.watchdog.forget(hold)
        if hold.state not in LIVING:
            return
        lease_ms = hold.terms.lease_ms + timing.to_ms(countdown)
        (answer,) = self.store.renew([hold.renewal(lease_ms, name)])
        if isinstance(answer, Extended):
            hold.try_move(Move.HANDED_ON)
            self.emit(events.Kept(hold.resource, hold.record, lease_ms / 1000))

    def extend(self, hold: Hold, lease: float, *, shorten: bool = False) -> bool:
        """Lease a hold for so many seconds from now; whether it still is its owner's.

        The lease on the server never becomes shorter, and trust does with ``shorten`` alone.
        Raises NoAnswer when the server is away.
        """
        was = hold.state
        why = lengthen(self.store, hold, lease, self.clock, shorten=shorten)
        if why is None and was in (State.AT_RISK, State.UNSURE):
            self.emit(events.Recovered(hold.resource, hold.record))
        if why is None and not hold.renew:
            self.watchdog.watch(hold)  # which may have taken its trust for over
        elif why is not None:
            self.watchdog.lost(hold, why)
        return hold.state in LIVING

    def settle_fence(self, hold: Hold) -> None:
        """Have a hold's fence written where whoever is granted it next is sure to meet it.

        Tries for as long as nobody else can hold it; raises LockLost if it could not be done, or
        the hold has ended.
        """
        why = settle(self.store, hold, self.clock)
        if why is not None:
            self.watchdog.lost(hold, why)
        if hold.settle_fence is not None:
            raise LockLost(hold.resource, hold.fence)

    def settle_lease(self, hold: Hold) -> None:
        """Have the server give a hold its whole lease now; as it is, where the server is away."""
        with suppress(NoAnswer):
            self.extend(hold, hold.lease)

    def end_for_dead(self, hold: Hold, holder: Record, *, spare_kept: bool) -> None:
        """Release, by the token of ``hold``, what ``holder`` had or awaited, which is dead.

        For a thread of the background; ``hold.record`` is of this process. ``spare_kept``: not
        what is kept over a retry. Never raises for a server that is away: the release then goes on.
        """
        store, emit, owner = self.background, self.emit, hold.record
        try:
            oversight.end_for_dead(
                store, emit, hold.resource, hold.token, owner, holder, spare_kept=spare_kept
            )
        except NoAnswer:
            hold.move(Move.ASKED)
            self.abandon(hold)

    def sweep(self, owner: Record, within: float) -> None:
        """End what the dead of this host left behind; ``owner`` says who does. Raises NoAnswer.

        For a thread of the background.
        """
        oversight.sweep(self.background, self.emit, self.proof, owner, within)

    def inspect(self, resource: str) -> ResourceView:
        """The resource as the server has it now; raises NoAnswer."""
        return self.store.inspect(resource)

    def survey(self, pattern: str = "*", within: Optional[float] = None) -> Survey:
        """What is held or waited for, as far as a look of ``within`` seconds goes; may take long.

        Raises NoAnswer.
        """
        return oversight.survey(self.store, pattern, within)

    def force(
        self, resource: str, holders: Sequence[HolderView], by: str
    ) -> Tuple[HolderView, ...]:
        """Release these holders of another's; those that it ended. Raises NoAnswer."""
        return oversight.force(self.store, self.emit, resource, holders, by)

    @property
    def is_idle(self) -> bool:
        """Nothing held, nothing awaited, nothing left to release."""
        return self.watchdog.is_idle and self.wakeups.is_idle

    def finish(self, within: float) -> None:
        """Wait until the background has ended what was abandoned, so many seconds at most.

        For the end of the process.
        """
        until = self.clock() + within
        while self.abandoned and self.clock() < until:
            native.sleep(0.001)

    # --- the inbox

    def _inbox_opened(self, was_broken: bool) -> None:
        self.watchdog.beat_now()
        if was_broken:
            self.watchdog.renew_now()

    # --- ending

    def _release(self, hold: Hold) -> Optional[Left]:
        # Before the release is sent: whatever it does, nothing renews the hold any more.
        self.watchdog.forget(hold)
        if hold.state not in LIVING:
            self.abandon(hold)
            return None
        hold.try_move(Move.ENDING)
        return self._released(hold, self.leave(hold))

    def _released(self, hold: Hold, left: Left) -> Optional[Left]:
        hold.try_move(Move.ANSWERED)
        if hold.tainted or hold.is_let_go:
            # Of two copies of a release the second finds nothing.
            self._tell_released(hold)
            return None
        if left.what == "absent":
            # It had ended before, and nobody had noticed so far.
            self.emit(events.Lost(hold.resource, hold.fence, hold.record, "gone when released"))
        else:
            self._tell_released(hold)
        return left

    def leave(self, hold: Hold) -> Left:
        request = self._farewell(hold)
        left, _sent_at = self.twice((hold,), lambda: self.store.leave(request))
        if len(request.tokens) > 1:
            self.abandoned.cleared(request.tokens[1:])
        return left

    def _farewell(self, hold: Hold) -> Leave:
        orphans = self.abandoned.tokens_of(hold.resource)
        tainted = hold.tainted or orphans
        return Leave(
            hold.resource,
            (hold.token, *orphans),
            tomb_ms=LATE_MS if tainted else 0,
            lease_ms=hold.terms.lease_ms,
        )

    def part(self, hold: Hold) -> None:
        """End a hold that was asked for, also one that waits or was not granted."""
        request = self.parting(hold)
        if request is None:
            return
        answer: LeaveAnswer
        try:
            answer, _sent_at = self.twice((hold,), lambda: self.store.leave(request))
        except NoAnswer as silence:
            answer = silence
        self.parted(hold, request, answer)

    def parting(self, hold: Hold) -> Optional[Leave]:
        """Begin to end it; what the server is to be sent, if anything. ``parted`` ends it."""
        self.watchdog.forget(hold)
        self.wakeups.forget(hold)
        if hold.try_move(Move.ENDING) or hold.state is State.QUEUED:
            return self._farewell(hold)
        if hold.tainted:
            # A copy of the ask is unaccounted for and may still be granted: bury it.
            self.abandon(hold)
        else:
            hold.try_move(Move.REFUSED)
        return None

    def parted(self, hold: Hold, request: Leave, answer: LeaveAnswer) -> None:
        """What came of ``parting``."""
        if isinstance(answer, NoAnswer):
            self.abandon(hold)
            return
        self.abandoned.cleared(request.tokens[1:])
        if not hold.try_move(Move.GAVE_UP):
            self._released(hold, answer)

    def _tell_released(self, hold: Hold) -> None:
        held = self.clock() - hold.held_since
        self.emit(events.Released(hold.resource, hold.fence, hold.record, held))

    def _end_before_exit(self, hold: Hold, error: BaseException) -> None:
        """Release at once what was abandoned because this process is about to end."""
        if not isinstance(error, Exception) and hold.state is State.ABANDONED:
            with suppress(NoAnswer):
                self.leave(hold)

    def twice(self, holds: Sequence[Hold], call: Callable[[], Answer]) -> Tuple[Answer, float]:
        """The answer and when it was asked for; a quick silence is asked again at once.

        A quick silence is a connection that the server had closed: a fresh one tells more.
        """
        first_at = sent_at = self.clock()
        while True:
            try:
                return call(), sent_at
            except NoAnswer as silence:
                for hold in holds:
                    hold.tainted = hold.tainted or silence.may_run
                again_at = self.clock()
                if sent_at > first_at or again_at - first_at > QUICK:
                    raise
                sent_at = again_at
