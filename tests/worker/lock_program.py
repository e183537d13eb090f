"""A script that uses Lock: ``python -m tests.worker.lock_program SCENARIO URL PREFIX NAME``.

It prints one line of JSON for each fact. The scenarios gevent and eventlet run patched.
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

import importlib
import json
import os
import signal
import time
from typing import Any, Callable, Dict, List

from celery import Celery

from celery_redlock import Lock
from celery_redlock.exceptions import LockError
from celery_redlock.integration.runtime import runtime_of


def tell(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def hold(app: Celery, name: str) -> None:
    """Hold it until somebody ends this process, with a long lease."""
    with Lock(name, app=app, ttl=60) as lock:
        tell(pid=os.getpid(), fence=lock.fence)
        time.sleep(60)


def take(app: Celery, name: str) -> None:
    tell(asking=True)
    with Lock(name, app=app, ttl=60) as lock:
        tell(pid=os.getpid(), fence=lock.fence)


def fork(app: Celery, name: str) -> None:
    """The child inherits the instance, and nothing of what it holds."""
    lock = Lock(name, app=app)
    lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            released = error_of(lock.release)
            tell(child=True, owned=lock.owned(), is_held=lock.is_held, released=released)
            tell(acquired=lock.acquire(blocking=False), locked=lock.locked())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    lock.check()
    tell(child=False, owned=lock.owned(), is_held=lock.is_held, released=error_of(lock.release))
    tell(locked=lock.locked())


def interrupted(app: Celery, name: str) -> None:
    """Ctrl-C while it waits: nothing is left, in line or held."""
    # A shell has its background jobs ignore it, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = Lock(name, app=app)
    tell(asking=True)
    try:
        lock.acquire()
    except KeyboardInterrupt:
        manager = runtime_of(app).manager
        tell(waiting=len(manager.inspect(name).waiters), is_held=lock.is_held)


def greenlets(app: Celery, name: str) -> None:
    """Greenlets that yield inside the lock, and one that releases what another acquired."""
    spawn = importlib.import_module(sys.argv[1]).spawn
    inside: List[int] = []
    most: List[int] = []

    def work(number: int) -> None:
        with Lock(name, app=app):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    workers = [spawn(work, number) for number in range(5)]
    _join(workers)
    tell(bodies=len(most), at_once=max(most))

    lock = Lock(name, app=app)
    lock.acquire()
    _join([spawn(lock.release)])
    tell(locked=lock.locked(), is_held=lock.is_held)


def _join(greenlets: List[Any]) -> None:
    for greenlet in greenlets:
        # gevent's and eventlet's name for it.
        (greenlet.get if hasattr(greenlet, "get") else greenlet.wait)()


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except LockError as error:
        return type(error).__name__
    return ""


SCENARIOS: Dict[str, Callable[[Celery, str], None]] = {
    "hold": hold,
    "take": take,
    "fork": fork,
    "interrupted": interrupted,
    "gevent": greenlets,
    "eventlet": greenlets,
}


def main(scenario: str, url: str, prefix: str, name: str) -> None:
    app = Celery("scripts", broker="memory://", set_as_current=False)
    app.conf.update(redlock_url=url, redlock_restart_grace=0, redlock_prefix=prefix)
    SCENARIOS[scenario](app, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
