"""E: what it costs one process to keep many holds alive.

Nothing else runs meanwhile: the process's CPU time, over the renewals that were sent, is what one
costs, the watchdog's looking through its table included.
"""

from __future__ import annotations

import os
import time
from typing import Any, List, NamedTuple, Sequence

import redis
from celery import Celery

from benchmarks.measure import Middle
from benchmarks.report import Goal, table
from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Renew, Terms
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from tests.harness.servers import LockServer


class Size(NamedTuple):
    holds: Sequence[int]
    lease: float
    leases: int


FULL = Size(holds=(1000, 10_000), lease=6.0, leases=3)
QUICK = Size(holds=(100,), lease=1.5, leases=1)


class Counting:
    """The store, with the renewals that go through it counted."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.renewals = 0

    def renew(self, requests: Sequence[Renew]) -> Any:
        self.renewals += len(requests)
        return self._store.renew(requests)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Kept(NamedTuple):
    """What keeping so many holds took; ``lost``: how many the process does not trust any more."""

    holds: int
    renewals: int
    cpu_us: float
    lost: int
    threads: int = 0
    connections: int = 0


def run(quick: bool) -> None:
    """Measure and print."""
    size = QUICK if quick else FULL
    print(_report([_keep(holds, size) for holds in size.holds]))


def _keep(count: int, size: Size) -> Kept:
    with LockServer.start() as server, server.client() as client:
        app = Celery("benchmarks", set_as_current=False)
        app.conf.update(redlock_url=server.url, redlock_restart_grace=0)
        runtime = runtime_of(app)
        store = Counting(runtime.manager.store)
        manager = Manager(store, runtime.emit)
        threads = _threads()
        holds = [
            Hold(
                f"account:{number}",
                Terms(lease_ms=int(size.lease * 1000)),
                runtime.record("t", "i"),
            )
            for number in range(count)
        ]
        for hold in holds:
            assert isinstance(manager.acquire(hold), Held)
        kept = _kept(holds, store, size)
        kept = kept._replace(threads=_threads() - threads, connections=_in_use(client, size.lease))
        manager.release_all(holds)
        store.close()
        return kept


def _kept(holds: List[Hold], store: Counting, size: Size) -> Kept:
    time.sleep(size.lease / 3)  # the first renewals
    renewals, cpu = store.renewals, time.process_time()
    time.sleep(size.lease * size.leases)
    cpu, renewals = time.process_time() - cpu, store.renewals - renewals
    now = time.monotonic()
    lost = sum(hold.state is not State.HELD or hold.trusted_until < now for hold in holds)
    return Kept(len(holds), renewals, cpu / renewals * 1e6, lost)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _in_use(client: redis.Redis, lease: float) -> int:
    """Connections that were used within half a lease, but for the one that asks this."""
    return sum(float(each["idle"]) < lease / 2 for each in client.client_list()) - 1


def _report(all_kept: List[Kept]) -> str:
    columns = ("renewals", "client CPU µs", "lost", "threads", "connections")
    rows = [[f"{kept.holds} holds", *kept[1:]] for kept in all_kept]
    lines = [table("E holds kept alive by one process", columns, rows)]
    for kept in all_kept:
        goals = (("CPU µs per renewal", kept.cpu_us, 5.0), ("threads", kept.threads, 1))
        goals += (("connections", kept.connections, 1), ("lost", kept.lost, 0))
        lines += [
            f"  {Goal(f'{kept.holds} holds: {what}', Middle.of([float(value)]), float(bound))}"
            for what, value, bound in goals
        ]
    return "\n".join(lines) + "\n"
