"""A periodic task that sometimes takes longer than its period, and never overlaps itself.

    celery -A examples.beat_never_overlaps worker --loglevel INFO
    celery -A examples.beat_never_overlaps beat --loglevel INFO

Beat publishes by the clock, whether the run before has ended or not. ``lock_key=()`` is one lock
for the task, whatever its arguments; with ``lock_on_conflict="skip"`` a run that comes too early
does not wait, or a slow hour would leave a line of runs that nobody needs any more.
"""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.utils.log import get_task_logger

from celery_redlock import LockedTask

redis = os.environ.get("REDIS_URL", "redis://localhost:6379")

app = Celery("examples.beat_never_overlaps", broker=f"{redis}/0", backend=f"{redis}/1")
app.conf.redlock_url = f"{redis}/2"
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {
    "collect the readings": {"task": "examples.beat_never_overlaps.collect", "schedule": 0.2},
}

logger = get_task_logger(__name__)


@app.task(base=LockedTask, lock_key=(), lock_on_conflict="skip")
def collect() -> None:
    logger.info("begin collect")
    time.sleep(0.5)  # longer than the period
    logger.info("end collect")
