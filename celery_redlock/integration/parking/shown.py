"""What a worker says of a task that it keeps; never its arguments, nor a token.

Told in the consumer's thread, while the step of a task may be taken in another.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Dict, Optional

from celery_redlock.core.lifecycle import LIVING, State
from celery_redlock.integration.steps import Pause
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import longest

if TYPE_CHECKING:
    from celery_redlock.integration.parking.parked import Parked

ASKING = "asking"
IN_LINE = "in line"
WAITS_FOR_SLOT = "waits for a slot"
WAITS_FOR_SERVER = "waits for the lock server"


def entry(parked: Parked) -> Dict[str, Any]:
    """A parked task, ready for JSON; durations in seconds, None where something is not known.

    ``awaited`` is the resource in whose line it stands, ``place`` its place there, 1 for the head,
    and ``holder`` who was seen to hold it.
    """
    request = parked.request
    holds = list(parked.execution.holds.values())
    awaited = awaited_of(parked)
    holder = longest(awaited.holders) if awaited is not None else None
    return {
        "task": request.name,
        "task_id": request.id,
        "resources": list(parked.names),
        "held": [hold.resource for hold in holds if hold.state in LIVING],
        "awaited": awaited and awaited.resource,
        "place": awaited and awaited.rank + 1,
        "holder": holder and holder.holder,
        "waited": parked.waited,
        "wait_left": _wait_left(parked),
        "expires_in": _expires_in(request.expires),
        "state": state_of(parked),
    }


def state_of(parked: Parked) -> str:
    """How far it has come, in words."""
    if isinstance(parked.step, Pause):
        return WAITS_FOR_SERVER
    if not parked.has_slot and parked.awaited is not None:
        return WAITS_FOR_SLOT
    return IN_LINE if parked.is_in_line else ASKING


def awaited_of(parked: Parked) -> Optional[Hold]:
    """The hold that it stands in line for."""
    holds = list(parked.execution.holds.values())
    return next((hold for hold in holds if hold.state is State.QUEUED), None)


def _wait_left(parked: Parked) -> Optional[float]:
    timeout: Optional[float] = parked.request.task.redlock_options().wait_timeout
    return None if timeout is None else max(0.0, timeout - parked.waited)


def _expires_in(expires: Optional[datetime]) -> Optional[float]:
    if expires is None:
        return None
    # As Celery compares them.
    now = datetime.now(timezone.utc if expires.tzinfo else None)
    return (expires - now).total_seconds()
