"""Who holds one resource, and whether one more fits: the rules of room, on ``now``.

A holder past its deadline is a ghost: it blocks nobody, but stays until a grant needs its room.
Live holders and ghosts together always satisfy everybody's limit and mode, so reviving a ghost is
always safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from celery_redlock.core.ports import Seen, Terms


@dataclass
class Holder:
    token: str
    deadline: int
    fence: int
    mode: str
    limit: int
    state: str  # "granted", "confirmed" or "kept"
    record: str
    kept: str = ""


class Holders(Dict[str, Holder]):
    """The holders of one resource by token, ghosts included."""

    def enter(
        self, token: str, terms: Terms, fence: int, state: str, record: str, now: int
    ) -> None:
        self[token] = Holder(
            token, now + terms.lease_ms, fence, terms.mode, terms.limit, state, record
        )

    def extend(self, holder: Holder, lease_ms: int, now: int) -> None:
        # Never shorter: a late short renewal must not cut a long lease.
        holder.deadline = max(holder.deadline, now + lease_ms)
        if holder.state == "granted":
            holder.state = "confirmed"

    def hand_kept(self, kept: str, token: str, record: str) -> bool:
        """Give the hold kept under this name to ``token``, with its fence, if there is one."""
        held = next((holder for holder in self.values() if holder.kept == kept), None)
        if held is None or token in self:
            return False
        del self[held.token]
        held.token, held.record = token, record
        held.state, held.kept = "confirmed", ""
        self[token] = held
        return True

    def live(self, now: int) -> List[Holder]:
        """The longest, which has the smallest fence, first."""
        live = [holder for holder in self.values() if holder.deadline > now]
        return sorted(live, key=lambda holder: holder.fence)

    def seen(self, now: int) -> Tuple[Seen, ...]:
        return tuple(Seen(h.token, h.fence, h.state, h.record) for h in self.live(now))

    def room(self, terms: Terms, now: int) -> Optional[List[Holder]]:
        """The ghosts to evict before one more fits; None: the live ones leave no room.

        The smallest limit among the holders and the requester counts. The oldest ghosts go first.
        """
        live = self.live(now)
        if not _fits(live, terms):
            return None
        ghosts = [holder for holder in self.values() if holder.deadline <= now]
        ghosts.sort(key=lambda ghost: (ghost.deadline, ghost.fence))
        evicted: List[Holder] = []
        while not _fits(live + ghosts, terms):
            evicted.append(ghosts.pop(0))
        return evicted


def _fits(holders: List[Holder], terms: Terms) -> bool:
    if any(holder.mode != terms.mode for holder in holders):
        return False
    smallest = min([terms.limit, *(holder.limit for holder in holders)])
    return terms.mode == "shared" or len(holders) < smallest
