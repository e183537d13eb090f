"""What was abandoned: released in the background, and carried as an orphan by every later call of
this process for its resource, until the server has acknowledged its end.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Callable, Dict, Iterable, Iterator, Tuple

from celery_redlock.core import events
from celery_redlock.core.lifecycle import Move
from celery_redlock.core.ports import Leave, NoAnswer, Store
from celery_redlock.core.timing import LATE_MS
from celery_redlock.locking.hold import Hold

#: Seconds between two tries to end one, from the first to the longest.
_RETRY = (0.05, 5.0)

_END_DUE = attrgetter("end_due")


class Abandoned:
    """Its table is a plain dict, changed by single atomic operations: as the watchdog's are.

    ``end_due`` is for the watchdog's thread: nothing else uses ``store``.
    """

    def __init__(self, store: Store, emit: events.Emit, clock: Callable[[], float]) -> None:
        self._store = store
        self._emit = emit
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        self._holds: Dict[str, Hold] = {}
        self._pauses: Dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._holds)

    def add(self, hold: Hold) -> None:
        """Later calls carry it from now on; it is released when its ``end_due`` has come."""
        hold.end_due = math.inf
        self._holds[hold.token] = hold

    def tokens_of(self, resource: str) -> Tuple[str, ...]:
        if not self._holds:
            return ()
        return tuple(hold.token for hold in list(self._holds.values()) if hold.resource == resource)

    def cleared(self, tokens: Iterable[str]) -> None:
        """A call has ended these."""
        for token in tokens:
            hold = self._holds.pop(token, None)
            if hold is not None:
                self._pauses.pop(token, None)
                hold.try_move(Move.ACKNOWLEDGED)
                self._emit(events.Cleared(hold.resource, hold.record))

    def first_due(self) -> float:
        return min(map(_END_DUE, list(self._holds.values())), default=math.inf)

    def end_due(self) -> None:
        """Release those that are due."""
        for hold in self._due():
            self._end(hold)

    def _due(self) -> Iterator[Hold]:
        now = self._clock()
        return (hold for hold in list(self._holds.values()) if hold.end_due <= now)

    def _end(self, hold: Hold) -> None:
        try:
            self._store.leave(farewell(hold))
        except NoAnswer:
            first, longest = _RETRY
            pause = min(2 * self._pauses.get(hold.token, first / 2), longest)
            self._pauses[hold.token] = pause
            hold.end_due = self._clock() + pause
            return
        self.cleared([hold.token])


def farewell(hold: Hold) -> Leave:
    """Of a hold of which copies of requests may come late."""
    return Leave(hold.resource, (hold.token,), LATE_MS, lease_ms=hold.terms.lease_ms)
