"""Tasks that were put into the pool with what they were handed, until a process has them.

Before that they lie in the pool's buffer, where nobody but us looks after them; and as long as the
body before has not left its slot, that slot is as good as free for who waits for its lock.
"""

from __future__ import annotations

from functools import partial
from typing import Any, List, MutableMapping, NamedTuple
from weakref import WeakValueDictionary

from celery_redlock.integration.parking.keeping import is_revoked
from celery_redlock.integration.parking.parked import Parked
from celery_redlock.integration.parking.slots import Slots
from celery_redlock.integration.request import LockedRequest


class Job(NamedTuple):
    """``of_pool`` is what the pool calls it, None where that is of no use."""

    parked: Parked
    of_pool: Any


class Underway:
    """Those of one consumer, whose thread or greenlet alone calls this."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._jobs: List[Job] = []
        #: By resource, the last request that was run with it alone.
        self._bodies: MutableMapping[str, LockedRequest] = WeakValueDictionary()

    def add(self, parked: Parked, resources: List[str]) -> None:
        """It has just been put into the pool, and handed what it holds of these."""
        if len(resources) == 1:
            self._bodies[resources[0]] = parked.request
        self._jobs = [job for job in self._jobs if not job.parked.request.is_accepted]
        self._jobs.append(Job(parked, self._slots.job_of(parked.request)))

    def leaves_a_slot(self, parked: Parked) -> bool:
        """Whether the body that has released its lock ran here, and has yet to leave its slot."""
        if len(parked.names) > 1 or not parked.is_alone:
            return False
        body = self._bodies.get(parked.names[0])
        return body is not None and not body.is_settled

    def look(self) -> None:
        """End those that are revoked or have expired before a process has them: none would look."""
        for job in self._jobs:
            if self._slots.take_back(job.of_pool, partial(is_revoked, job.parked.request)):
                job.parked.abandon()
                self._jobs = [each for each in self._jobs if each is not job]

    def disconnected(self) -> None:
        """Celery has discarded what no process was given: nobody will take what it was handed."""
        for job in self._jobs:
            if not job.parked.request.is_accepted and self._slots.is_discarded(job.of_pool):
                job.parked.abandon()
        self._jobs = []
