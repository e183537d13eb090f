"""The app of the workers that D measures: one body, and the ways in which tasks wait for it."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Mapping

import redis
from celery import Celery, signals

from celery_redlock import LockedTask

BROKER, LOCKS, BODY = "REDLOCK_BENCH_BROKER", "REDLOCK_BENCH_LOCKS", "REDLOCK_BENCH_BODY"

#: The file that bodies write a line to, in one step each: account, begin and end.
BODIES = "REDLOCK_BENCH_BODIES"

#: How often a body's task was run, bodies or none.
RUNS = "benchmarks:runs"


def make_app(place: Mapping[str, str]) -> Celery:
    """The app on the servers that ``place`` names; without a result backend."""
    app = Celery("benchmarks", broker=place[BROKER], set_as_current=False)
    app.conf.update(
        redlock_url=place[LOCKS],
        redlock_restart_grace=0,
        # All that may wait at a time: none goes round by the queue.
        redlock_max_parked=10_000,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )
    client = redis.Redis.from_url(place[LOCKS])
    seconds = float(place[BODY])
    bodies = os.open(place[BODIES], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def body(account: str) -> None:
        began = time.monotonic()
        time.sleep(seconds)
        os.write(bodies, f"{json.dumps((account, began, time.monotonic()))}\n".encode())

    def lock(account: str) -> Any:
        return client.lock(f"benchmarks:{account}", timeout=30)

    @app.task(name="ours", shared=False, base=LockedTask, lock_key="{account}")
    def ours(account: str) -> None:
        body(account)

    @app.task(name="free", shared=False)
    def free(account: str) -> None:
        body(account)

    @app.task(name="blocking", shared=False)
    def blocking(account: str) -> None:
        with lock(account):
            body(account)

    @app.task(name="retrying", shared=False, bind=True, max_retries=None)
    def retrying(self: Any, account: str) -> None:
        mine = lock(account)
        if not mine.acquire(blocking=False):
            raise self.retry(countdown=1)
        try:
            body(account)
        finally:
            mine.release()

    app.finalize()
    return app


@signals.task_prerun.connect
def count_run(sender: Any, **_details: Any) -> None:
    _count.incr(RUNS)


if BROKER in os.environ:
    _count = redis.Redis.from_url(os.environ[LOCKS])
    app = make_app(os.environ)
