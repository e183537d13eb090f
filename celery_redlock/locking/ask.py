"""One ask for one resource or several, from the first request to all held, or none.

Several are asked for in one call, in an order that is the same for everybody. In line for one of
them, an ask holds those before it and nothing after it: what it holds is always below what it
awaits, so that no two wait for one another. Each further call names them all again: what it holds
is confirmed by it, and it goes on from where it stood.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Dict, FrozenSet, Generator, Optional, Sequence, Tuple

from celery_redlock.core import events, timing
from celery_redlock.core.lifecycle import LIVING, Move
from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Busy,
    Closed,
    Granted,
    Leave,
    Line,
    NoAnswer,
    Queued,
    ResourceView,
    Seen,
    WaiterView,
)
from celery_redlock.core.record import Record
from celery_redlock.core.timing import LATE_MS
from celery_redlock.exceptions import LockLost
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Dropped, GaveUp, Held, Outcome, Patience, Taken, longest
from celery_redlock.locking.steps import (
    Bury,
    Look,
    Part,
    Pause,
    Ready,
    Reply,
    Send,
    Stand,
    Step,
    Steps,
    in_place,
)

if TYPE_CHECKING:
    from celery_redlock.locking.manager import Manager

#: Seconds between two tries of a waiter while the server is away, from the first to the longest.
_AWAY = (0.1, 1.0)

#: Seconds between two looks around of who stands in line: the head looks whether a holder of its
#: host is dead, whose place is to be taken within a second.
_LOOK_AROUND = 0.75

#: So many waiters are buried in one call: more would stall the server's other clients.
_AT_ONCE = 100

#: Seconds after which a retry looks for the first time whether its hold was kept meanwhile.
_LOOK_FOR_KEPT = 0.02

#: Why a token is dead that its own process took leave of.
_LEFT = "left"

#: What a call says, and which hold that is about: the first that is not granted, or the last.
Said = Tuple[Hold, AcquireAnswer]
Asking = Generator[Step, Any, Said]


class Ask:
    """Used once. Whatever it raises, its holds are the caller's to abandon.

    ``polls``: in line it asks by itself now and then, also when nobody has woken it: should the
    watchdog be stuck, that keeps its place. Otherwise it asks when it is told to alone, since what
    it is granted then needs a slot. ``began`` is when the wait began that this ask continues.
    """

    def __init__(
        self,
        manager: Manager,
        holds: Sequence[Hold],
        patience: Optional[Patience],
        *,
        polls: bool = True,
        began: Optional[float] = None,
    ) -> None:
        self._manager = manager
        self._holds = holds
        self._patience = patience
        self._polls = polls
        self._began = manager.clock() if began is None else began
        #: When the request was sent whose answer came last.
        self._asked_at = self._began
        self._buried: Tuple[str, ...] = ()
        #: Tokens of holders that were dead when it looked around last.
        self._seen_dead: FrozenSet[str] = frozenset()
        #: Tokens of bodies that are over, whose release did not come through, by resource.
        self._left_behind: Dict[str, Tuple[str, ...]] = {}
        if polls and len(holds) == 1:
            # A thread is blocked that takes it as soon as it is woken: for good, and not for the
            # moment that it may take a slot to be found.
            holds[0].granted_for = holds[0].lease

    def outcome(self) -> Outcome:
        """All of them held, or why none is. Raises NoAnswer, and LockLost as Manager says."""
        return in_place(self._manager, self.steps())

    def steps(self) -> Steps:
        """The same for whoever takes the steps."""
        send = self._send()
        hold, answer = self._read(send, (yield send))
        if not isinstance(answer, Granted):
            hold, answer = yield from self._without_obstacles(hold, answer)
            if isinstance(answer, Queued):
                hold, answer = yield from self._wait(hold, answer, self._patience or Patience())
        if isinstance(answer, Granted):
            return self._held()
        return (yield from self._not_held(hold, answer))

    # --- calls

    def _without_obstacles(self, hold: Hold, answer: AcquireAnswer) -> Asking:
        """The reply, with no dead holder in the way and the grace of a restarted server over."""
        while True:
            if not (yield from self._reclaims(hold, answer)):
                if not isinstance(answer, Busy) or answer.holders or answer.full or answer.waiting:
                    return hold, answer
                pause = min(answer.next_ms / 1000, self._left(answer.next_ms / 1000))
                if pause <= 0:
                    return hold, answer
                yield Pause(hold, pause)
            send = self._send()
            hold, answer = self._read(send, (yield send))

    def _send(self) -> Send:
        return Send(self._holds, [self._request(hold) for hold in self._holds])

    def _read(self, send: Send, reply: Reply) -> Said:
        answers, sent_at = reply
        self._asked_at = sent_at
        if isinstance(answers[-1], (Granted, Queued)):
            for hold, answer in zip(self._holds, answers):
                if isinstance(answer, Granted):
                    self._granted(hold, answer, sent_at)
        for request, _answer in zip(send.requests, answers):
            if request.orphans:
                self._manager.abandoned.cleared(request.orphans)
        return self._holds[len(answers) - 1], answers[-1]

    def _request(self, hold: Hold) -> Acquire:
        manager, patience, line = self._manager, self._patience, None
        if patience:
            line = _line(
                manager.wakeups.inbox,
                hold.lease,
                hold.granted_for,
                patience.max_waiting,
                patience.overflow,
                hold.seq,
            )
        return Acquire(
            hold.resource,
            hold.token,
            hold.terms,
            hold.record.encode(),
            line,
            hold.kept,
            manager.abandoned.tokens_of(hold.resource) + self._left_behind.get(hold.resource, ()),
        )

    def _granted(self, hold: Hold, answer: Granted, sent_at: float) -> None:
        manager, fence = self._manager, answer.fence
        if not answer.is_settled:
            hold.settle_fence = manager.settle_fence
        until = timing.trusted_until(sent_at, hold.lease)
        if hold.fence is not None:
            # Held since an earlier reply, while another resource was awaited.
            if not hold.granted_again(fence, until):
                raise LockLost(hold.resource, hold.fence)
            return
        hold.granted(fence, until, manager.clock())
        self._begin(hold)

    def _begin(self, hold: Hold) -> None:
        """It is held from now on."""
        manager = self._manager
        manager.watchdog.attend_no_more(hold)
        manager.watchdog.watch(hold)
        fence, waited = hold.fence or 0, hold.held_since - self._began
        queued = hold.seq > 0
        manager.emit(events.Acquired(hold.resource, fence, hold.record, waited, queued))

    # --- the dead

    def _reclaims(self, hold: Hold, answer: AcquireAnswer) -> Generator[Step, Any, bool]:
        """End the holds of the dead that are in the way; whether there were any."""
        if not isinstance(answer, (Busy, Queued)):
            return False
        known = self._left_behind.get(hold.resource, ())
        found = tuple(
            seen.token
            for seen in answer.holders
            # What is kept over a retry belongs to no body.
            if seen.state != "kept" and self._manager.is_over(seen.token)
            if seen.token not in known
        )
        self._left_behind[hold.resource] = known + found
        return bool(found) or (yield from self._bury_dead(hold, answer.holders))

    def _bury_dead(self, hold: Hold, holders: Sequence[Seen]) -> Generator[Step, Any, bool]:
        """Each is named by the token that was seen, so that nobody else's hold is ended."""
        dead = [seen for seen in holders if self._is_dead(seen)]
        for seen in dead:
            tokens, lease_ms = (seen.token,), hold.terms.lease_ms
            left = yield Bury(Leave(hold.resource, tokens, LATE_MS, "dead", lease_ms=lease_ms))
            self._buried += (seen.token,)
            if left.what == "holder":
                late = longest((seen,))
                self._manager.emit(events.Reclaimed(hold.resource, hold.record, late))
        return bool(dead)

    def _bury_waiters(
        self, hold: Hold, waiters: Sequence[WaiterView]
    ) -> Generator[Step, Any, None]:
        """Who is dead is not to be granted it next."""
        others = [waiter for waiter in waiters if waiter.token != hold.token]
        dead = [waiter.token for waiter in others if self._is_of_dead(waiter.record)]
        for start in range(0, len(dead), _AT_ONCE):
            tokens, lease_ms = tuple(dead[start : start + _AT_ONCE]), hold.terms.lease_ms
            yield Bury(Leave(hold.resource, tokens, LATE_MS, "dead", lease_ms=lease_ms))

    def _is_dead(self, seen: Seen) -> bool:
        # What is kept over a retry belongs to no process.
        is_anybodys = seen.state != "kept" and seen.token not in self._buried
        return is_anybodys and self._is_of_dead(seen.record)

    def _is_of_dead(self, record: str) -> bool:
        owner = Record.decode(record)
        return owner is not None and self._manager.proof(owner)

    def _sees_dead(self, hold: Hold) -> bool:
        """Whether a holder is dead whom it is to bury, as far as it knows.

        The head of the line does so at once. Another does if it sees him dead once more: the head
        is dead as well, then.
        """
        if hold.rank > 0 and not hold.is_lookout:
            return False
        seen_before = self._seen_dead
        self._seen_dead = frozenset(seen.token for seen in hold.holders if self._is_dead(seen))
        return bool(self._seen_dead if hold.rank == 0 else self._seen_dead & seen_before)

    # --- waiting

    def _wait(self, hold: Hold, queued: Queued, patience: Patience) -> Asking:
        """The reply that ends the wait; Queued when the patience is over."""
        answer: AcquireAnswer = queued
        away = _AWAY[0]
        try:
            self._stand(hold, queued)
            pause = self._until_next(hold)
            while isinstance(answer, Queued):
                left = self._left(math.inf)
                if left <= 0:
                    break
                woken = yield Stand(hold, min(pause, left))
                if woken and self._is_granted(hold):
                    return hold, Granted(hold.fence or 0)
                if not woken and not (self._polls and (away > _AWAY[0] or self._is_to_ask(hold))):
                    yield from self._look_around(hold, patience)
                    pause = self._until_next(hold)
                    continue
                if not hold.closed:
                    # Of one that is closed it only hears why: that is granted nothing.
                    yield Ready(hold)
                try:
                    send = self._send()
                    hold, answer = self._read(send, (yield send))
                    if (yield from self._reclaims(hold, answer)):
                        send = self._send()
                        hold, answer = self._read(send, (yield send))
                except NoAnswer as silence:
                    if not patience.rides_out:
                        raise
                    if away == _AWAY[0]:
                        self._manager.emit(_waits_on(hold, silence))
                    pause, away = away, min(2 * away, _AWAY[1])
                    continue
                if isinstance(answer, Queued):
                    self._stand(hold, answer)
                pause, away = self._until_next(hold), _AWAY[0]
            return hold, answer
        finally:
            for each in self._holds:
                self._manager.wakeups.forget(each)
                self._manager.watchdog.attend_no_more(each)

    def _is_granted(self, hold: Hold) -> bool:
        """Whether it was woken by a grant that is all that it waits for: nothing is asked then."""
        if len(self._holds) > 1 or not hold.granted_in_line(self._manager.clock()):
            return False
        if hold.granted_for < hold.lease:
            hold.settle_lease = self._manager.settle_lease
        self._begin(hold)
        return True

    def _look_around(self, hold: Hold, patience: Patience) -> Generator[Step, Any, None]:
        """What it does now and then, and asks for nothing."""
        for each in self._holds[: self._holds.index(hold)]:
            if each.state not in LIVING:
                raise LockLost(each.resource, each.fence)
        if hold.silence is not None and not patience.rides_out:
            raise hold.silence
        try:
            if self._sees_dead(hold):
                # The hold may be kept over a retry by now, or another's.
                view: ResourceView = yield Look(hold.resource)
                hold.holders = tuple(each.seen for each in view.holders if each.remaining_ms > 0)
                yield from self._bury_waiters(hold, view.waiters)
                yield from self._bury_dead(hold, hold.holders)
        except NoAnswer:
            if not patience.rides_out:
                raise
        if hold.kept and self._is_to_ask(hold):
            hold.wake.set()  # only an ask would tell that it was kept meanwhile

    def _stand(self, hold: Hold, queued: Queued) -> None:
        """Be in line: keep the place, and hear when it is granted."""
        rejoins = hold.seq > 0
        joins = hold.place(queued, self._asked_at)
        # In this order: an inbox that opens has the watchdog ask about every waiter it attends to.
        self._manager.watchdog.attend(hold, queued)
        if joins:
            self._manager.wakeups.expect(hold)
        if joins and not rejoins:
            holder = longest(hold.holders)
            self._manager.emit(events.Waiting(hold.resource, hold.record, queued.rank, holder))

    def _until_next(self, hold: Hold) -> float:
        """Seconds until it looks around or asks, if nobody wakes it."""
        if not (self._polls or hold.kept):
            return _LOOK_AROUND
        return min(_LOOK_AROUND, max(0.0, self._asks_at(hold) - self._manager.clock()))

    def _is_to_ask(self, hold: Hold) -> bool:
        return self._manager.clock() >= self._asks_at(hold)

    def _asks_at(self, hold: Hold) -> float:
        """When it is to ask, though nobody has woken it.

        A retry may come before the body that published it has ended and kept the hold for it, of
        which the server tells nobody: it looks for that at once, and ever more seldom.
        """
        pause = 2 * timing.heartbeat_every(hold.lease)
        if hold.kept:
            pause = min(pause, max(_LOOK_FOR_KEPT, (self._asked_at - self._began) / 4))
        return self._asked_at + pause

    def _left(self, unbounded: float) -> float:
        """Seconds of patience that are left; ``unbounded`` if it has no end."""
        if self._patience is None or self._patience.until is None:
            return unbounded
        return self._patience.until - self._manager.clock()

    # --- the end of it

    def _held(self) -> Held:
        manager = self._manager
        for hold in self._holds:
            if hold.state not in LIVING:
                raise LockLost(hold.resource, hold.fence)
            if hold.max_hold is not None:
                # From now on: what was held while another was awaited does not count.
                hold.renew_until = manager.clock() + hold.max_hold
                manager.watchdog.watch(hold)
        return Held(tuple(self._holds))

    def _not_held(self, hold: Hold, answer: AcquireAnswer) -> Steps:
        manager, waited = self._manager, self._manager.clock() - self._began
        if isinstance(answer, Queued):
            # A grant that races this is passed on by the server.
            yield Part(self._holds)
            holder = longest(hold.holders)
            manager.emit(events.TimedOut(hold.resource, hold.record, holder, waited))
            return GaveUp(hold.resource, hold.holders, waited)
        if isinstance(answer, Closed):
            if answer.why == _LEFT and hold.fence is not None:
                # Held until the watchdog, in between, took leave of it as lost.
                raise LockLost(hold.resource, hold.fence)
            outcome: Outcome = Dropped(hold.resource, answer.why)
        else:
            assert isinstance(answer, Busy)
            outcome = Taken(hold.resource, answer.holders, answer.waiting, answer.full)
        for each in self._holds:
            # With this one the server has refused all that was asked for with it.
            each.is_let_go = True
            # Of the others a copy of the ask is unaccounted for and may still be granted.
            if not each.tainted:
                each.try_move(Move.REPLACED, Move.REFUSED)
        yield Part(self._holds)
        return outcome


def _waits_on(hold: Hold, silence: NoAnswer) -> events.Unavailable:
    return events.Unavailable(hold.resource, hold.record, silence.servers, "wait")


@lru_cache(maxsize=256)
def _line(
    inbox: str, lease: float, granted_for: float, max_waiting: int, overflow: str, seq: int
) -> Line:
    return Line(
        inbox=inbox,
        waiter_ttl_ms=timing.to_ms(timing.waiter_ttl(lease)),
        grant_ttl_ms=timing.to_ms(granted_for),
        seq=seq,
        max_waiting=max_waiting,
        overflow=overflow,
    )
