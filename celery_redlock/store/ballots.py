"""Requests to one of several independent servers, as bytes.

The entry of a holder is the same as on a single server. There is no line that grants: beside the
hash of holders, ``P{R}:n`` and ``P{R}:m`` say who wants to be woken.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, Sequence, Tuple

from celery_redlock.core.ports import Acquire, Leave, Renew, Terms
from celery_redlock.core.timing import LATE_MS
from celery_redlock.store.frames import INSPECT, KEPT_PARTS, MODE, Frames
from celery_redlock.store.scripts import Script, bulk

VOTE = Script("vote")
RAISE = Script("raise")
WITHDRAW = Script("withdraw")
EXPECT = Script("expect")
GIVE_BACK = Script("give_back")

SCRIPTS = (VOTE, INSPECT, RAISE, WITHDRAW, EXPECT, GIVE_BACK)


class Ballots(Frames):
    """Thread-safe."""

    def __init__(self, prefix: str, fence_ttl: float) -> None:
        super().__init__(prefix, fence_ttl)
        self._vote_part = lru_cache(KEPT_PARTS)(self._make_vote_part)
        self._withdraw_part = lru_cache(KEPT_PARTS)(self._make_withdraw_part)

    def vote(self, request: Acquire) -> bytes:
        resource, token, terms, record, _line, kept, orphans = request
        left_behind = (str(LATE_MS), kept, *orphans) if kept or orphans else ()
        part = self._vote_part(resource, terms, len(left_behind))
        return f"{part}{bulk(token, record, *left_behind)}".encode()

    def give_back(self, resource: str, token: str, fence: int) -> bytes:
        return GIVE_BACK.frame(1, (self.keys(resource)[0], token, str(fence)))

    def withdraw(self, request: Leave, tomb_ms: int) -> bytes:
        resource, tokens, _tomb_ms, why, lease_ms = request
        part = self._withdraw_part(resource, tomb_ms, why, lease_ms, len(tokens))
        return f"{part}{bulk(*tokens)}".encode()

    def write_back(self, requests: Sequence[Renew], given: Sequence[str]) -> bytes:
        """``given``: the fence that this server had given each, or "" where it is not known."""
        arguments: List[str] = [self.keys(request.resource)[0] for request in requests]
        arguments.append(self._keep(max(request.lease_ms for request in requests)))
        for request, fence in zip(requests, given):
            lease_ms, majoritys = str(request.lease_ms), str(request.fence)
            arguments += (
                request.token,
                lease_ms,
                majoritys,
                fence,
                request.kept,
                request.record,
            )
        return RAISE.frame(len(requests), arguments)

    def expect(self, request: Acquire, since: int) -> bytes:
        line = request.line
        assert line is not None
        keys = self.waking_keys(request.resource)
        channel, wait = self.channel(line.inbox), str(line.waiter_ttl_ms)
        return EXPECT.frame(3, (*keys, request.token, str(since), wait, channel, request.record))

    def look(self, resource: str) -> bytes:
        """As ``inspect``, with those to be woken in the place of the line."""
        return INSPECT.frame(3, self.waking_keys(resource))

    def waking_keys(self, resource: str) -> Tuple[str, str, str]:
        holders = self.keys(resource)[0]
        return holders, holders[:-1] + "n", holders[:-1] + "m"

    def _make_vote_part(self, resource: str, terms: Terms, left_behind: int) -> str:
        lease_ms, key = terms.lease_ms, self.keys(resource)[0]
        lives_ms = lease_ms + int(self._keep(lease_ms))
        arguments = (str(lease_ms), str(lives_ms), MODE[terms.mode], str(terms.limit))
        return VOTE.head(1, 6 + left_behind) + bulk(key, *arguments)

    def _make_withdraw_part(
        self, resource: str, tomb_ms: int, why: str, lease_ms: int, tokens: int
    ) -> str:
        arguments = (str(tomb_ms), self._keep(lease_ms), why)
        return WITHDRAW.head(3, 3 + tokens) + bulk(*self.waking_keys(resource), *arguments)
