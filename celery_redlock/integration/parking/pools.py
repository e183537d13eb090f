"""Which slots a worker's pool has."""

from __future__ import annotations

from typing import Any, Optional

from celery.concurrency import prefork, solo

from celery_redlock.integration.parking.line import GreenSlots, ThreadSlots
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.semaphore import PreforkSlots
from celery_redlock.integration.parking.slots import Slots, Submit


def slots_of(consumer: Any, loop: Loop, submit: Submit) -> Optional[Slots]:
    """The slots of this worker's pool; None where a task has to wait in its slot (solo).

    For a consumer step's ``__init__``: the pool need not have started. ``submit`` is the consumer's
    ``on_task_request`` before anybody stood in for it.
    """
    pool = consumer.pool
    if isinstance(pool, solo.TaskPool):
        return None
    if isinstance(pool, prefork.TaskPool):
        # Celery makes the semaphore where the pool is under its event loop.
        has_semaphore = consumer.controller.semaphore is not None
        return PreforkSlots(consumer, loop, submit) if has_semaphore else None
    kind = GreenSlots if getattr(pool, "is_green", False) else ThreadSlots
    return kind(consumer, loop, submit)
