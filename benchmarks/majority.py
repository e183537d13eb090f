"""A5: one acquire and release that nobody contends, over five independent servers (Redlock).

Ours goes the way of a task, as in A1, beside redlock-py and pottery where they are installed. Then
what distance costs, counted in round trips, and what it costs that one of the five hangs or is
dead.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle, islice
from time import perf_counter, sleep
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import redis
from celery import Celery

from benchmarks.delaying import delayed
from benchmarks.measure import Turn, figure, ratio, take_turns
from benchmarks.report import Goal, table
from celery_redlock.core.ports import Terms
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Held, Patience
from tests.harness.independent import Independent

OURS, REDLOCK_PY, POTTERY = "celery_redlock", "redlock-py", "pottery"
HEALTHY, HUNG, DEAD = "all five", "one hung", "one dead"
PLAIN, FENCED = "acquire, release", "with the fence"

#: Seconds. Also what a new server waits for before it votes.
LEASE = 2

ROUND_TRIP = 0.01

#: Seconds in which a server that has gone is found out.
_FOUND_OUT = 1.0

#: Cycles at the beginning of a turn that are not counted: whoever came before has left the
#: processor's caches full of his own.
_WARM = 3

#: One lock of this resource, taken and freed.
Cycle = Callable[[str], None]


class Size(NamedTuple):
    rounds: int
    cycles: int


FULL, QUICK = Size(rounds=60, cycles=100), Size(rounds=6, cycles=40)


def run(quick: bool) -> None:
    """Measure and print."""
    size = QUICK if quick else FULL
    # Five that all use, and one each to hang and to die.
    with Independent(7) as independent:
        independent.let_vote(LEASE)
        urls = independent.urls
        print(_against_others(urls[:5], size))
        print(_at_a_distance(urls[:5], size._replace(cycles=size.cycles // 5)))
        print(_without_one(independent, size))


def _against_others(urls: Sequence[str], size: Size) -> str:
    others = {REDLOCK_PY: _redlock_py(urls), POTTERY: _pottery(urls)}
    lines = [
        f'  {name} is not installed (the extra "bench")'
        for name, each in others.items()
        if each is None
    ]
    there = {name: each for name, each in others.items() if each is not None}
    with _ours(urls) as ours:
        rounds = take_turns(_turns({OURS: ours, **there}, size), size.rounds)
    rows = [[name, figure(rounds, name, "rate")] for name in (OURS, *there)]
    for name, bound in ((REDLOCK_PY, 2.0), (POTTERY, 5.0)):
        if name in there:
            rate = ratio(rounds, OURS, name, "rate")
            lines.append(f"  {Goal(f'cycles/s, of those of {name}', rate, bound, True)}")
    return "\n".join([table("A5 over five servers", ("cycles/s",), rows), *lines]) + "\n"


def _at_a_distance(urls: Sequence[str], size: Size) -> str:
    with delayed(urls, ROUND_TRIP / 2) as far, _ours(far) as plain, _ours(far, True) as fenced:
        rounds = take_turns(_turns({PLAIN: plain, FENCED: fenced}, size), size.rounds)
    bounds = {PLAIN: 2.5, FENCED: 3.5}
    rows = [[name, figure(rounds, name, "trips")] for name in bounds]
    lines = [table("A5 with 10 ms there and back", ("round trips",), rows)]
    for name, bound in bounds.items():
        lines.append(f"  {Goal(f'{name}: round trips', figure(rounds, name, 'trips'), bound)}")
    return "\n".join(lines) + "\n"


def _without_one(independent: Independent, size: Size) -> str:
    urls, hung, dead = independent.urls[:4], independent.servers[5], independent.servers[6]
    with ExitStack() as stack:
        cycles = {
            HEALTHY: stack.enter_context(_ours(independent.urls[:5])),
            HUNG: stack.enter_context(_ours([*urls, hung.url])),
            DEAD: stack.enter_context(_ours([*urls, dead.url])),
        }
        hung.pause()
        stack.callback(hung.resume)
        dead.kill()
        for each in cycles.values():
            each("found out")
            sleep(_FOUND_OUT)
        rounds = take_turns(_turns(cycles, size), size.rounds)
    rows = [[name, figure(rounds, name, "us"), figure(rounds, name, "worst")] for name in cycles]
    lines = [table("A5 without one of five", ("µs a cycle", "worst µs"), rows)]
    for name in (HUNG, DEAD):
        goal = Goal(f"{name}: time of {HEALTHY}", ratio(rounds, name, HEALTHY, "us"), 1.2)
        lines.append(f"  {goal}")
    return "\n".join(lines) + "\n"


def _turns(cycles: Mapping[str, Cycle], size: Size) -> Dict[str, Callable[[], Turn]]:
    turns = {name: partial(_turn, each, _names(), size.cycles) for name, each in cycles.items()}
    take_turns(turns, 2)  # connections, scripts, threads and caches are there from here on
    return turns


def _names() -> Iterator[str]:
    return cycle([f"account:{number}" for number in range(100)])


def _turn(each: Cycle, names: Iterator[str], cycles: int) -> Turn:
    took: List[float] = []
    for name in islice(names, _WARM):
        each(name)
    for name in islice(names, cycles):
        began = perf_counter()
        each(name)
        took.append(perf_counter() - began)
    mean = sum(took) / cycles
    return {
        "rate": 1 / mean,
        "us": mean * 1e6,
        "worst": max(took) * 1e6,
        "trips": mean / ROUND_TRIP,
    }


@contextmanager
def _ours(urls: Sequence[str], looks_at_fence: bool = False) -> Iterator[Cycle]:
    app = Celery("benchmarks", set_as_current=False)
    app.conf.update(redlock_url=list(urls), redlock_ttl=LEASE)
    runtime = runtime_of(app)
    manager, terms = runtime.manager, Terms(lease_ms=LEASE * 1000)

    def once(resource: str) -> None:
        hold = Hold(resource, terms, runtime.record("benchmarks.task", "id"))
        assert isinstance(manager.acquire(hold, Patience()), Held)
        assert not looks_at_fence or hold.shown_fence
        manager.release(hold)

    yield once
    manager.stop()
    manager.store.close()


def _redlock_py(urls: Sequence[str]) -> Optional[Cycle]:
    try:
        module = importlib.import_module("redlock")
    except ImportError:
        return None
    locks = module.Redlock(list(urls))

    def once(resource: str) -> None:
        lock = locks.lock(resource, LEASE * 1000)
        assert lock
        locks.unlock(lock)

    return once


def _pottery(urls: Sequence[str]) -> Optional[Cycle]:
    try:
        module = importlib.import_module("pottery")
    except ImportError:
        return None
    masters = {redis.Redis.from_url(url) for url in urls}

    def once(resource: str) -> None:
        lock = module.Redlock(key=resource, masters=masters, auto_release_time=LEASE)
        assert lock.acquire()
        lock.release()

    return once
