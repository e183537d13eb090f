"""A process that holds a lock over several servers and forks; run by test_redlock.

``python -m tests.worker.forked_locks SETTINGS`` with the fields of ``Settings`` as JSON; it prints
one line of JSON for each fact.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any, Dict, List, NamedTuple, Set

from celery import Celery

from celery_redlock import Lock
from celery_redlock.integration.runtime import runtime_of
from tests.worker.lock_program import error_of, tell

TTL = 2.0


class Settings(NamedTuple):
    urls: List[str]
    options: Dict[str, Any]


def main(settings: Settings) -> None:
    app = Celery("forks", broker="memory://", set_as_current=False)
    patient = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
    app.conf.update(redlock_url=settings.urls, redlock_options={**settings.options, **patient})
    with Lock("warm", app=app):
        pass  # connections that nobody uses at the moment of the fork
    lock = Lock("the parent's", app=app, ttl=TTL)
    lock.acquire()
    fence, sockets = lock.fence, open_sockets()
    child = os.fork()
    if child == 0:
        with exiting():
            in_child(app, lock, sockets)
    went_on = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        with Lock("beside it", app=app, ttl=TTL):
            went_on += 1
        time.sleep(0.01)
    lock.check()
    tell(
        child=False,
        is_held=lock.is_held,
        went_on=went_on > 1,
        same_fence=lock.fence == fence,
        holders=len(runtime_of(app).manager.inspect("the parent's").holders),
    )
    lock.release()
    tell(child=False, left=len(runtime_of(app).manager.survey().resources))


def in_child(app: Celery, lock: Lock, sockets: Set[str]) -> None:
    """Longer than the parent's lease: each side renews its own."""
    released = error_of(lock.release)
    owned, is_held, acquired = lock.owned(), lock.is_held, lock.acquire(blocking=False)
    tell(child=True, owned=owned, is_held=is_held, released=released, acquired=acquired)
    with Lock("the child's", app=app, ttl=TTL) as own:
        time.sleep(1.5 * TTL)
        own.check()
        tell(child=True, is_held=own.is_held, shared=len(open_sockets() & sockets))


def open_sockets() -> Set[str]:
    """The connections that this process has open, by a name that a fork does not change."""
    found = set()
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}


@contextlib.contextmanager
def exiting() -> Any:
    """The end of a child: it does nothing of what its parent does when it ends."""
    failed = 1
    try:
        yield
        failed = 0
    finally:
        sys.stdout.flush()
        os._exit(failed)


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
