"""A process whose many threads or greenlets contend for few resources; run by test_crowd.

``python -m tests.stress.crowd threads|gevent|eventlet SETTINGS`` with the fields of ``Settings`` as
JSON; it prints one line of JSON, what is left when all have ended.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Before anything else is imported, as Celery's command line does.
    if sys.argv[1] == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif sys.argv[1] == "eventlet":
        import eventlet

        eventlet.monkey_patch()

import contextlib
import json
import random
import threading
import time
from typing import Any, Callable, List, NamedTuple

from celery import Celery

from celery_redlock import LockedTask, LockTimeout
from celery_redlock.integration.runtime import runtime_of
from examples.demo.bodylog import BodyLog

RESOURCES = 20
PREFIX = "test:1:"
GIVE_UP = 20.0


class Settings(NamedTuple):
    url: str
    body_log: str
    seconds: float
    members: int
    #: Greenlets killed per second, others taking their places.
    kills: float = 0.0


def make_app(settings: Settings) -> Celery:
    app = Celery("crowd", broker="memory://", set_as_current=False)
    app.conf.update(
        redlock_url=settings.url, redlock_prefix=PREFIX, redlock_restart_grace=0, redlock_ttl=2
    )
    log = BodyLog(settings.body_log)

    def work(self: Any, number: int) -> str:
        with log.body(f"r:{number}", self.lock.fence):
            time.sleep(random.random() * 0.002)
        return "worked"

    for name, options in {
        "wait": {},
        "give_up": {"lock_wait_timeout": 0.05},
        "skip": {"lock_on_conflict": "skip"},
    }.items():
        app.task(name=name, base=LockedTask, bind=True, lock_key="r:{number}", **options)(work)
    app.finalize()
    return app


class Crowd:
    def __init__(self, app: Celery, settings: Settings, kind: str) -> None:
        self._tasks = [app.tasks[name] for name in ("wait", "give_up", "skip")]
        self._ends_at = time.monotonic() + settings.seconds
        self._settings = settings
        self._kind = kind
        self.errors: List[str] = []
        self.killed = 0
        self.stuck = 0

    def run(self) -> None:
        members = [start(self._kind, self._member) for _ in range(self._settings.members)]
        while time.monotonic() < self._ends_at:
            if self._settings.kills:
                time.sleep(1 / self._settings.kills)
                chosen = random.randrange(len(members))
                members[chosen].kill()
                members[chosen] = start(self._kind, self._member)
                self.killed += 1
            else:
                time.sleep(0.1)
        deadline = time.monotonic() + GIVE_UP
        while not all(map(has_ended, members)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.stuck = sum(not has_ended(member) for member in members)

    def _member(self) -> None:
        try:
            while time.monotonic() < self._ends_at:
                with contextlib.suppress(LockTimeout):
                    random.choice(self._tasks)(random.randrange(RESOURCES))
        except Exception as error:  # noqa: BLE001 - told to the test
            self.errors.append(repr(error))


def start(kind: str, run: Callable[[], None]) -> Any:
    if kind == "gevent":
        import gevent

        return gevent.spawn(run)
    if kind == "eventlet":
        import eventlet

        return eventlet.spawn(run)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def has_ended(member: Any) -> bool:
    if isinstance(member, threading.Thread):
        return not member.is_alive()
    return bool(member.dead)


def main(kind: str, settings: Settings) -> None:
    app = make_app(settings)
    crowd = Crowd(app, settings, kind)
    crowd.run()
    runtime = runtime_of(app)
    deadline = time.monotonic() + GIVE_UP
    while not runtime.manager.is_idle and time.monotonic() < deadline:
        time.sleep(0.01)
    told = {
        "stuck": crowd.stuck,
        "errors": crowd.errors[:5],
        "killed": crowd.killed,
        "is_idle": runtime.manager.is_idle,
        "running": len(runtime.running),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Settings(**json.loads(sys.argv[2])))
