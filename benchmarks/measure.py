"""Paired measuring: the contestants take turns many times within one run.

What disturbs the machine for a while then disturbs all of them, so a ratio within one round means
something where a figure alone does not. A result is the median of the rounds' ratios, with the
quartiles beside it to say how much the rounds agreed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import contextmanager
from itertools import cycle, permutations
from statistics import median, quantiles
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple

import psutil

#: What one turn measured, by the figure's name.
Turn = Dict[str, float]

#: One turn of each contestant, by its name.
Round = Dict[str, Turn]


class Middle(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Middle:
        values = list(values)
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), low, high)


def take_turns(contestants: Mapping[str, Callable[[], Turn]], rounds: int) -> List[Round]:
    """Each contestant's turn in each round; every order comes up, so nobody profits from his."""
    orders = cycle(permutations(contestants))
    return [{name: contestants[name]() for name in next(orders)} for _ in range(rounds)]


def figure(rounds: List[Round], name: str, what: str) -> Middle:
    """One contestant's figure."""
    return Middle.of(turns[name][what] for turns in rounds)


def ratio(rounds: List[Round], of: str, to: str, what: str) -> Middle:
    """One contestant's figure divided by another's in the same round."""
    return Middle.of(turns[of][what] / turns[to][what] for turns in rounds)


def above(rounds: List[Round], name: str, base: str, what: str) -> Middle:
    """By how much one contestant's figure exceeds that of ``base`` in the same round."""
    return Middle.of(turns[name][what] - turns[base][what] for turns in rounds)


def ratio_above(rounds: List[Round], of: str, to: str, base: str, what: str) -> Middle:
    """The ratio of what two contestants add to ``base``.

    Of medians: differences of single rounds are too noisy to be divided by one another. The
    quartiles are those of the same ratio over rounds drawn anew (bootstrap).
    """

    def over(drawn: List[Round]) -> float:
        return above(drawn, of, base, what).median / above(drawn, to, base, what).median

    draw = random.Random(1).choices
    low, _, high = quantiles((over(draw(rounds, k=len(rounds))) for _ in range(200)), n=4)
    return Middle(over(rounds), low, high)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a living process has used, by the finest clock there is."""
    if sys.platform.startswith("linux"):
        # The process's own clock, as clock_getcpuclockid(3) names it: /proc counts in 10 ms.
        return time.clock_gettime(~pid << 3 | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def one_cpu() -> Iterator[bool]:
    """Keep this process, and what it starts meanwhile, on one CPU; whether that can be had here."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, allowed)
