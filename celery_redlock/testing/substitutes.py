"""The store and the manager that take the place of the real ones in a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional, Sequence

from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.record import Record
from celery_redlock.locking import proof
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Outcome, Patience
from celery_redlock.store.memory import MemoryStore

#: When the process of a killed holder started: no process has.
NEVER = -1


class Store(MemoryStore):
    """One that may be away."""

    is_away = False

    def _at_once(self, operation: Any) -> Any:
        if self.is_away:
            raise NoAnswer("the locks in memory (an outage of the test's)", may_run=False)
        return super()._at_once(operation)


class PatientManager(Manager):
    """One whose asks wait no longer than a test may take."""

    longest_wait: Optional[float] = None

    def acquire_all(self, holds: Sequence[Hold], patience: Optional[Patience] = None) -> Outcome:
        if patience is not None and self.longest_wait is not None:
            until = self.clock() + self.longest_wait
            if patience.until is None or patience.until > until:
                patience = replace(patience, until=until)
        return super().acquire_all(holds, patience)


def is_dead(record: Record) -> bool:
    return record.started == NEVER or proof.is_dead(record)
