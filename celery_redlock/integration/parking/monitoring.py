"""Celery's events for monitors: that a parked task stands in line, and that it was granted.

Sent by the worker's parent in the task's name, where the worker and the task send events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_redlock.integration.parking.shown import awaited_of
from celery_redlock.locking.outcomes import longest

if TYPE_CHECKING:
    from celery_redlock.integration.parking.parked import Parked

WAITING = "task-redlock-waiting"
GRANTED = "task-redlock-granted"


def waiting(parked: Parked) -> None:
    """It stands in line: for which resource, in which place, and behind whom."""
    hold = awaited_of(parked)
    if hold is None:  # it is granted already
        return
    holder = longest(hold.holders)
    parked.request.send_event(
        WAITING,
        name=parked.request.name,
        resource=hold.resource,
        holder=holder and holder.holder,
        place=hold.rank + 1,
    )


def granted(parked: Parked) -> None:
    """It has what it stood in line for; nothing of one that never did.

    Of several resources the one that it waited for last.
    """
    awaited = [hold.resource for hold in list(parked.execution.holds.values()) if hold.seq]
    if awaited:
        parked.request.send_event(
            GRANTED, name=parked.request.name, resource=awaited[-1], waited=parked.waited
        )
