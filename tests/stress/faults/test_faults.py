"""Workers under random faults: no silent overlap, no lost task, nothing left behind.

The seed stands in the test's name; a failure shows the plan, what was done, and the counts, as does
``pytest -rA``. ``REDLOCK_TEST_SEED=17`` runs this one again.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, Iterator, List, Optional

import pytest
from billiard.exceptions import WorkerLostError

from celery_redlock import LockLost
from celery_redlock.core.ports import ResourceView
from tests.harness.locked_shop import eventually
from tests.harness.pools import is_installed
from tests.harness.servers import missing
from tests.stress.faults.app import diary_of
from tests.stress.faults.arena import Arena
from tests.stress.faults.judge import Judge, read_diaries
from tests.stress.faults.lost import Lost
from tests.stress.faults.plan import BROKERS, LEASE, POOLS, RESOURCES, Plan, Variant, draw
from tests.stress.faults.turns import Turns, Waits

#: Of which the faults take this, and the start and the aftermath the rest.
SHORT = 30.0
LONG = 60.0

#: A lease, a line of a few and a worker on a busy machine.
SOON = 20.0

#: A fixed one, and this run's.
SEEDS = (1, int(os.environ["REDLOCK_TEST_SEED"]))

VARIANTS = [Variant(*each) for each in product(POOLS, BROKERS, (True, False))]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS, ids="seed-{}".format)
def test_under_random_faults_no_overlap_is_silent_no_task_is_lost_and_nothing_is_left(
    seed: int, tmp_path: Path
) -> None:
    run_and_judge(draw(seed, SHORT), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(360)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_same_for_minutes_on_every_pool_and_broker(variant: Variant, tmp_path: Path) -> None:
    run_and_judge(draw(random.randrange(10**6), LONG, variant), tmp_path)


def run_and_judge(plan: Plan, directory: Path) -> None:
    if not is_installed(plan.variant.pool):
        missing(plan.variant.pool)
    with Arena(plan, directory) as arena:
        tell(f"plan: {plan}")
        arena.run()
        unended, lost = arena.settle()
        found = [*tasks_lost(unended, lost), *failures(arena), *not_granted(arena)]
        found += what_is_left(arena)
        bodies, deeds = arena.shop.bodies.bodies(), arena.deeds
        diaries = read_diaries(diary_of(arena.shop.bodies.path))
        judge = Judge(bodies, diaries, deeds.deaths, deeds.harms, plan.lease)
        waits = Waits.of(arena.mail.events(), diaries.asked)
        turns = Turns(bodies, waits, judge.end_of, deeds.deaths, deeds.harms)
        found += judge.faults()
        found += turns.faults(plan.judged)
        tell("done:", *deeds.done, *counts(arena, judge), *medians(turns))
        tell(*(f"{lost.reason(task_id)}: {lost.told(task_id)}" for task_id in unended))
    assert not found, "\n".join(found)


def tell(*lines: str) -> None:
    """Shown when the test fails, and by ``pytest -rA``."""
    sys.stdout.write("\n".join(lines) + "\n")


def tasks_lost(unended: List[str], lost: Lost) -> Iterator[str]:
    """Celery and the broker lose some where they are killed or cut off; we lose none."""
    for task_id in unended:
        if lost.reason(task_id) is None:
            yield f"did not end: {lost.told(task_id)}"


def failures(arena: Arena) -> Iterator[str]:
    for result in arena.results:
        if result.state == "FAILURE" and not is_excused(arena, result.result):
            yield f"{result.id} failed with {result.result!r}"


def is_excused(arena: Arena, error: Any) -> bool:
    if isinstance(error, WorkerLostError):
        return not arena.plan.variant.acks_late
    # Interrupted before its first line or after its last.
    return type(error) is LockLost and arena.plan.task != "linger"


def what_is_left(arena: Arena) -> Iterator[str]:
    """Of every resource its fence, and no holder and no waiter; and nobody who renews anything."""
    if not eventually(lambda: all(map(is_free, arena.views().values())), SOON):
        yield f"left on the server: {arena.views()}"
    # Longer than a renewal's interval.
    if not eventually(lambda: arena.is_quiet(LEASE / 2), SOON):
        yield "the lock server is still asked for something"


def is_free(view: ResourceView) -> bool:
    return (
        bool(view.fence)
        and not view.waiters
        and not any(holder.remaining_ms > 0 for holder in view.holders)
    )


def not_granted(arena: Arena) -> Iterator[str]:
    """Every resource is granted to new tasks, to one that wants two as well."""
    pairs = [[number, (number + 1) % RESOURCES] for number in range(RESOURCES)]
    results = [arena.shop.send("strike", numbers, 0.01) for numbers in pairs]
    if not eventually(lambda: all(result.ready() for result in results), SOON):
        yield f"not granted within {SOON} s: {[result.state for result in results]}"
    yield from (
        f"a task after the faults ended as {result.result!r}"
        for result in results
        if result.ready() and result.result != "sure"
    )


def counts(arena: Arena, judge: Judge) -> Iterator[str]:
    bodies = arena.shop.bodies.bodies()
    yield f"seed {arena.plan.seed}, {arena.plan.variant}: {len(arena.deeds.done)} faults"
    yield f"tasks: {dict(Counter(word(result) for result in arena.results))}"
    yield f"bodies: {len(bodies)}, {sum(body.end is None for body in bodies)} of them killed"
    yield f"overlaps, all of them known: {judge.overlaps}; losses: {judge.losses}"
    yield f"late copies: {arena.proxy.late_copies}"


def medians(turns: Turns) -> Iterator[str]:
    for after, times in turns.empty().items():
        if times:
            told = f"{median(times):.3f} s, mean {mean(times):.3f} s, at most {max(times):.3f} s"
            yield f"empty after {len(times)} {after}: {told}"


def word(result: Any) -> Optional[str]:
    if result.state != "SUCCESS":
        return str(result.state)
    return result.result if isinstance(result.result, str) else "skipped"
