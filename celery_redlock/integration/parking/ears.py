"""What the asker's thread tells of one ask, passed on to the consumer's."""

from __future__ import annotations

from typing import Any, Callable, Protocol

from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.parked import Parked
from celery_redlock.locking.pending import Ended, Pending


class Told(Protocol):
    def queued(self, parked: Parked) -> None: ...

    def woken(self, parked: Parked) -> None: ...

    def ended(self, parked: Parked, ended: Ended) -> None: ...


class Ears:
    """The listener of one ask; what comes of one that is over for its task is not told."""

    def __init__(self, loop: Loop, told: Told, parked: Parked) -> None:
        self._loop = loop
        self._told = told
        self._parked = parked

    def queued(self, pending: Pending) -> None:
        self._tell(pending, self._told.queued)

    def woken(self, pending: Pending) -> None:
        self._tell(pending, self._told.woken)

    def done(self, pending: Pending, ended: Ended) -> None:
        self._tell(pending, self._told.ended, ended)

    def _tell(self, pending: Pending, what: Callable[..., None], *said: Any) -> None:
        self._loop.call(self._hear, pending, what, *said)

    def _hear(self, pending: Pending, what: Callable[..., None], *said: Any) -> None:
        if self._parked.pending is pending and not self._parked.is_gone:
            what(self._parked, *said)
