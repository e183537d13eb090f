"""The app of the workers whose bodies F ends: one task that holds its lock until something does."""

from __future__ import annotations

import os
import time
from typing import Any, Mapping

import redis
from celery import Celery

from celery_redlock import LockedTask

BROKER, LOCKS = "REDLOCK_BENCH_BROKER", "REDLOCK_BENCH_LOCKS"

#: A list on the lock server: the process of each body that has begun.
BEGUN = "benchmarks:begun"


def make_app(place: Mapping[str, str]) -> Celery:
    """The app on the servers that ``place`` names; without a result backend."""
    app = Celery("benchmarks", broker=place[BROKER], set_as_current=False)
    app.conf.update(
        redlock_url=place[LOCKS],
        redlock_restart_grace=0,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=1,
    )
    client = redis.Redis.from_url(place[LOCKS])

    @app.task(name="hold", base=LockedTask, lock_key="account:{account}", bind=True)
    def hold(self: Any, account: str) -> None:
        client.rpush(BEGUN, os.getpid())
        time.sleep(60.0)

    app.finalize()
    return app


if BROKER in os.environ:
    app = make_app(os.environ)
