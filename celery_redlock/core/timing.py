"""The protocol's formulae. Times are seconds unless a name says ``_ms``."""

from __future__ import annotations

import random

#: How long a tombstone must outlive a late copy of a request: the longest life of bytes in a dead
#: TCP path or in a stopped server.
LATE_MS = 20 * 60 * 1000

#: What a waiter adds to the announced end of a lease before it asks, so that it asks after it.
PAST_DEADLINE = 0.015


def drift(lease: float) -> float:
    """What a holder subtracts for clocks that run at different speeds (1 % and 2 ms)."""
    return 0.01 * lease + 0.002


def trusted_until(sent_at: float, lease: float) -> float:
    """When a holder must stop believing, counted from before the request was sent.

    Counted from the answer instead, a slow success would stretch ownership past the server's lease.
    """
    return sent_at + lease - drift(lease)


def granted_trust(asked_at: float, elapsed: float, heard_at: float, ttl: float) -> float:
    """When trust in a grant ends that a message has told of, made for ``ttl`` seconds.

    ``elapsed`` is what passed by the server's clock from its answer, "in line", to a request of
    ``asked_at`` until the grant; so the grant is no older than that, less what clocks may differ.
    A server's clock that jumped forward meanwhile is bounded by when the message was heard.
    """
    granted_at = asked_at + max(0.0, elapsed - drift(elapsed))
    return trusted_until(min(granted_at, heard_at), ttl)


def renew_after(lease: float) -> float:
    """Seconds until the next renewal: a third of the lease, less 0 to 10 % jitter."""
    return lease / 3 * (1 - 0.1 * random.random())


def retry_renewal_after(lease: float, left: float = 0.0) -> float:
    """Seconds until a failed renewal is tried again.

    Several tries fit into the trust that is ``left``, also where that is a grant for a moment only.
    Once it is over there is no haste.
    """
    pause = min(lease / 12, 1.0)
    return min(pause, max(left / 3, 0.05)) if left > 0 else pause


def heartbeat_every(lease: float) -> float:
    """How often a waiter shows that it is alive."""
    return min(lease / 3, 5.0)


def waiter_ttl(lease: float) -> float:
    """How long a silent waiter keeps its place: three heartbeats and a second."""
    return 3 * heartbeat_every(lease) + 1.0


def grant_ttl(lease: float, round_trip: float = 0.0) -> float:
    """How long a grant made by another's release waits to be confirmed."""
    return min(max(2 * round_trip + 0.25, 1.0), lease)


def keep_for(lease: float) -> float:
    """How long a resource's fence is certain to outlive its last deadline, at the least."""
    return max(300.0, 2 * lease)


def to_ms(seconds: float) -> int:
    """Whole milliseconds, never zero for a positive duration."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
