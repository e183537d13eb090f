"""What the worker's parent hands to the process that runs a task: tokens, holds and verdicts.

A redelivery has the task id, the delivery tag and the retries of the first delivery: only a secret
made at each receipt tells two runs apart. It travels to the child with the request; one that came
with the message (a client's, or an earlier run's) is always overwritten. The owner token for each
resource follows from it, so that the parent knows them before anybody asks for anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from celery_redlock.core.policy import Decision
from celery_redlock.core.record import Record
from celery_redlock.exceptions import LockUnavailable, RedlockError
from celery_redlock.locking.handover import Handed

#: The attribute of a request with the secret of its receipt.
RECEIPT = "redlock_token"

#: The attribute of a request with the content type that its message came in.
CONTENT_TYPE = "redlock_content_type"

#: The attribute of a request with what its worker's parent has found out: a Sent.
SENT = "redlock_sent"


def token_of(receipt: str, name: str) -> str:
    """The owner token of one receipt for one resource; says nothing about either."""
    return hashlib.sha256(f"{receipt}{name}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Refusal:
    """Why a body must not run, and what happens instead: RETRY, SKIP or FAIL."""

    decision: Decision
    resource: str
    holder: Optional[Record] = None
    #: "conflict", "full", "replaced", "outage" or "done".
    reason: str = "conflict"
    error: Optional[LockUnavailable] = None
    #: Seconds for which the task may still wait, None for ever.
    left: Optional[float] = None
    #: The task that took its place in line, where that is known.
    newcomer: Optional[str] = None


class Sent(NamedTuple):
    """How the parent's asking ended. At most one of the last four says something.

    ``space`` is the runtime's where it asked: nothing else of it counts in another. ``copy`` is
    another copy of the task that was met on the way; ``waited`` seconds since the first ask. With
    nothing in the last four the receiver asks for itself.
    """

    space: str = ""
    waited: float = 0.0
    #: Whether it stood in line meanwhile.
    was_queued: bool = False
    copy: Optional[Record] = None
    holds: Tuple[Handed, ...] = ()
    refusal: Optional[Refusal] = None
    error: Optional[RedlockError] = None
    #: Whether the body runs without its lock, the lock server being away.
    unlocked: bool = False

    def without_verdict(self) -> Sent:
        """For a receiver that could not carry it out, and asks for itself."""
        return Sent(self.space, self.waited, self.was_queued, self.copy)
