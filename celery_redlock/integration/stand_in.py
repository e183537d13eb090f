"""What takes the place of the lock server: in tests, see ``celery_redlock.testing``.

A runtime asks for it each time: what it made for the real server waits meanwhile, and is used again
afterwards as if nothing had been.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Protocol

from celery_redlock.core.events import Event
from celery_redlock.integration.settings import Settings
from celery_redlock.locking.manager import Manager

if TYPE_CHECKING:
    from celery_redlock.integration.runtime import Runtime


class StandIn(Protocol):
    """Any thread may call any method at any time."""

    def covers(self, app: Any) -> bool:
        """Whether it is for this app."""

    def settings(self, app: Any) -> Settings:
        """The app's settings; the same object each time."""

    def manager(self, runtime: Runtime) -> Manager:
        """The app's manager; the same object each time."""

    def hear(self, event: Event) -> None:
        """What happens to the app's locks."""


_standing: List[StandIn] = []


def stand_in_for(app: Any) -> Optional[StandIn]:
    """What stands in for this app's lock server now; the latest that covers it."""
    for each in reversed(_standing):
        if each.covers(app):
            return each
    return None


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    """Have it stand in for the lock server of every app that it covers, in every thread."""
    _standing.append(stand_in)
    try:
        yield
    finally:
        _standing.remove(stand_in)
