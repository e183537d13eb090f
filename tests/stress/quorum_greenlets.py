"""A patched process whose greenlets use several servers; run by test_quorum_greenlets.

``python -m tests.stress.quorum_greenlets gevent|eventlet SCENARIO SETTINGS``, with the fields of
``Settings`` as JSON; it prints one line of JSON for each fact.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Before anything else is imported, as Celery's command line does.
    if sys.argv[1] == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()

import json
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple

from celery import Celery

from celery_redlock import Lock, LockUnavailable
from celery_redlock.integration.runtime import runtime_of
from tests.stress.greenlets import hubs, open_files, spawn, tell, until

MANY = 120

#: Long enough for what greenlets do, short enough to be renewed meanwhile.
TTL = 3.0


class Settings(NamedTuple):
    urls: List[str]
    options: Dict[str, Any]


def main(kind: str, scenario: str, settings: Settings) -> None:
    app = Celery("greenlets", broker="memory://", set_as_current=False)
    app.conf.update(redlock_url=settings.urls, redlock_options=settings.options, redlock_ttl=TTL)
    SCENARIOS[scenario](app, kind)
    manager = runtime_of(app).manager
    until(lambda: manager.is_idle)
    tell(is_idle=manager.is_idle, hubs=hubs(kind))


def join(kind: str, greenlets: List[Any]) -> None:
    for greenlet in greenlets:
        greenlet.get() if kind == "gevent" else greenlet.wait()


def share(app: Celery, kind: str) -> None:
    """Greenlets take turns, each with two requests at least to every server."""
    inside: List[int] = []
    most: List[int] = []
    fences: List[Any] = []

    def work(number: int) -> None:
        for _ in range(3):
            with Lock("shared", app=app, ttl=TTL) as lock:
                inside.append(number)
                most.append(len(inside))
                fences.append(lock.fence)
                time.sleep(0.005)
                inside.remove(number)

    join(kind, [spawn(kind, lambda number=number: work(number)) for number in range(6)])
    tell(bodies=len(most), at_once=max(most), grows=fences == sorted(set(fences)))


def compute(app: Celery, kind: str) -> None:
    """Hold very many, and compute for longer than the lease without ever yielding."""
    locks = [Lock(f"of many {number}", app=app, ttl=TTL) for number in range(MANY)]
    for lock in locks:
        assert lock.acquire(blocking=False)
    ends_at = time.monotonic() + 1.5 * TTL
    work = 0
    while time.monotonic() < ends_at:
        work = (work * 31 + 7) % 1000003
    tell(held=sum(lock.is_held for lock in locks))
    for lock in locks:
        lock.release()
    tell(left=len(runtime_of(app).manager.survey().resources))


def hang(app: Celery, kind: str) -> None:
    """Servers hang when a line comes; what the asking greenlet and the others notice of it."""
    facts: Dict[str, float] = {"gap": 0.0}

    def go_on() -> None:
        last = time.monotonic()
        while "asked" not in facts:
            time.sleep(0.01)
            now = time.monotonic()
            facts["gap"] = max(facts["gap"], now - last)
            last = now

    def ask() -> None:
        began = time.monotonic()
        try:
            with Lock("asked", app=app, ttl=TTL):
                facts["got"] = 1
        except LockUnavailable as away:
            tell(away=away.servers)
        facts["asked"] = time.monotonic() - began

    with Lock("warm", app=app, ttl=TTL):
        tell(warm=True)
    sys.stdin.readline()
    join(kind, [spawn(kind, run) for run in (ask, go_on)])
    tell(got=facts.get("got", 0), took=facts["asked"], gap=facts["gap"])


def outages(app: Celery, kind: str) -> None:
    """Whenever a line comes a server has died or come back: nothing piles up in the background."""
    with Lock("warm", app=app, ttl=TTL):
        tell(warm=True)
    for number, _line in enumerate(iter(sys.stdin.readline, "end\n")):
        with Lock(f"asked {number}", app=app, ttl=TTL):
            time.sleep(0.01)
        tell(files=open_files(), threads=threads())


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


SCENARIOS: Dict[str, Callable[[Celery, str], None]] = {
    "share": share,
    "compute": compute,
    "hang": hang,
    "outages": outages,
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Settings(**json.loads(sys.argv[3])))
