"""A resource as plain values, ready for JSON: the same keys for every command, and no token."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from celery_redlock.core.ports import HolderView, ResourceView, WaiterView
from celery_redlock.core.record import Record

_NOBODY: Dict[str, Any] = {
    "task": None,
    "task_id": None,
    "holder": "?",
    "worker": None,
    "host": "?",
    "pid": None,
    "age": None,
}


def describe(resource: str, view: ResourceView, now: float) -> Dict[str, Any]:
    """A resource at ``now`` (Unix time).

    ``lapsed`` are holders whose lease is over: they block nobody. ``silent`` are waiters that were
    not heard of in time: their turn is passed on.
    """
    line = list(enumerate(view.waiters, 1))
    return {
        "resource": resource,
        "fence": view.fence or None,
        "holders": _holders([held for held in view.holders if held.remaining_ms > 0], now),
        "waiting": [_waiter(place, each, now) for place, each in line if each.remaining_ms > 0],
        "lapsed": _holders([held for held in view.holders if held.remaining_ms <= 0], now),
        "silent": [_waiter(place, each, now) for place, each in line if each.remaining_ms <= 0],
        "forced": view.forced and {"by": view.forced.by, "ago": view.forced.ago_ms / 1000},
    }


def _holders(holders: Sequence[HolderView], now: float) -> List[Dict[str, Any]]:
    return [
        {
            **holder_of(held, now),
            "fence": held.fence,
            "mode": held.mode,
            "limit": held.limit,
            "kept": held.state == "kept",
            "lease_left": held.remaining_ms / 1000,
        }
        for held in holders
    ]


def _waiter(place: int, waiter: WaiterView, now: float) -> Dict[str, Any]:
    return {**_person(Record.decode(waiter.record), now), "place": place}


def holder_of(held: HolderView, now: float) -> Dict[str, Any]:
    """Who holds. ``age``: seconds since the grant, by two hosts' clocks."""
    record = Record.decode(held.record)
    return _person(record and record.granted(held.fence), now)


def _person(record: Optional[Record], now: float) -> Dict[str, Any]:
    if record is None:
        return dict(_NOBODY)
    return {
        "task": record.task,
        "task_id": record.task_id,
        "holder": record.holder,
        "worker": record.worker,
        "host": record.host,
        "pid": record.pid,
        "age": max(0.0, now - record.since),
    }
