"""One hold: a token, its terms and where it is in its life.

Two threads touch a hold: its owner, who asks and ends, and the watchdog, who renews. Each change is
one step under the hold's own mutex, held for a few assignments and never across I/O. A hold is used
once: its state alone says whether an answer still concerns it.
"""

from __future__ import annotations

import secrets
from typing import Callable, Optional, Tuple

from celery_redlock.core import timing
from celery_redlock.core.lifecycle import FINAL, LIVING, Move, State, after
from celery_redlock.core.ports import Message, NoAnswer, Queued, Renew, Seen, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import native, process

#: After these the server knows the hold's record, and has its whole lease.
_RENEWALS = (Move.RENEWED, Move.REESTABLISHED)


class Hold:
    """One owner's hold of one resource, from before it is asked for until its end is certain.

    Times are of the manager's monotonic clock. Thread-safe; in a forked child it is FOREIGN.
    """

    __slots__ = (
        "__weakref__",
        "_heard",
        "_life",
        "_mutex",
        "_placed",
        "_state",
        "_wake",
        "closed",
        "due",
        "end_due",
        "fence",
        "granted_for",
        "held_since",
        "holders",
        "is_let_go",
        "is_lookout",
        "kept",
        "max_hold",
        "own_copies",
        "rank",
        "record",
        "record_is_due",
        "renew",
        "renew_until",
        "resource",
        "seq",
        "settle_fence",
        "settle_lease",
        "silence",
        "tainted",
        "terms",
        "token",
        "trusted_until",
        "why",
    )

    def __init__(
        self,
        resource: str,
        terms: Terms,
        record: Record,
        *,
        renew: bool = True,
        kept: str = "",
        max_hold: Optional[float] = None,
        token: Optional[str] = None,
    ) -> None:
        self.resource = resource
        self.terms = terms
        self.record = record
        #: The server knows it as another process's, until a renewal has brought the record.
        self.record_is_due = False
        self.renew = renew
        self.kept = kept
        self.max_hold = max_hold
        # Never the task id, a thread id or a greenlet id: all of these are used again.
        self.token = token or secrets.token_hex(16)
        self.fence: Optional[int] = None
        #: What must be called with this hold before its fence is shown; None once it was.
        self.settle_fence: Optional[Callable[[Hold], None]] = None
        #: What must be called with it before its lease is shown: it was granted in line for a
        #: moment. None once a renewal has made that a lease.
        self.settle_lease: Optional[Callable[[Hold], None]] = None
        self.trusted_until = 0.0
        self.held_since = 0.0
        self.renew_until: Optional[float] = None
        self.due = 0.0
        #: When an abandoned one is to be released: an answer that is still under way when it is
        #: abandoned plans the renewal, or the heartbeat, that will not be.
        self.end_due = 0.0
        self.tainted = False
        #: The server has released it by itself, in refusing another that was asked for with it.
        self.is_let_go = False
        self.seq = 0
        self.rank = 0
        #: It looks whether the holder is dead, though it is not the head: that may be dead too.
        self.is_lookout = False
        #: Seconds for which a release grants it while it stands in line.
        self.granted_for = timing.grant_ttl(self.lease)
        self.holders: Tuple[Seen, ...] = ()
        #: Those of the same task that were last seen among the holders.
        self.own_copies: Tuple[Seen, ...] = ()
        #: When a request was sent whose answer was "in line", and the server's time of that.
        self._placed: Tuple[float, int] = (0.0, 0)
        #: A grant that a message told of, and when that was heard.
        self._heard: Optional[Tuple[Message, float]] = None
        #: The server has said of the place in line: that it is no more, or nothing at all.
        self.closed = False
        self.silence: Optional[NoAnswer] = None
        self.why = ""
        self._wake: Optional[native.AnySignal] = None
        self._state = State.NEW
        self._life = process.life()
        self._mutex = native.mutex()

    @property
    def lease(self) -> float:
        return self.terms.lease_ms / 1000

    @property
    def state(self) -> State:
        return self._state if self._life == process.life() else State.FOREIGN

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def wake(self) -> native.AnySignal:
        """What wakes its waiter; most holds never have one."""
        with self._mutex:
            if self._wake is None:
                self._wake = native.waiters_signal()
            return self._wake

    @wake.setter
    def wake(self, signal: native.AnySignal) -> None:
        self._wake = signal

    @property
    def shown_fence(self) -> Optional[int]:
        """The fence, when it is certain that it only grows.

        May have to ask the lock servers; raises LockLost if it cannot become certain in time.
        """
        settle = self.settle_fence
        if settle is not None:
            settle(self)
        return self.fence

    def move(self, move: Move) -> State:
        """Make a move of the owner's; raises IllegalMove and changes nothing if there is none."""
        with self._mutex:
            self._state = after(self._state, move)
            return self._state

    def try_move(self, *moves: Move) -> bool:
        """Make the first of the moves that the table has; whether there was one."""
        if self.state is State.FOREIGN:
            return False
        with self._mutex:
            for move in moves:
                try:
                    self._state = after(self._state, move)
                except RuntimeError:
                    continue
                return True
        return False

    def renewal(self, lease_ms: int, kept: str = "") -> Renew:
        record = self.record.encode() if self.record_is_due else ""
        fence, until = self.fence or 0, self.trusted_until
        return Renew(self.resource, self.token, fence, lease_ms, kept, record, until)

    def first_renewal(self, fence: int) -> Renew:
        """What makes a grant of a moment a lease."""
        return Renew(self.resource, self.token, fence, self.terms.lease_ms)

    def granted(self, fence: int, trusted_until: float, now: float) -> None:
        with self._mutex:
            self._state = after(self._state, Move.GRANTED)
            self.fence = fence
            self.trusted_until = trusted_until
            self.held_since = now

    def adopted(self, fence: int, trusted_until: float, held_since: float, tainted: bool) -> None:
        """In one step from new to held: another process was granted it."""
        with self._mutex:
            self._state = after(after(self._state, Move.ASKED), Move.GRANTED)
            self.fence = fence
            self.trusted_until = trusted_until
            self.held_since = held_since
            self.tainted = tainted
            self.record_is_due = True

    def granted_again(self, fence: int, trusted_until: float) -> bool:
        """Note the answer to one more ask for what is held; whether it is the very same hold."""
        with self._mutex:
            if self._state not in LIVING or self.fence != fence:
                return False
            self.trusted_until = max(self.trusted_until, trusted_until)
            return True

    def extended(self, trusted_until: float, *, shorten: bool) -> None:
        """Note a lease that its owner asked for; nothing if the hold has ended meanwhile."""
        with self._mutex:
            if self._state in LIVING:
                self._state = after(self._state, Move.RENEWED)
                self.record_is_due = False
                self.settle_lease = None
                if shorten or trusted_until > self.trusted_until:
                    self.trusted_until = trusted_until

    def may_return(self) -> bool:
        """Whether a request may be sent that brings it back: not once its end has begun.

        From now on such a request may be under way, also after the release: that buries the token.
        """
        if self.state not in LIVING:
            return False
        with self._mutex:
            self.tainted = self.tainted or self._state in LIVING
            return self._state in LIVING

    def hear(self, message: Message, now: float) -> None:
        """Note what the server sends to who stands in line, and wake him."""
        if message.kind == "O":
            self.closed = True
        elif message.fence:
            self._heard = (message, now)
        self.wake.set()

    def granted_in_line(self, now: float) -> bool:
        """Whether a message has brought a grant that can be trusted; then it is held.

        Not one that nobody will renew: some of its time is over.
        """
        heard, (asked_at, placed_ms) = self._heard, self._placed
        if heard is None or not self.renew or self.closed:
            return False
        if not placed_ms or heard[0].at_ms < placed_ms:
            return False  # of an earlier stand in this line
        (_kind, _token, fence, granted_ms), heard_at = heard
        elapsed = (granted_ms - placed_ms) / 1000
        until = timing.granted_trust(asked_at, elapsed, heard_at, self.granted_for)
        if until - now < self.granted_for / 2:
            return False
        self.granted(fence, until, now)
        return True

    def place(self, queued: Queued, asked_at: float) -> bool:
        """Note the place in line, and when it was asked for; whether it has just joined."""
        with self._mutex:
            joins = self._state is State.ACQUIRING
            if joins:
                self._state = after(self._state, Move.BUSY)
            self.seq = queued.seq
            self.rank = queued.rank
            self._placed = (asked_at, queued.at_ms)
            if queued.holders:
                self.holders = queued.holders
                self.own_copies = tuple(filter(self._is_of_its_task, self.holders)) or (
                    self.own_copies
                )
            return joins

    def watched(self, move: Move, trusted_until: float = 0.0, why: str = "") -> bool:
        """Make a move of the watchdog's, if the hold is still alive; whether it was.

        An answer to a renewal that was under way when the body ended changes nothing.
        """
        if self._life != process.life():
            return False  # its mutex is the parent's, and may never be free again
        with self._mutex:
            if self._state not in LIVING:
                return False
            self._state = after(self._state, move)
            if trusted_until > self.trusted_until:
                self.trusted_until = trusted_until
            if why:
                self.why = why
            if move in _RENEWALS:
                self.record_is_due = False
                self.settle_lease = None
            return True

    def _is_of_its_task(self, seen: Seen) -> bool:
        record = Record.decode(seen.record) if self.record.task_id else None
        return record is not None and record.task_id == self.record.task_id

    def __repr__(self) -> str:
        # The token proves ownership and is never shown.
        return f"<Hold {self.resource} {self.state.value} fence={self.fence}>"
