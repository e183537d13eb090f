"""A1: one acquire and release that nobody contends, with every feature on, on one server.

Ours goes the way of a task: a record of who holds it, a place in line offered, events to their
sinks, the watchdog told. Client and server share one CPU, so that pairs/s says what both spend.
Each parser of redis-py (hiredis, or its own in Python) is measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Callable, List, NamedTuple, Tuple

import redis
from celery import Celery
from redis.utils import HIREDIS_AVAILABLE

from benchmarks.measure import Round, Turn, cpu_seconds, figure, one_cpu, ratio, take_turns
from benchmarks.report import Goal, table
from celery_redlock.core.ports import Terms
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Held, Patience
from tests.harness.servers import LockServer

OURS, THEIRS = "celery_redlock", "redis-py Lock"

#: As many names as a busy worker might lock in turn.
RESOURCES = 100

_ROOT = Path(__file__).resolve().parents[1]

#: Takes and frees the resource once, for the task of this id.
Pair = Callable[[str, str], None]


class Size(NamedTuple):
    rounds: int
    pairs: int


FULL, QUICK = Size(rounds=150, pairs=100), Size(rounds=20, pairs=50)


class Bounds(NamedTuple):
    parser: str
    pairs: float
    cpu: float


_WITH = Bounds("with hiredis", pairs=2.3, cpu=0.30)
_WITHOUT = Bounds("without hiredis", pairs=1.5, cpu=0.50)


def run(quick: bool) -> None:
    """Measure with both parsers and print."""
    with one_cpu() as pinned, LockServer.start() as server:
        for bounds in (_WITH, _WITHOUT):
            if bounds is _WITH and not find_spec("hiredis"):
                print("A1 with hiredis: hiredis is not installed\n")
                continue
            rounds = _measured(server, bounds is _WITH, QUICK if quick else FULL)
            print(_report(rounds, bounds, pinned))


def _measured(server: LockServer, hiredis: bool, size: Size) -> List[Round]:
    """The rounds, played in a process that has, or has not, hiredis."""
    hide = "" if hiredis else "import sys; sys.modules['hiredis'] = None\n"
    code = f"{hide}from benchmarks import uncontended; uncontended.play()"
    numbers = (server.pid, size.rounds, size.pairs)
    command = [sys.executable, "-c", code, server.url, *map(str, numbers)]
    played = subprocess.run(command, cwd=str(_ROOT), stdout=subprocess.PIPE, check=True)
    answer = json.loads(played.stdout)
    assert answer["hiredis"] == hiredis, "redis-py did not use the parser meant"
    rounds: List[Round] = answer["rounds"]
    return rounds


def _report(rounds: List[Round], bounds: Bounds, pinned: bool) -> str:
    where = "one CPU" if pinned else "CPUs not pinned"
    title = f"A1 uncontended acquire and release, one server, {where}, {bounds.parser}"
    columns = ("pairs", "cpu", "server", "trips")
    rows = [[name, *(figure(rounds, name, c) for c in columns)] for name in (OURS, THEIRS)]
    lines = [table(title, ("pairs/s", "client CPU µs", "server CPU µs", "round trips"), rows)]
    lines += [
        f"  {goal}"
        for goal in (
            Goal("pairs/s, ratio", ratio(rounds, OURS, THEIRS, "pairs"), bounds.pairs, True),
            Goal("client CPU, ratio", ratio(rounds, OURS, THEIRS, "cpu"), bounds.cpu),
            Goal("round trips", figure(rounds, OURS, "trips"), 2.0),
        )
    ]
    return "\n".join(lines) + "\n"


class Look(NamedTuple):
    """At the server from outside."""

    client: Any
    pid: int

    def reads(self) -> int:
        """How often it has read from a client: once a round trip, whatever a script does."""
        return int(self.client.info("stats")["total_reads_processed"])

    def cpu(self) -> float:
        return cpu_seconds(self.pid)


def play() -> None:
    """In the measuring process: take the turns and print them as JSON."""
    url, (server, rounds, pairs) = sys.argv[1], map(int, sys.argv[2:])
    look = Look(redis.Redis.from_url(url), server)
    names = cycle([f"account:{number}" for number in range(RESOURCES)])
    calls = [(name, str(uuid.uuid4())) for name in islice(names, pairs * 10)]
    contestants = {
        name: _turns_of(pair, calls, pairs, look)
        for name, pair in ((OURS, _ours(url)), (THEIRS, _theirs(url)))
    }
    take_turns(contestants, 2)  # connections, scripts, threads and caches are there from here on
    played = take_turns(contestants, rounds)
    print(json.dumps({"hiredis": HIREDIS_AVAILABLE, "rounds": played}))


def _ours(url: str) -> Pair:
    app = Celery("benchmarks", set_as_current=False)
    app.conf.update(redlock_url=url, redlock_restart_grace=0)
    runtime = runtime_of(app)
    terms = Terms()

    def pair(resource: str, task_id: str) -> None:
        hold = Hold(resource, terms, runtime.record("benchmarks.task", task_id))
        outcome = runtime.manager.acquire(hold, Patience())
        assert isinstance(outcome, Held)
        runtime.manager.release(hold)

    return pair


def _theirs(url: str) -> Pair:
    client = redis.Redis.from_url(url)

    def pair(resource: str, _task_id: str) -> None:
        lock = client.lock(resource, timeout=30)
        assert lock.acquire()
        lock.release()

    return pair


def _turns_of(
    pair: Pair, calls: List[Tuple[str, str]], pairs: int, look: Look
) -> Callable[[], Turn]:
    endless = cycle(calls)

    def turn() -> Turn:
        todo = list(islice(endless, pairs))
        reads, server = look.reads(), look.cpu()
        wall, cpu = perf_counter(), process_time()
        for resource, task_id in todo:
            pair(resource, task_id)
        wall, cpu = perf_counter() - wall, process_time() - cpu
        server = look.cpu() - server
        # The second look is itself a read of the server's.
        trips = look.reads() - reads - 1
        return {
            "pairs": pairs / wall,
            "cpu": cpu / pairs * 1e6,
            "server": server / pairs * 1e6,
            "trips": trips / pairs,
        }

    return turn
