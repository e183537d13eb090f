"""Handing a hold over to another process of this host, without asking the server.

The giver stops renewing it before it says so, the receiver renews it from where the giver left it;
between the two only the lease runs. Their monotonic clock is one. The token is not part of what is
handed over: it is the receiver's to know by a way of its own.

On the server the giver stands for the holder until the receiver's first renewal says who it is:
while both live it does not matter, and the giver sees to a receiver that dies before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from celery_redlock.core import timing
from celery_redlock.core.lifecycle import LIVING, Move, State
from celery_redlock.exceptions import LockLost
from celery_redlock.locking.hold import Hold

if TYPE_CHECKING:
    from celery_redlock.locking.manager import Manager


class Handed(NamedTuple):
    """What the receiver has to know of a hold; times are monotonic.

    ``tainted``: a copy of its ask is unaccounted for, so its release has to bury the token.
    ``since`` is the record's: when the giver asked, in Unix time.
    ``is_settled``: its fence may be shown as it is. ``is_confirmed``: it has its whole lease.
    """

    resource: str
    fence: int
    trusted_until: float
    held_since: float
    tainted: bool
    since: float
    is_settled: bool = True
    is_confirmed: bool = True


def hand_over(manager: Manager, hold: Hold) -> Handed:
    manager.watchdog.forget(hold)
    # What is read before the move counts: an answer under way may only lengthen the trust.
    fence, trusted_until = hold.fence or 0, hold.trusted_until
    if hold.state not in LIVING or not hold.try_move(Move.HANDED_ON):
        raise LockLost(hold.resource, hold.fence)
    return Handed(
        hold.resource,
        fence,
        trusted_until,
        hold.held_since,
        hold.tainted,
        hold.record.since,
        hold.settle_fence is None,
        hold.settle_lease is None,
    )


def take_back(hold: Hold) -> bool:
    """Whether it was handed over, and is now to be released."""
    is_back = hold.state is State.HANDED and hold.try_move(Move.RECEIVER_GONE)
    # Its receiver may have asked with the same token, and be dead before it was answered.
    hold.tainted = hold.tainted or is_back
    return is_back


def adopt(manager: Manager, hold: Hold, handed: Handed) -> bool:
    if handed.resource != hold.resource:
        return False
    lease = hold.lease
    if not handed.is_confirmed:
        # Before it is looked at how old it is: who is stopped from then on has the lease, and who
        # was stopped before sees that the moment has passed.
        manager.store.secure(hold.first_renewal(handed.fence))
        lease = timing.grant_ttl(hold.lease)
    now = manager.clock()
    if handed.trusted_until - now < lease / 2:
        return False
    _resource, fence, trusted_until, held_since, tainted, since, *is_certain = handed
    is_settled, is_confirmed = is_certain
    hold.record = hold.record._replace(since=since)
    hold.adopted(fence, trusted_until, held_since, tainted)
    if not is_settled:
        hold.settle_fence = manager.settle_fence
    if not is_confirmed:
        hold.settle_lease = manager.settle_lease
    if hold.max_hold is not None:
        hold.renew_until = now + hold.max_hold
    manager.watchdog.watch(hold)
    return True
