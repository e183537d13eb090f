"""What this process knows of one token at each server."""

from __future__ import annotations

import time
from typing import Dict, Iterable, Set

from celery_redlock.core.ports import Acquire
from celery_redlock.store.wire import Wire


class Trust:
    """Until when a hold is trusted, and which servers were seen to have it while it was: ``sure``.

    Nobody else can have been granted it until then. Later a rival may have held and released it
    before an ask that was long under way gets its vote: counted, that would bring the hold back.
    """

    __slots__ = ("sure", "trusted_until")

    def __init__(self, trusted_until: float, sure: Iterable[int] = ()) -> None:
        self.trusted_until = trusted_until
        self.sure = set(sure)

    def has_lapsed(self) -> bool:
        return time.monotonic() >= self.trusted_until

    def lasts(self, until: float) -> None:
        self.trusted_until = max(self.trusted_until, until)

    def doubts(self, server: int) -> bool:
        """Whether what a server says now may be of a vote that came after a rival's hold."""
        return self.has_lapsed() and server not in self.sure

    def says_yes(self, server: int) -> bool:
        """Note that a server has its entry; whether that counts."""
        if self.doubts(server):
            return False
        self.sure.add(server)
        return True

    def says_no(self, server: int) -> None:
        self.sure.discard(server)


class Claim:
    """One token's, by server number. Changed by whoever reads an answer, in single atomic steps.

    ``votes``: the fences that were given. ``asked``: asks without an answer so far, and on which
    connection: a release behind one, on the same, cannot be overtaken by it. ``tainted``: of an ask
    here the answer is missing for good: it may run at any time. ``returning``: fences that are
    being given back; being granted the same once more is no vote, for it is about to be dropped.
    ``without``: those that a renewal found to have nothing of it.
    """

    __slots__ = (
        "asked",
        "fence",
        "is_closed",
        "is_over",
        "request",
        "returning",
        "tainted",
        "trust",
        "votes",
        "without",
    )

    def __init__(self, request: Acquire) -> None:
        self.request = request
        self.votes: Dict[int, int] = {}
        self.asked: Dict[int, Wire] = {}
        self.tainted: Set[int] = set()
        self.returning: Dict[int, int] = {}
        self.without: Set[int] = set()
        #: That of the majority; 0 while there is none.
        self.fence = 0
        self.trust = Trust(0.0)
        #: The last try came to nothing: what is granted from now on is given back.
        self.is_over = False
        #: The token has been left, also at servers that have not answered yet.
        self.is_closed = False

    @property
    def is_held(self) -> bool:
        return bool(self.fence) and not self.trust.has_lapsed()

    @property
    def is_gone(self) -> bool:
        """Whether the last try came to nothing and no server has anything of it."""
        return self.is_over and not (self.votes or self.asked or self.returning)

    def ask_on(self, server: int, wire: Wire) -> None:
        """Note an ask, before it is sent."""
        if self.asked.get(server, wire) is not wire:
            self.tainted.add(server)
        self.asked[server] = wire
        self.without.discard(server)

    def may_be_at(self, server: int) -> bool:
        return (
            server in self.votes
            or server in self.asked
            or server in self.tainted
            or server in self.returning
        )

    def needs_tomb(self, server: int, wire: Wire) -> bool:
        """Whether an ask may run after a release that goes out on this connection."""
        return server in self.tainted or self.asked.get(server, wire) is not wire

    def given(self, server: int, fence: int) -> str:
        """What a server has given the hold of this fence, as text."""
        if fence != self.fence:
            return "another hold"
        return str(self.votes.get(server, ""))
