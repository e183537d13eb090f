"""D: one resource that many tasks want, and others that nobody contends, in one queue.

Half of the tasks lock one resource, the other half one each; they are published in turns while the
workers are stopped, and timed from their continuing. What waits for the one should keep nobody
else from his slot: the ideal is every slot busy, with one of them on the contended resource.

``python -m benchmarks.mixed --help`` has two workers, gevent, RabbitMQ, and what people do without
such a lock: a lock that blocks in the body, and a retry a second later.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from benchmarks.measure import Middle
from benchmarks.mixed_app import BODIES, BODY, BROKER, LOCKS, RUNS, make_app
from benchmarks.report import Goal, table
from tests.harness.broker import RabbitMQ
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess

OURS, FREE = "celery_redlock", "no lock"
_TASKS = {OURS: "ours", FREE: "free"}
_PEERS = {"blocking in body": "blocking", "retry(countdown=1)": "retrying"}

HOT = "hot"
SLOTS = 4
WITHIN = 120.0

#: Commands of ours, and those by which a worker waits: how many depends on the time alone.
_NOT_COUNTED = ("cmdstat_info", "cmdstat_llen", "cmdstat_brpop", "cmdstat_ping")


class Options(NamedTuple):
    tasks: int = 200
    body: float = 0.05
    workers: int = 1
    pool: str = "prefork"
    broker: str = "redis"
    peers: bool = False


class Outcome(NamedTuple):
    """What one way of waiting took, in seconds from the workers' start."""

    others: float
    all: float
    body: float
    wasted: int
    broker: Optional[float]
    gap: float


def run(quick: bool) -> None:
    """Measure and print, with the default options."""
    measure(Options(tasks=20) if quick else Options())


def measure(options: Options) -> None:
    ways = {**_TASKS, **(_PEERS if options.peers else {})}
    outcomes = {}
    for name, task in ways.items():
        with ExitStack() as stack:
            outcomes[name] = _Site(stack, options).outcome(task)
    print(_report(outcomes, options))


class _Site:
    """Servers and workers of their own for each way: none has another's leftovers."""

    def __init__(self, stack: ExitStack, options: Options) -> None:
        self._options = options
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-bench-")))
        locks = stack.enter_context(LockServer.start())
        self._locks = stack.enter_context(locks.client())
        self._broker: Any = None
        if options.broker == "rabbitmq":
            rabbit = RabbitMQ(directory)
            stack.callback(rabbit.stop)
            rabbit.start()
            url = rabbit.url
        else:
            redis_broker = stack.enter_context(LockServer.start())
            self._broker = stack.enter_context(redis_broker.client())
            url = redis_broker.url
        self._bodies = directory / "bodies"
        place = {
            BROKER: url,
            LOCKS: locks.url,
            BODY: str(options.body),
            BODIES: str(self._bodies),
        }
        self._app = stack.enter_context(make_app(place))
        self._workers = [
            WorkerProcess(
                directory,
                place,
                app="benchmarks.mixed_app",
                pool=options.pool,
                concurrency=SLOTS,
            )
            for _ in range(options.workers)
        ]
        for worker in self._workers:
            stack.callback(worker.kill)
            worker.start()

    def outcome(self, task: str) -> Outcome:
        count = 2 * self._options.tasks
        self._signal(signal.SIGSTOP)
        for number in range(self._options.tasks):
            for account in (HOT, f"other-{number}"):
                self._app.tasks[task].apply_async((account,))
        commands, began = self._commands(), time.monotonic()
        self._signal(signal.SIGCONT)
        while len(bodies := self._told()) < count:
            assert time.monotonic() < began + WITHIN, self._workers[0].output()[-4000:]
            time.sleep(0.05)
        hot = sorted((began, ended) for account, began, ended in bodies if account == HOT)
        return Outcome(
            others=max(ended for account, _, ended in bodies if account != HOT) - began,
            all=max(ended for _, _, ended in bodies) - began,
            body=Middle.of(ended - began for _, began, ended in bodies).median,
            wasted=int(self._locks.get(RUNS) or 0) - count,
            broker=self._commands() - commands if self._broker else None,
            gap=Middle.of(after[0] - before[1] for before, after in zip(hot, hot[1:])).median,
        )

    def _told(self) -> List[Any]:
        """Account, begin and end of each body that is over."""
        return [json.loads(line) for line in self._bodies.read_text().splitlines()]

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            for pid in (worker.pid, *worker.pids()):
                os.kill(pid, number)

    def _commands(self) -> float:
        if self._broker is None:
            return 0.0
        stats = self._broker.info("commandstats").items()
        return float(sum(of["calls"] for name, of in stats if name not in _NOT_COUNTED))


def _report(outcomes: Dict[str, Outcome], options: Options) -> str:
    slots = SLOTS * options.workers
    rows: List[List[Any]] = []
    for name, outcome in outcomes.items():
        alone = name == FREE
        ideal_others = options.tasks * outcome.body / (slots - 1)
        rows.append(
            [
                name,
                "" if alone else outcome.others / ideal_others,
                "" if alone else outcome.all / (options.tasks * outcome.body),
                outcome.wasted,
                "" if outcome.broker is None else outcome.broker,
                "" if alone else outcome.gap * 1000,
            ]
        )
    title = (
        f"D {options.tasks} × {options.body * 1000:.0f} ms on one resource and {options.tasks} on "
        f"others; {options.workers} × {SLOTS} slots, {options.pool}, {options.broker}"
    )
    columns = ("others / ideal", "all / ideal", "wasted runs", "broker cmds", "gap ms")
    lines = [table(title, columns, rows)]
    lines += [f"  {goal}" for goal in _goals(rows, outcomes)]
    return "\n".join(lines) + "\n"


def _goals(rows: Sequence[Sequence[Any]], outcomes: Dict[str, Outcome]) -> List[Goal]:
    ours, free = outcomes[OURS], outcomes[FREE]
    _name, others, everything, wasted, _broker, gap = rows[0]
    goals = [
        Goal("others done, of ideal", Middle.of([others]), 1.10),
        Goal("all done, of ideal", Middle.of([everything]), 1.06),
        Goal("wasted runs", Middle.of([float(wasted)]), 0.0),
        Goal("gap between two bodies, ms", Middle.of([gap]), 2.0),
    ]
    if ours.broker is not None and free.broker:
        more = Middle.of([ours.broker / free.broker])
        goals.append(Goal("broker commands, ratio to no lock", more, 1.02))
    return goals


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed")
    parser.add_argument("--tasks", type=int, default=Options().tasks, help="of each half")
    parser.add_argument("--body", type=float, default=Options().body, help="seconds")
    parser.add_argument("--workers", type=int, default=1, help=f"of {SLOTS} slots each")
    parser.add_argument("--pool", default="prefork", choices=("prefork", "threads", "gevent"))
    parser.add_argument("--broker", default="redis", choices=("redis", "rabbitmq"))
    parser.add_argument("--peers", action="store_true", help="what people do without such a lock")
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    measure(_options())
