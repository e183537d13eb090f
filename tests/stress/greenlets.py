"""A process whose standard library gevent or eventlet has patched; run by test_greenlets.

``python -m tests.stress.greenlets gevent|eventlet compute|wait|kill|log URL``; it prints one line
of JSON for each fact.
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

import gc
import json
import logging
import os
import time
from typing import Any, Callable, Dict, Optional

from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Patience
from celery_redlock.store.urls import open_store

PREFIX = "test:1:"
LEASE = 1.0


def main(kind: str, scenario: str, url: str) -> None:
    manager = Manager(
        open_store(url, prefix=PREFIX, restart_grace=0),
        lambda event: None,
        background=open_store(url, prefix=PREFIX, restart_grace=0, unpatched=True),
    )
    scenarios: Dict[str, Callable[[Manager, str], None]]
    scenarios = {"compute": compute, "wait": wait, "kill": kill, "log": log}
    scenarios[scenario](manager, kind)
    until(lambda: manager.is_idle)
    tell(is_idle=manager.is_idle)


def tell(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def hold() -> Hold:
    record = Record(host="here", pid=os.getpid(), since=time.time(), task_id="task")
    return Hold("r", Terms(lease_ms=int(LEASE * 1000)), record)


def acquire(manager: Manager, seconds: Optional[float] = None) -> Hold:
    mine = hold()
    until = None if seconds is None else time.monotonic() + seconds
    assert isinstance(manager.acquire(mine, Patience(until=until)), Held)
    return mine


def spawn(kind: str, run: Callable[[], None]) -> Any:
    if kind == "gevent":
        import gevent

        return gevent.spawn(run)
    import eventlet

    return eventlet.spawn(run)


def compute(manager: Manager, kind: str) -> None:
    """Hold, and compute for several leases without ever yielding to the hub."""
    mine = acquire(manager)
    tell(held=True)
    ends_at = time.monotonic() + 3.5 * LEASE
    work, states = 0, set()
    while time.monotonic() < ends_at:
        work = (work * 31 + 7) % 1000003
        if work % 1000 == 0:
            states.add(mine.state.value if mine.trusted_until > time.monotonic() else "unsure")
    tell(computed=True, states=sorted(states | {mine.state.value}), hubs=hubs(kind))
    manager.release(mine)


def wait(manager: Manager, kind: str) -> None:
    """One greenlet holds, another waits in place, a third one goes on meanwhile."""
    facts: Dict[str, float] = {}
    held = acquire(manager)

    def wait_for_it() -> None:
        mine = acquire(manager, seconds=30.0)
        facts["got_at"] = time.monotonic()
        manager.release(mine)

    def go_on() -> None:
        last = time.monotonic()
        while "got_at" not in facts:
            time.sleep(0.01)
            now = time.monotonic()
            facts["gap"] = max(facts.get("gap", 0.0), now - last)
            last = now

    greenlets = [spawn(kind, run) for run in (wait_for_it, go_on)]
    for _ in range(20):
        time.sleep(0.05)
    released_at = time.monotonic()
    manager.release(held)
    for greenlet in greenlets:
        greenlet.get() if kind == "gevent" else greenlet.wait()
    tell(after=facts["got_at"] - released_at, gap=facts["gap"], hubs=hubs(kind))


def kill(manager: Manager, kind: str) -> None:
    """Greenlets that wait in place are killed."""
    held = acquire(manager)
    kill_a_waiter(manager, kind)
    files = open_files()
    for _ in range(10):
        kill_a_waiter(manager, kind)
    tell(waiters=len(manager.inspect("r").waiters), more_files=open_files() - files)
    manager.release(held)


def kill_a_waiter(manager: Manager, kind: str) -> None:
    waiter = spawn(kind, lambda: manager.release(acquire(manager)))
    until(lambda: len(manager.inspect("r").waiters) == 1)
    time.sleep(0.05)  # until it has gone to sleep
    waiter.kill()
    until(lambda: not manager.inspect("r").waiters)


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)


def log(manager: Manager, kind: str) -> None:
    """A background thread emits events while the greenlets log all the time."""
    from celery_redlock.integration.relay import relayed

    logging.basicConfig(filename=os.devnull, level=logging.INFO)
    told, emitted = [], []

    def tell_one(event: Any) -> None:
        logging.info("told %s", event)
        told.append(event)

    emit = relayed(tell_one)

    def run() -> None:
        for number in range(500):
            emit(number)  # type: ignore[arg-type]
        emitted.append(time.monotonic())

    native.start_thread(run)
    ends_at = time.monotonic() + 1.0
    while time.monotonic() < ends_at:
        logging.info("a greenlet")
    was_free = bool(emitted)
    until(lambda: len(told) == 500)
    tell(was_free=was_free, in_order=told == list(range(500)))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def hubs(kind: str) -> int:
    """How many threads have waited the patched way: each has got a hub for that."""
    if kind == "gevent":
        from gevent.hub import Hub as hub_class
    else:
        from eventlet.hubs.hub import BaseHub as hub_class
    return sum(isinstance(thing, hub_class) for thing in gc.get_objects())


if __name__ == "__main__":
    main(*sys.argv[1:])
