"""Requests as the bytes that one server reads.

Four names are fixed on the server: for a resource R under prefix P, its keys are ``P{R}:h``,
``P{R}:q`` and ``P{R}:w`` (one hash tag: one slot of a cluster), an inbox is the channel
``Pinbox:<id>``.

Making twenty small arguments into a request is most of what a client spends on a lock, so what does
not change from ask to ask of a resource is made once and kept for the resources lately asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, Optional, Sequence, Tuple

from celery_redlock.core.ports import Acquire, Beat, Leave, Line, Reestablish, Renew, Terms
from celery_redlock.core.timing import LATE_MS, keep_for
from celery_redlock.store.scripts import Script, bulk, command

ACQUIRE = Script("acquire")
ACQUIRE_ALL = Script("acquire_all")
LEAVE = Script("leave")
RENEW = Script("renew")
HEARTBEAT = Script("heartbeat")
REESTABLISH = Script("reestablish")
INSPECT = Script("inspect")

MODE = {"exclusive": "x", "shared": "s"}
_NO_LINE = Line(inbox="", waiter_ttl_ms=0, grant_ttl_ms=0)
_NOT_KEPT = bulk(str(LATE_MS), "")

#: Arguments of an ask without orphans.
_ASKED = 16

#: Arguments for each hold of a renewal.
_RENEWED = 5

#: Keys that the server looks at in one step of a walk: more would stall its other clients.
SCAN_STEP = 500

#: Resources whose constant parts are kept.
KEPT_PARTS = 1024

#: Holds whose renewals are kept: each is sent again and again as it is, and all take turns, so that
#: keeping fewer than there are would keep none.
_KEPT_RENEWALS = 16_384


class Frames:
    """``grace`` is what a script is told of a restart: server time in ms, or "0". Thread-safe."""

    def __init__(self, prefix: str, fence_ttl: float) -> None:
        self._prefix = prefix
        self._fence_ttl_ms = int(fence_ttl * 1000)
        self._acquire_head = lru_cache(8)(lambda orphans: ACQUIRE.head(3, _ASKED + orphans))
        self._acquire_parts = lru_cache(KEPT_PARTS)(self._make_acquire_parts)
        self._renew_parts = lru_cache(_KEPT_RENEWALS)(self._make_renew_parts)
        self._leave_part = lru_cache(KEPT_PARTS)(self._make_leave_part)

    @property
    def prefix(self) -> str:
        return self._prefix

    def acquire(self, request: Acquire, grace: str) -> bytes:
        resource, token, terms, record, line, kept, orphans = request
        keys, between = self._acquire_parts(resource, terms, line, grace)
        head = self._acquire_head(len(orphans))
        after = _after(kept, orphans)
        return f"{head}{keys}{bulk(token)}{between}{bulk(record)}{after}".encode()

    def acquire_all(self, requests: Sequence[Acquire], grace: str) -> bytes:
        """One call for several resources."""
        all_keys: List[str] = []
        asks: List[str] = []
        arguments = 0
        for resource, token, terms, record, line, kept, orphans in requests:
            keys, between = self._acquire_parts(resource, terms, line, grace)
            count = _ASKED + len(orphans)
            after = _after(kept, orphans)
            all_keys.append(keys)
            asks.append(f"{bulk(str(count), token)}{between}{bulk(record)}{after}")
            arguments += 1 + count
        head = ACQUIRE_ALL.head(3 * len(requests), arguments)
        return "".join([head, *all_keys, *asks]).encode()

    def leave(self, request: Leave, grace: str) -> bytes:
        resource, tokens, tomb_ms, why, lease_ms = request
        part = self._leave_part(resource, tomb_ms, why, lease_ms, grace, len(tokens))
        return f"{part}{bulk(*tokens)}".encode()

    def renew(self, requests: Sequence[Renew]) -> bytes:
        # Without the trust, which is another one each time.
        parts = [self._renew_parts(*request[:-1]) for request in requests]
        head = RENEW.head(len(requests), 1 + _RENEWED * len(requests))
        keys = "".join([key for key, _hold in parts])
        keep = bulk(self._keep(max([request.lease_ms for request in requests])))
        holds = "".join([hold for _key, hold in parts])
        return f"{head}{keys}{keep}{holds}".encode()

    def heartbeat(self, by_resource: Dict[str, List[Beat]], grace: str) -> bytes:
        """One call for the waiters of several resources, in their order."""
        keys = [key for resource in by_resource for key in self.keys(resource)]
        waiter_ttl_ms = max(beat.waiter_ttl_ms for beats in by_resource.values() for beat in beats)
        arguments = [str(waiter_ttl_ms), grace, self._keep(waiter_ttl_ms)]
        for beats in by_resource.values():
            arguments += (str(len(beats)), *(beat.token for beat in beats))
        return HEARTBEAT.frame(len(keys), [*keys, *arguments])

    def reestablish(self, request: Reestablish, grace: str) -> bytes:
        terms = request.terms
        return REESTABLISH.frame(
            3,
            (
                *self.keys(request.resource),
                request.token,
                str(terms.lease_ms),
                str(request.fence),
                MODE[terms.mode],
                str(terms.limit),
                "1" if request.trusted else "0",
                grace,
                self._keep(terms.lease_ms),
                request.record,
            ),
        )

    def inspect(self, resource: str) -> bytes:
        return INSPECT.frame(3, self.keys(resource))

    def scan(self, cursor: str) -> bytes:
        """One step of a walk over the keys that a held or awaited resource has at least one of."""
        glob = "".join(f"\\{char}" if char in "\\*?[]" else char for char in self._prefix)
        return command("SCAN", cursor, "MATCH", f"{glob}{{*}}:[hq]", "COUNT", str(SCAN_STEP))

    def resource_of(self, key: str) -> str:
        """The resource that a key found by ``scan`` belongs to."""
        return key[len(self._prefix) + len("{") : -len("}:h")]

    def keys(self, resource: str) -> Tuple[str, str, str]:
        stem = f"{self._prefix}{{{resource}}}:"
        return stem + "h", stem + "q", stem + "w"

    def channel(self, inbox: str) -> str:
        return f"{self._prefix}inbox:{inbox}" if inbox else ""

    def _make_acquire_parts(
        self, resource: str, terms: Terms, line: Optional[Line], grace: str
    ) -> Tuple[str, str]:
        place = line or _NO_LINE
        keys = bulk(*self.keys(resource))
        between = bulk(
            str(terms.lease_ms),
            MODE[terms.mode],
            str(terms.limit),
            "1" if line else "0",
            str(place.waiter_ttl_ms),
            str(place.grant_ttl_ms),
            self.channel(place.inbox),
            str(place.max_waiting),
            place.overflow,
            str(place.seq),
            grace,
            self._keep(terms.lease_ms),
        )
        return keys, between

    def _make_renew_parts(
        self, resource: str, token: str, fence: int, lease_ms: int, kept: str, record: str
    ) -> Tuple[str, str]:
        hold = bulk(token, str(lease_ms), str(fence), kept, record)
        return bulk(self.keys(resource)[0]), hold

    def _make_leave_part(
        self, resource: str, tomb_ms: int, why: str, lease_ms: int, grace: str, tokens: int
    ) -> str:
        arguments = (str(tomb_ms), grace, self._keep(lease_ms), why)
        return LEAVE.head(3, 4 + tokens) + bulk(*self.keys(resource), *arguments)

    def _keep(self, lease_ms: int) -> str:
        """How long what is known of a resource outlives its last deadline."""
        return str(max(self._fence_ttl_ms, int(keep_for(lease_ms / 1000) * 1000)))


def _after(kept: str, orphans: Tuple[str, ...]) -> str:
    return bulk(str(LATE_MS), kept, *orphans) if kept or orphans else _NOT_KEPT
