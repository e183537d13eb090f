"""C: what a lock adds to the CPU time of a worker for each task that does nothing.

One prefork worker with one child, the broker and the locks on servers of their own. A turn is so
many tasks of one kind: published while the worker is stopped, so that it finds them all there, then
timed from its continuing to the last acknowledgement.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from benchmarks.measure import (
    Round,
    Turn,
    above,
    cpu_seconds,
    figure,
    ratio,
    ratio_above,
    take_turns,
)
from benchmarks.noop_app import BROKER, DONE, LOCKS, make_app
from benchmarks.report import Goal, table
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess

PLAIN, OURS, THEIRS = "plain", "LockedTask", "redis-py in body"
_TASKS = {PLAIN: "plain", OURS: "locked", THEIRS: "locked_in_body"}

RESOURCES = 100
TURN_WITHIN = 120.0

#: What we ask the broker for during a turn; the worker uses neither.
_OWN_COMMANDS = ("cmdstat_exists", "cmdstat_info")


class Size(NamedTuple):
    rounds: int
    tasks: int


# Many short turns: they share what disturbs the machine, where two long ones would not.
FULL, QUICK = Size(rounds=40, tasks=300), Size(rounds=3, tasks=150)


def run(quick: bool) -> None:
    """Measure and print."""
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        track = _Track(stack, size.tasks)
        contestants = {name: track.turns_of(task) for name, task in _TASKS.items()}
        take_turns(contestants, 1)  # what is made at first use is there from here on
        print(_report(take_turns(contestants, size.rounds), size))


class _Track:
    """The servers and the worker, and how a turn is run on them."""

    def __init__(self, stack: ExitStack, tasks: int) -> None:
        self._tasks = tasks
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-bench-")))
        broker = stack.enter_context(LockServer.start())
        locks = stack.enter_context(LockServer.start())
        self._broker = stack.enter_context(broker.client())
        self._locks = stack.enter_context(locks.client())
        place = {BROKER: broker.url, LOCKS: locks.url}
        self._app = stack.enter_context(make_app(place))
        self._worker = WorkerProcess(directory, place, app="benchmarks.noop_app", concurrency=1)
        stack.callback(self._worker.kill)
        self._worker.start()
        self._pids = (self._worker.pid, *self._worker.pids())

    def turns_of(self, task: str) -> Any:
        return lambda: self._turn(self._app.tasks[task])

    def _turn(self, task: Any) -> Turn:
        os.kill(self._worker.pid, signal.SIGSTOP)
        try:
            for number in range(self._tasks):
                task.apply_async((number % RESOURCES,))
            self._app.tasks["done"].apply_async()
            before = self._figures()
        finally:
            os.kill(self._worker.pid, signal.SIGCONT)
        self._await_done(task.name)
        after = self._figures()
        return {what: (after[what] - before[what]) / self._tasks for what in after}

    def _figures(self) -> Dict[str, float]:
        """Totals so far: worker CPU in µs, broker commands, round trips to the lock server."""
        commands = self._broker.info("commandstats").items()
        return {
            "cpu": sum(map(cpu_seconds, self._pids)) * 1e6,
            "broker": sum(c["calls"] for name, c in commands if name not in _OWN_COMMANDS),
            "trips": self._locks.info("stats")["total_reads_processed"],
        }

    def _await_done(self, name: str) -> None:
        """Until the last task has run and everything is acknowledged."""
        deadline = time.monotonic() + TURN_WITHIN
        # A second at a time: redis-py's own timeout of a read is shorter than a turn may be.
        while not self._locks.blpop([DONE], timeout=1):
            assert time.monotonic() < deadline, f"{name}: {self._worker.output()[-4000:]}"
        while self._broker.exists("unacked", "celery"):
            assert time.monotonic() < deadline, "a message was never acknowledged"
            time.sleep(0.005)


def _report(rounds: List[Round], size: Size) -> str:
    rows = [
        [
            name,
            figure(rounds, name, "cpu"),
            above(rounds, name, PLAIN, "cpu") if name != PLAIN else "",
            figure(rounds, name, "broker"),
            figure(rounds, name, "trips"),
        ]
        for name in _TASKS
    ]
    title = f"C no-op task, prefork worker with one child, {size.rounds} × {size.tasks} tasks"
    columns = ("worker CPU µs", "added CPU µs", "broker cmds", "lock trips")
    goals = (
        Goal("added CPU, ratio", ratio_above(rounds, OURS, THEIRS, PLAIN, "cpu"), 0.6),
        Goal("broker commands, ratio to plain", ratio(rounds, OURS, PLAIN, "broker"), 1.0),
    )
    return "\n".join([table(title, columns, rows), *(f"  {goal}" for goal in goals)]) + "\n"
