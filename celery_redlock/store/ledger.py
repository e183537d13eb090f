"""The rules of one resource, without a server: who holds it, who waits, who comes next.

The same rules as the scripts', in the same words. Everything here is pure computation on ``now``;
what is to be told to waiters is appended to ``messages`` for the caller to send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from celery_redlock.core import ports, timing
from celery_redlock.core.ports import Busy, Closed, Granted, Line, Queued, Terms
from celery_redlock.core.why import overflow_by, who_forced
from celery_redlock.store.holders import Holders
from celery_redlock.store.tombs import latest_forced

#: An inbox and what to put there.
Message = Tuple[str, str]


@dataclass
class Waiter:
    token: str
    seq: int
    deadline: int
    terms: Terms
    line: Line
    record: str


@dataclass
class Tombstone:
    expires: int
    why: str


class Ledger:
    """One resource. Times are ms of one clock; ``grace_until``: until then, an unknown resource is
    not granted, because its holders from before a restart come first."""

    def __init__(self, grace_until: int, fence_ttl: int, messages: List[Message]) -> None:
        self.fence = 0  # the last one that a grant issued
        self.revived = 0  # the greatest of a re-established hold
        self.holders = Holders()
        self.tombs: Dict[str, Tombstone] = {}
        self.forgotten_at = 0
        self._waiters: Dict[str, Waiter] = {}
        self._first: Optional[str] = None  # the head of the line, as far as it knows that it is
        self._line_ends = 0
        self._grace_until = grace_until
        self._fence_ttl = fence_ttl
        self._messages = messages

    @property
    def is_blank(self) -> bool:
        return not (self.fence or self.revived or self.holders or self.tombs or self._waiters)

    @property
    def line(self) -> List[Waiter]:
        return sorted(self._waiters.values(), key=lambda waiter: (waiter.seq, waiter.token))

    # --- requests -------------------------------------------------------------------------------

    def acquire(self, ask: ports.Acquire, now: int) -> ports.AcquireAnswer:
        self._begin(now)
        answer = self._acquire(ask, now)
        self._settle(ask.terms.lease_ms, now)
        return answer

    def leave(self, ask: ports.Leave, now: int) -> ports.Left:
        self._begin(now)
        found = [self._drop(token) for token in ask.tokens]
        for token in ask.tokens:
            # Also when nothing was found: the release may have overtaken the request.
            if ask.tomb_ms and token not in self.tombs:
                self._bury(token, ask.tomb_ms, ask.why, now)
        if "holder" in found and who_forced(ask.why) is not None:
            self._issue(now)
        self._pump(now)
        self._settle(ask.lease_ms, now)
        return ports.Left(found[0])

    def renew(self, ask: ports.Renew, now: int) -> ports.RenewAnswer:
        self._begin(now)
        own = self.holders.get(ask.token)
        if own is None or own.fence != ask.fence:
            tomb = self.tombs.get(ask.token)
            return Closed(tomb.why) if tomb else ports.Gone()
        self.holders.extend(own, ask.lease_ms, now)
        if ask.kept:
            own.state, own.kept = "kept", ask.kept
        own.record = ask.record or own.record
        self._settle(ask.lease_ms, now)
        return ports.Extended()

    def heartbeat(self, ask: ports.Beat, now: int, *, is_first: bool) -> ports.BeatAnswer:
        """``is_first``: of the beats of this call it is the first for this resource."""
        self._begin(now)
        waiter = self._waiters.get(ask.token)
        if waiter:
            waiter.deadline = now + ask.waiter_ttl_ms
        self._keep_line(ask.waiter_ttl_ms, now)
        self._pump(now)
        self._settle(0, now)
        if ask.token in self.holders:
            return ports.Confirm()
        if ask.token in self._waiters:
            place = self._place(ask.token, now)
            return place if is_first or not place.rank else place._replace(holders=())
        tomb = self.tombs.get(ask.token)
        return Closed(tomb.why) if tomb else ports.Unknown()

    def reestablish(self, ask: ports.Reestablish, now: int) -> ports.ReestablishAnswer:
        self._begin(now)
        if ask.token in self.tombs:
            return Closed(self.tombs[ask.token].why)
        own = self.holders.get(ask.token)
        if own and own.fence != ask.fence:
            # A late copy of the request made another grant of it, after a rival's.
            return ports.Refused()
        if own:
            self.holders.extend(own, ask.terms.lease_ms, now)
        elif self._may_return(ask, now):
            # Not ``fence``: with a limit above 1, those who return would refuse each other.
            self.revived = max(self.revived, ask.fence)
            self.holders.enter(ask.token, ask.terms, ask.fence, "confirmed", ask.record, now)
        else:
            return ports.Refused()
        self._settle(ask.terms.lease_ms, now)
        return ports.Extended()

    def view(self, now: int) -> ports.ResourceView:
        self._begin(now)
        holders = sorted(self.holders.values(), key=lambda holder: holder.fence)
        return ports.ResourceView(
            self.fence,
            tuple(
                ports.HolderView(
                    h.token, h.fence, h.mode, h.limit, h.state, h.deadline - now, h.record
                )
                for h in holders
            ),
            tuple(ports.WaiterView(w.token, w.seq, w.deadline - now, w.record) for w in self.line),
            latest_forced((tomb.expires - now, tomb.why) for tomb in self.tombs.values()),
        )

    # --- an acquire, step by step ---------------------------------------------------------------

    def _acquire(self, ask: ports.Acquire, now: int) -> ports.AcquireAnswer:
        for orphan in ask.orphans:
            self._drop(orphan)
            self._bury(orphan, timing.LATE_MS, "replaced", now)
        if ask.token in self.tombs:
            self._pump(now)
            return Closed(self.tombs[ask.token].why)
        is_new = bool(ask.kept) and self.holders.hand_kept(ask.kept, ask.token, ask.record)
        if is_new:
            self._waiters.pop(ask.token, None)
            self._first = None  # the head of the line is to know him
        own = self.holders.get(ask.token)
        if own:
            self.holders.extend(own, ask.terms.lease_ms, now)
            if ask.terms.limit > 1 or ask.terms.mode == "shared" or ask.orphans or is_new:
                # A head that fits would otherwise wait for a heartbeat.
                self._pump(now)
            return Granted(own.fence)
        return self._ask_line(ask, now)

    def _ask_line(self, ask: ports.Acquire, now: int) -> ports.AcquireAnswer:
        waiter = self._waiters.get(ask.token)
        if waiter and ask.line:
            # Before the pump: a waiter that is just asking is alive.
            waiter.terms, waiter.line, waiter.record = ask.terms, ask.line, ask.record
            waiter.deadline = now + ask.line.waiter_ttl_ms
        self._pump(now)
        granted = self._confirmed(ask, now)
        if granted:
            return granted
        if not self._waiters:
            fence = self._grant(ask.token, ask.terms, "confirmed", ask.record, now)
            if fence:
                return Granted(fence)
        if ask.token in self._waiters:
            self._keep_line(ask.line.waiter_ttl_ms if ask.line else 0, now)
            return self._place(ask.token, now)
        return self._join(ask, ask.line, now) if ask.line else self._busy(now)

    def _join(self, ask: ports.Acquire, line: Line, now: int) -> ports.AcquireAnswer:
        dropped = False
        # Who comes back to an earlier place is no newcomer, and is not refused for want of one.
        is_bounded = line.max_waiting and not (line.seq and line.overflow == "skip")
        if is_bounded and len(self._waiters) >= line.max_waiting:
            self._drop_dead_waiters(now)
            while len(self._waiters) >= line.max_waiting:
                if line.overflow == "skip":
                    return self._busy(now, full=True)
                if 0 < line.seq <= self.line[0].seq:
                    # Newer ones have come meanwhile: it is the oldest itself.
                    self._bury(ask.token, timing.LATE_MS, overflow_by(self.line[-1].record), now)
                    self._pump(now)
                    return Closed(self.tombs[ask.token].why)
                self._overflow(ask.record, now)
                dropped = True
        if not self._waiters:
            self._line_ends = 0
        last = max((waiter.seq for waiter in self._waiters.values()), default=0)
        seq = line.seq or max(now * 1000, last + 1)
        deadline = now + line.waiter_ttl_ms
        waiter = Waiter(ask.token, seq, deadline, ask.terms, line, ask.record)
        self._waiters[ask.token] = waiter
        self._keep_line(line.waiter_ttl_ms, now)
        in_front = len(self._waiters) > 1 and self.line[0] is waiter
        if dropped or in_front:
            # The head that did not fit is no longer the head.
            self._pump(now)
        return self._confirmed(ask, now) or self._place(ask.token, now)

    def _confirmed(self, ask: ports.Acquire, now: int) -> Optional[Granted]:
        own = self.holders.get(ask.token)
        if own is None:
            return None
        self.holders.extend(own, ask.terms.lease_ms, now)
        return Granted(own.fence)

    def _overflow(self, newcomer: str, now: int) -> None:
        oldest = self.line[0]
        self._drop(oldest.token)
        self._bury(oldest.token, timing.LATE_MS, overflow_by(newcomer), now)
        self._messages.append((oldest.line.inbox, f"O {oldest.token}"))

    # --- grants ---------------------------------------------------------------------------------

    def _pump(self, now: int) -> None:
        """Let the line move: its head is granted while it fits. Nobody is skipped.

        Who is granted is told all that he needs to begin; who is the head from now on, that he is.
        """
        for waiter in self.line:
            if waiter.deadline > now:
                terms = Terms(waiter.terms.mode, waiter.terms.limit, waiter.line.grant_ttl_ms)
                fence = self._grant(waiter.token, terms, "granted", waiter.record, now)
                if not fence:
                    if waiter.token != self._first:
                        self._messages.append((waiter.line.inbox, f"H {waiter.token}"))
                    self._first = waiter.token
                    return
                self._messages.append((waiter.line.inbox, f"G {waiter.token} {fence} {now}"))
            del self._waiters[waiter.token]

    def _grant(self, token: str, terms: Terms, state: str, record: str, now: int) -> int:
        """The new fence, or 0 if there is no room."""
        if self.fence == 0 and now < self._grace_until:
            return 0
        evicted = self.holders.room(terms, now)
        if evicted is None:
            return 0
        for ghost in evicted:
            del self.holders[ghost.token]
        self._issue(now)
        self.holders.enter(token, terms, self.fence, state, record, now)
        return self.fence

    def _issue(self, now: int) -> None:
        self.fence = max(self.fence + 1, self.revived + 1, now * 1000)

    def _may_return(self, ask: ports.Reestablish, now: int) -> bool:
        if self.fence == 0 and not (ask.trusted and now < self._grace_until):
            # Restarted empty: who held meanwhile is unknown, but during the grace nobody new did.
            return False
        return self.fence <= ask.fence and self.holders.room(ask.terms, now) == []

    # --- entries --------------------------------------------------------------------------------

    def _keep_line(self, ttl_ms: int, now: int) -> None:
        # Never less than before: another waiter may be silent for longer.
        self._line_ends = max(self._line_ends, now + 2 * ttl_ms)

    def _drop(self, token: str) -> str:
        held = self.holders.pop(token, None)
        waited = self._waiters.pop(token, None)
        return "holder" if held else "waiter" if waited else "absent"

    def _bury(self, token: str, tomb_ms: int, why: str, now: int) -> None:
        self.tombs[token] = Tombstone(now + tomb_ms, why)

    def _drop_dead_waiters(self, now: int) -> None:
        self._waiters = {t: w for t, w in self._waiters.items() if w.deadline > now}

    # --- answers --------------------------------------------------------------------------------

    def _place(self, token: str, now: int) -> Queued:
        rank = [waiter.token for waiter in self.line].index(token)
        seq = self._waiters[token].seq
        holders = self.holders.seen(now)
        return Queued(seq, rank, self._next_ms(now), holders[:1] if rank else holders, now)

    def _busy(self, now: int, full: bool = False) -> Busy:
        return Busy(self._next_ms(now), self.holders.seen(now), full, len(self._waiters))

    def _next_ms(self, now: int) -> int:
        ends = [holder.deadline - now for holder in self.holders.live(now)]
        return min(ends) if ends else max(0, self._grace_until - now)

    # --- forgetting -----------------------------------------------------------------------------

    def _begin(self, now: int) -> None:
        if self.forgotten_at and now >= self.forgotten_at:
            self.fence = self.revived = 0
            self.holders.clear()
            self.tombs.clear()
        if now >= self._line_ends:
            self._waiters.clear()
        self.tombs = {token: t for token, t in self.tombs.items() if t.expires > now}
        self._first = next((waiter.token for waiter in self.line), None)

    def _settle(self, lease_ms: int, now: int) -> None:
        """Say when what is left may be forgotten: of a free resource only fences are left."""
        ends = [holder.deadline for holder in self.holders.values()]
        ends += [tomb.expires for tomb in self.tombs.values()]
        keep = max(self._fence_ttl, timing.to_ms(timing.keep_for(lease_ms / 1000)))
        self.forgotten_at = max(ends, default=now) + keep
