"""The worker's pools: which one the suite runs on, and what cannot hold on which.

A test says what it needs by name, ``@pytest.mark.needs("soft time limits")``, and is skipped with
the reason on a pool that does not have it. ``docs/pools.md`` lists the same names and reasons.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Dict, FrozenSet, Mapping, NamedTuple, Tuple

from celery import VERSION

PREFORK = "prefork"
GREEN = ("gevent", "eventlet")
POOLS = (PREFORK, "threads", *GREEN)

VARIABLE = "REDLOCK_TEST_POOL"


class Need(NamedTuple):
    """The pools that have something, and why the others do not."""

    pools: FrozenSet[str]
    reason: str
    #: The first Celery on whose pool it is there, for pools that did not have it always.
    since: Mapping[str, Tuple[int, int]] = {}

    def is_on(self, pool: str) -> bool:
        return pool in self.pools and VERSION[:2] >= self.since.get(pool, (0, 0))


NEEDS: Dict[str, Need] = {
    "processes": Need(
        frozenset({PREFORK}),
        "the bodies run in the worker's own process: what kills one kills all; whoever asks next "
        "on that host takes over, and elsewhere the lease decides",
    ),
    "signals": Need(
        frozenset({PREFORK}),
        "no signal reaches one body among several of a process",
    ),
    "soft time limits": Need(frozenset({PREFORK}), "Celery has them on prefork alone"),
    "hard time limits": Need(
        frozenset({PREFORK, "gevent"}),
        "Celery ignores them on threads and eventlet: the body keeps its lock until it ends",
    ),
    "terminate": Need(
        frozenset({PREFORK, *GREEN}),
        "Celery cannot end it from outside and refuses `revoke(terminate=True)`: the "
        "body keeps its lock until it ends",
        since={"gevent": (5, 5)},
    ),
    "outcomes after an exit": Need(
        frozenset({PREFORK}),
        "Celery records nothing for a body that raises SystemExit or KeyboardInterrupt: its lock "
        "is free, its task stays PENDING",
    ),
    "cold shutdown": Need(
        frozenset({PREFORK}),
        "Celery interrupts whatever runs in the main thread when QUIT comes, one greenlet among "
        "many: that one frees its lock, others go on under theirs or end with the process, and "
        "then the lease frees it; threads are never interrupted",
    ),
    "several chords at a time": Need(
        frozenset({PREFORK, *GREEN}),
        "Celery guards `get()` in a task by one flag of the process: two threads that join the "
        "headers of two chords make one of them fail now and then (on Redis only where a header "
        "has groups or chords)",
    ),
    "bodies in a broker outage": Need(
        frozenset({PREFORK, "threads"}),
        "between two tries to reach the broker Celery sleeps without yielding (2 s, 4 s, 6 s, …): "
        "every greenlet of the worker stands still, and its locks are renewed meanwhile",
    ),
}


def chosen_pool() -> str:
    """The pool of the workers whose test names none."""
    return os.environ.get(VARIABLE, PREFORK)


def choose(pool: str) -> None:
    os.environ[VARIABLE] = pool


def is_installed(pool: str) -> bool:
    return pool not in GREEN or importlib.util.find_spec(pool) is not None


def gaps() -> str:
    """The table of the docs: what cannot hold where, and why."""
    lines = ["| missing | on | because |", "|---|---|---|"]
    for name, need in NEEDS.items():
        without = [pool for pool in POOLS if pool not in need.pools]
        without += [f"{pool} before Celery {x}.{y}" for pool, (x, y) in need.since.items()]
        lines.append(f"| {name} | {', '.join(without)} | {need.reason} |")
    return "\n".join(lines)
