"""A process that contends for one resource over several servers; run by test_quorum_crowd.

``python -m tests.stress.quorum_crowd SETTINGS`` with the fields of ``Settings`` as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from typing import List, NamedTuple

from celery import Celery

from celery_redlock import Lock, LockError, LockUnavailable
from examples.demo.bodylog import BodyLog

RESOURCE = "hot"


class Settings(NamedTuple):
    urls: List[str]
    body_log: str
    seconds: float
    ttl: float


def main(settings: Settings) -> None:
    app = app_of(settings.urls, settings.ttl)
    log = BodyLog(settings.body_log)
    ends_at = time.monotonic() + settings.seconds
    while time.monotonic() < ends_at:
        lock = Lock(RESOURCE, app=app, ttl=settings.ttl)
        # What was lost, or could not be asked for, is no overlap: the log is what counts.
        with contextlib.suppress(LockUnavailable, LockError):
            if lock.acquire(blocking_timeout=0.5):
                try:
                    fence = lock.fence
                    lock.check()
                    with log.body(RESOURCE, fence):
                        time.sleep(random.random() * 0.003)
                finally:
                    lock.release()
        time.sleep(random.random() * 0.01)


def app_of(urls: List[str], ttl: float) -> Celery:
    app = Celery("crowd", broker="memory://", set_as_current=False)
    # Patient: where many processes share few processors, a healthy server may seem to hang.
    app.conf.update(
        redlock_url=urls,
        redlock_ttl=ttl,
        redlock_options={"socket_timeout": 1.0, "socket_connect_timeout": 1.0},
    )
    return app


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
