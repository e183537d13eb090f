"""Seeing and freeing: what is asked of a lock server beside all owners.

Nothing here belongs to a hold of this process. A release, by force or for a process that is dead,
names the holder that was seen: one that came meanwhile is left alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Sequence, Tuple

from celery_redlock.core import events
from celery_redlock.core.ports import HolderView, Leave, ResourceView, Store
from celery_redlock.core.record import Record
from celery_redlock.core.timing import LATE_MS
from celery_redlock.core.why import forced_by
from celery_redlock.locking.proof import Proof


@dataclass(frozen=True)
class Survey:
    """What has a holder or a waiter; ``is_complete``: all of it was looked at."""

    resources: Dict[str, ResourceView]
    is_complete: bool


def survey(store: Store, pattern: str = "*", within: Optional[float] = None) -> Survey:
    """Look at every resource whose name fits, for about ``within`` seconds; raises NoAnswer."""
    until = None if within is None else time.monotonic() + within
    found: Dict[str, ResourceView] = {}
    for part in store.survey(pattern):
        found.update((name, view) for name, view in part if view.holders or view.waiters)
        if until is not None and time.monotonic() > until:
            return Survey(found, is_complete=False)
    return Survey(found, is_complete=True)


def force(
    store: Store, emit: events.Emit, resource: str, holders: Sequence[HolderView], by: str
) -> Tuple[HolderView, ...]:
    """Release these holders, whoever they are; those that had not ended before. Raises NoAnswer.

    The next in line is granted the place at once, while the old body may still run.
    """
    released = []
    for holder in holders:
        # One by one, so that it is known of each whether it was this that ended it.
        farewell = Leave(resource, (holder.token,), LATE_MS, forced_by(by))
        if store.leave(farewell).what == "holder":
            released.append(holder)
            emit(events.Forced(resource, by, Record.decode(holder.record)))
    return tuple(released)


def end_for_dead(
    store: Store,
    emit: events.Emit,
    resource: str,
    token: str,
    owner: Record,
    holder: Optional[Record],
    *,
    spare_kept: bool,
) -> None:
    """End what a process that is certainly dead held or awaited by this token. Raises NoAnswer.

    ``spare_kept``: what it may have kept over its retry is left to that.
    """
    if spare_kept:
        holders = store.inspect(resource).holders
        if any(seen.token == token and seen.state == "kept" for seen in holders):
            return
    # Buried also when nothing is found: its ask may arrive later than the news of its death.
    left = store.leave(Leave(resource, (token,), LATE_MS, "dead"))
    if left.what == "holder":
        emit(events.Reclaimed(resource, owner, holder))


def sweep(store: Store, emit: events.Emit, is_dead: Proof, owner: Record, within: float) -> None:
    """End what dead processes hold or await, as far as a look of so many seconds goes.

    What is kept over a retry belongs to no process. Raises NoAnswer.
    """
    until = time.monotonic() + within
    for part in store.survey():
        for name, view in part:
            for token, record in _owners(view):
                if is_dead(record):
                    end_for_dead(store, emit, name, token, owner, record, spare_kept=False)
        if time.monotonic() > until:
            return


def _owners(view: ResourceView) -> Iterator[Tuple[str, Record]]:
    """Who is in it as the process of somebody, by its token; what cannot be read is left out."""
    for seen in view.holders:
        record = Record.decode(seen.record)
        if record is not None and seen.state != "kept":
            yield seen.token, record.granted(seen.fence)
    for waiter in view.waiters:
        record = Record.decode(waiter.record)
        if record is not None:
            yield waiter.token, record
