"""Celery-style signals that tell what happens to locks.

from celery_redlock.signals import lock_lost

@lock_lost.connect
def page_somebody(sender, resource, task_id, why, **fields): ...

The sender is the task, for a ``Lock`` outside of tasks the app. docs/events.md has every field. A
receiver is called in the process where it happened, a worker's parent or its child, perhaps in the
watchdog's thread: it must be quick, and to wait for a lock in it would end every renewal of the
process. Connect it where the tasks are imported; a forked child has the receivers of its parent.
"""

from __future__ import annotations

from celery_redlock.integration.lock_signals import (
    lock_acquired,
    lock_conflict,
    lock_lost,
    lock_reclaimed,
    lock_released,
    lock_unavailable,
    lock_waiting,
)

__all__ = [
    "lock_acquired",
    "lock_conflict",
    "lock_lost",
    "lock_reclaimed",
    "lock_released",
    "lock_unavailable",
    "lock_waiting",
]
