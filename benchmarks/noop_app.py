"""The app of the worker that C measures: one task that does nothing, three times."""

from __future__ import annotations

import os
from typing import Mapping

import redis
from celery import Celery

from celery_redlock import LockedTask

BROKER, LOCKS = "REDLOCK_BENCH_BROKER", "REDLOCK_BENCH_LOCKS"

#: A list on the lock server: one entry each time ``done`` has run.
DONE = "benchmarks:done"


def make_app(place: Mapping[str, str]) -> Celery:
    """The app on the servers that ``place`` names; without a result backend."""
    app = Celery("benchmarks", broker=place[BROKER], set_as_current=False)
    app.conf.update(
        redlock_url=place[LOCKS],
        redlock_restart_grace=0,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )
    client = redis.Redis.from_url(place[LOCKS])

    @app.task(name="plain")
    def plain(account: int) -> None: ...

    @app.task(name="locked", base=LockedTask, lock_key="account:{account}")
    def locked(account: int) -> None: ...

    @app.task(name="locked_in_body")
    def locked_in_body(account: int) -> None:
        with client.lock(f"account:{account}", timeout=30):
            pass

    @app.task(name="done")
    def done() -> None:
        client.rpush(DONE, "done")

    app.finalize()
    return app


if BROKER in os.environ:
    app = make_app(os.environ)
