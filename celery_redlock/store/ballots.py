"""Requests to one of several independent servers, as bytes.

The entry of a holder is the same as on a single server. There is no line that grants: beside the
hash of holders, ``P{R}:n`` and ``P{R}:m`` say who wants to be woken.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

from celery_redlock.core.ports import Acquire, Leave, Renew
from celery_redlock.store.frames import ACQUIRE, INSPECT, Frames
from celery_redlock.store.scripts import Script

RAISE = Script("raise")
WITHDRAW = Script("withdraw")
EXPECT = Script("expect")
GIVE_BACK = Script("give_back")

SCRIPTS = (ACQUIRE, INSPECT, RAISE, WITHDRAW, EXPECT, GIVE_BACK)


class Ballots(Frames):
    """Thread-safe."""

    def vote(self, request: Acquire) -> bytes:
        # Never in line: a server that granted it to whoever is next would vote without being asked.
        return self.acquire(request._replace(line=None), "0")

    def give_back(self, resource: str, token: str, fence: int) -> bytes:
        return GIVE_BACK.frame(1, (self.keys(resource)[0], token, str(fence)))

    def withdraw(self, request: Leave, tomb_ms: int) -> bytes:
        keys = self.waking_keys(request.resource)
        arguments = (str(tomb_ms), self._keep(request.lease_ms), request.why, *request.tokens)
        return WITHDRAW.frame(3, (*keys, *arguments))

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
