"""A hold's lease at its owner's wish, where the watchdog's rhythm is not the owner's.

What the watchdog knows of renewals holds here too: the lease on the server never becomes shorter,
and a hold that the server no longer knows comes back if nobody needed its place.
"""

from __future__ import annotations

import time
from typing import Callable, Optional, Union

from celery_redlock.core import timing
from celery_redlock.core.lifecycle import LIVING
from celery_redlock.core.ports import (
    Closed,
    Extended,
    Gone,
    NoAnswer,
    Reestablish,
    ReestablishAnswer,
    RenewAnswer,
    Store,
)
from celery_redlock.core.why import refused
from celery_redlock.locking.hold import Hold

#: Seconds between two tries to make a fence certain, from the first to the longest.
_SETTLE_AGAIN = (0.02, 0.5)


def lengthen(
    store: Store, hold: Hold, lease: float, clock: Callable[[], float], *, shorten: bool
) -> Optional[str]:
    """Lease a hold for ``lease`` seconds from now; None, or why it is another's.

    ``shorten`` lets trust become shorter than it is. Raises NoAnswer.
    """
    lease_ms = timing.to_ms(lease)
    sent_at, is_trusted = clock(), True
    answer: Union[RenewAnswer, ReestablishAnswer]
    (answer,) = store.renew([hold.renewal(lease_ms)])
    if isinstance(answer, Gone) and hold.may_return():
        sent_at = clock()
        is_trusted = sent_at < hold.trusted_until
        answer = _bring_back(store, hold, lease_ms, is_trusted=is_trusted)
    if isinstance(answer, NoAnswer):
        raise answer
    if isinstance(answer, Extended):
        hold.extended(timing.trusted_until(sent_at, lease), shorten=shorten)
        return None
    return answer.why if isinstance(answer, Closed) else refused(is_trusted=is_trusted)


def settle(store: Store, hold: Hold, clock: Callable[[], float]) -> Optional[str]:
    """Make the fence of a hold certain, while it is trusted; None, or why it is lost.

    A hold that has ended otherwise stays unsettled, and is not said to be lost.
    """
    pause = _SETTLE_AGAIN[0]
    while hold.state in LIVING and clock() < hold.trusted_until:
        # With no lease to add, a renewal only writes the fence.
        (answer,) = store.renew([hold.renewal(lease_ms=0)])
        if isinstance(answer, Extended):
            if clock() < hold.trusted_until:
                hold.settle_fence = None
                return None
        elif not isinstance(answer, NoAnswer):
            return answer.why if isinstance(answer, Closed) else refused(is_trusted=True)
        time.sleep(pause)
        pause = min(2 * pause, _SETTLE_AGAIN[1])
    return "its fence could not be written in time" if hold.state in LIVING else None


def _bring_back(store: Store, hold: Hold, lease_ms: int, *, is_trusted: bool) -> ReestablishAnswer:
    return store.reestablish(
        Reestablish(
            hold.resource,
            hold.token,
            hold.fence or 0,
            hold.terms._replace(lease_ms=lease_ms),
            hold.record.encode(),
            trusted=is_trusted,
        )
    )
