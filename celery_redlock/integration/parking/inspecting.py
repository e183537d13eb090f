"""``celery inspect redlock_parked``; and what is parked in ``celery inspect reserved``."""

from __future__ import annotations

import functools
from typing import Any, Dict, List

from celery.worker.control import Panel, inspect_command

from celery_redlock.integration.parking.shown import entry
from celery_redlock.integration.parking.step import place_of

#: Tasks in one answer.
_MOST = 200


@inspect_command()  # type: ignore[untyped-decorator, unused-ignore]
def redlock_parked(state: Any, **_more: Any) -> Dict[str, Any]:
    """List the tasks that this worker keeps until they have their locks."""
    place = place_of(state.consumer)
    parked = sorted(place.parked, key=lambda each: -each.waited) if place else []
    return {"parked": [entry(each) for each in parked[:_MOST]], "count": len(parked)}


def _with_parked(reserved: Any) -> Any:
    """Celery's own command, and those that are parked: they have no slot either."""

    @functools.wraps(reserved)
    def reserved_and_parked(state: Any, **more: Any) -> List[Dict[str, Any]]:
        told: List[Dict[str, Any]] = reserved(state, **more)
        place = place_of(state.consumer)
        if place is None:
            return told
        known = {each["id"] for each in told}
        parked = (each.request for each in place.parked)
        return told + [request.info() for request in parked if request.id not in known]

    return reserved_and_parked


# Under both of its names; once, as a module is imported once.
Panel.data["reserved"] = Panel.data["dump_reserved"] = _with_parked(Panel.data["reserved"])
