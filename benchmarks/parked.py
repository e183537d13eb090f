"""G: what a waiting task costs when there are many: commands for each, and memory of its worker.

``python -m benchmarks.parked``: every resource is held while the tasks are published; when no more
of them come into line, the resources are freed, and what is sent until all tasks have run is
counted. What a worker does not take from the broker waits there.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import psutil

from benchmarks.measure import Middle
from benchmarks.mixed_app import BODIES, BODY, BROKER, LOCKS, make_app
from benchmarks.report import Goal, table
from celery_redlock.core.ports import Acquire, Granted, Leave, Terms
from celery_redlock.integration.runtime import runtime_of
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess

WORKERS = 2
SLOTS = 4
TASKS_OF_EACH = 10
LEASE = 600.0
WARM_UP = 50
WITHIN = 600.0

#: Seconds without a new waiter after which no more will come.
QUIET = 3.0

#: How much dearer a task may be among the most than among the fewest.
DEARER = 1.2


class Outcome(NamedTuple):
    waiting: int
    lock_calls: float
    broker_commands: float
    kilobytes: float


def run(quick: bool) -> None:
    """As ``python -m benchmarks g``."""
    measure([20, 100] if quick else [100, 10_000], prefetch=4)


def measure(counts: List[int], prefetch: int) -> None:
    """Measure and print, one line for each count of tasks."""
    outcomes = {}
    for count in counts:
        with ExitStack() as stack:
            outcomes[count] = _Site(stack, prefetch).outcome(count)
    print(_report(outcomes))


class _Site:
    def __init__(self, stack: ExitStack, prefetch: int) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-bench-")))
        broker = stack.enter_context(LockServer.start())
        locks = stack.enter_context(LockServer.start())
        self._broker = stack.enter_context(broker.client())
        self._locks = stack.enter_context(locks.client())
        self._bodies = directory / "bodies"
        place = {BROKER: broker.url, LOCKS: locks.url, BODY: "0", BODIES: str(self._bodies)}
        self._app = stack.enter_context(make_app(place))
        self._store = runtime_of(self._app).manager.store
        #: Script calls of our own, which no task made.
        self._own_calls = 0
        self._workers = []
        for _ in range(WORKERS):
            worker = WorkerProcess(
                directory,
                place,
                app="benchmarks.mixed_app",
                pool="prefork",
                concurrency=SLOTS,
                arguments=[f"--prefetch-multiplier={prefetch}"],
            )
            stack.callback(worker.kill)
            self._workers.append(worker)
            worker.launch()
        for worker in self._workers:
            worker.wait_until_ready(60.0)

    def outcome(self, count: int) -> Outcome:
        self._run(WARM_UP)
        before = self._memory()
        tokens = self._hold(count // TASKS_OF_EACH)
        calls, commands = self._calls(), self._commands()
        for number in range(count):
            self._app.tasks["ours"].apply_async((f"r{number % len(tokens)}",))
        waiting = self._await_waiters(list(tokens))
        grown = self._memory() - before
        for resource, token in tokens.items():
            self._store.leave(Leave(resource, (token,)))
            self._own_calls += 1
        self._await_bodies(WARM_UP + count)
        return Outcome(
            waiting,
            (self._calls() - calls) / count,
            (self._commands() - commands) / count,
            grown / 1024 / max(waiting, 1),
        )

    def _run(self, count: int) -> None:
        """Tasks that nothing keeps waiting: what is made at first use is there from here on."""
        for number in range(count):
            self._app.tasks["ours"].apply_async((f"free{number}",))
        self._await_bodies(count)

    def _await_bodies(self, count: int) -> None:
        deadline = time.monotonic() + WITHIN
        while self._bodies.read_bytes().count(b"\n") < count:
            assert time.monotonic() < deadline, self._workers[0].output()[-4000:]
            time.sleep(0.05)

    def _hold(self, count: int) -> Dict[str, str]:
        tokens = {f"r{number}": secrets.token_hex(16) for number in range(count)}
        record = runtime_of(self._app).record("benchmark", "holder").encode()
        terms = Terms(lease_ms=int(LEASE * 1000))
        for resource, token in tokens.items():
            assert isinstance(self._store.acquire(Acquire(resource, token, terms, record)), Granted)
        return tokens

    def _await_waiters(self, resources: List[str]) -> int:
        """How many stand in line when no more of them come."""
        waiting, since = 0, time.monotonic()
        while time.monotonic() < since + QUIET:
            now = sum(len(self._store.inspect(resource).waiters) for resource in resources)
            self._own_calls += len(resources)
            if now != waiting:
                waiting, since = now, time.monotonic()
            time.sleep(0.2)
        return waiting

    def _memory(self) -> int:
        return sum(int(psutil.Process(worker.pid).memory_info().rss) for worker in self._workers)

    def _calls(self) -> int:
        stats: Any = self._locks.info("commandstats")
        counted = (stats.get(f"cmdstat_{name}", {}) for name in ("evalsha", "publish"))
        return sum(of.get("calls", 0) for of in counted) - self._own_calls

    def _commands(self) -> int:
        stats: Any = self._broker.info("commandstats")
        return sum(of["calls"] for name, of in stats.items() if name != "cmdstat_info")


def _report(outcomes: Dict[int, Outcome]) -> str:
    columns = ("in line", "lock calls", "broker cmds", "KiB each")
    rows = [[f"{count} tasks", *outcome] for count, outcome in outcomes.items()]
    lines = [table(f"G tasks that wait, in {WORKERS} workers; calls of each", columns, rows)]
    fewest, most = outcomes[min(outcomes)], outcomes[max(outcomes)]
    for what in ("lock_calls", "broker_commands"):
        ratio = getattr(most, what) / getattr(fewest, what)
        lines.append(f"  {Goal(f'{what}, most to fewest', Middle.of([ratio]), DEARER)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parked")
    parser.add_argument("counts", type=int, nargs="*", default=[100, 10_000])
    parser.add_argument("--prefetch", type=int, default=4, help="worker_prefetch_multiplier")
    options = parser.parse_args()
    measure(options.counts, options.prefetch)
