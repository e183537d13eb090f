"""What several servers say of one resource, as one picture."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Dict, List, Sequence, Tuple

from celery_redlock.core.ports import Busy, HolderView, ResourceView, Seen, WaiterView
from celery_redlock.core.quorum import Tally, majority_of

#: Seconds after which one that has votes, perhaps a majority's, is taken for a holder: whoever only
#: tries has won or given back by then.
_SETTLED = 0.25

_MANY = 1024


class Contenders:
    """Tells holders from those who ask at the same time. Thread-safe."""

    def __init__(self) -> None:
        self._met: Dict[Tuple[str, str], float] = {}

    def among(
        self, resource: str, refusals: Sequence[Busy], ballot: Tally[Any]
    ) -> Tuple[Tuple[Seen, ...], bool]:
        """Whoever was in the way, the likeliest first; and whether that one holds it."""
        votes: Counter[str] = Counter()
        seen: Dict[str, Seen] = {}
        for refusal in refusals:
            for holder in refusal.holders:
                votes[holder.token] += 1
                known = seen.get(holder.token)
                # Not every server may have heard yet that it is kept, and no process's any more.
                if known is None or known.state != "kept":
                    seen[holder.token] = holder
        if not votes:
            return (), False
        ranked = sorted(votes, key=lambda token: (-votes[token], seen[token].fence))
        unheard = ballot.servers - len(ballot.yes) - len(ballot.no)
        best = votes[ranked[0]]
        is_held = best >= ballot.majority
        if not is_held and best + unheard >= ballot.majority:
            is_held = self._has_stayed(resource, ranked[0])
        return tuple(seen[token] for token in ranked), is_held

    def _has_stayed(self, resource: str, token: str) -> bool:
        now = time.monotonic()
        if len(self._met) > _MANY:
            self._met.clear()
        return now - self._met.setdefault((resource, token), now) > _SETTLED


def merged(views: Sequence[ResourceView], servers: int) -> ResourceView:
    """What a majority has, as far as the servers that answered can tell.

    A holder's lease ends when no majority has it any more.
    """
    needed = max(1, majority_of(servers) - (servers - len(views)))
    by_token: Dict[str, List[HolderView]] = {}
    for view in views:
        for holder in view.holders:
            by_token.setdefault(holder.token, []).append(holder)
    holders = [_holder(entries, needed) for entries in by_token.values() if len(entries) >= needed]
    forced = [view.forced for view in views if view.forced is not None]
    return ResourceView(
        fence=max((view.fence for view in views), default=0),
        holders=tuple(sorted(holders, key=lambda holder: holder.fence)),
        waiters=_waiters(views),
        forced=min(forced, key=lambda each: each.ago_ms, default=None),
    )


def _holder(entries: List[HolderView], needed: int) -> HolderView:
    by_end = sorted(entries, key=lambda entry: entry.remaining_ms, reverse=True)
    fence, times = Counter(entry.fence for entry in entries).most_common(1)[0]
    if times < needed:
        # Not written back yet: what it will be is not less than any of them.
        fence = max(entry.fence for entry in entries)
    return by_end[needed - 1]._replace(fence=fence)


def _waiters(views: Sequence[ResourceView]) -> Tuple[WaiterView, ...]:
    waiters: Dict[str, WaiterView] = {}
    for view in views:
        for waiter in view.waiters:
            known = waiters.get(waiter.token)
            if known is None or known.remaining_ms < waiter.remaining_ms:
                waiters[waiter.token] = waiter
    return tuple(sorted(waiters.values(), key=lambda waiter: (waiter.seq, waiter.token)))
