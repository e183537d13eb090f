"""Hundreds of parked tasks while children and workers are killed and stopped, and the lock server.

Nobody is lost, nobody runs beside another, who stands in line for a worker that nothing befalls
keeps his place, and nothing is left behind.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import List, Sequence

import pytest

from tests.harness.locked_shop import eventually
from tests.stress.faults.app import diary_of
from tests.stress.faults.crowded import OF_CHILDREN, OF_SERVER, OF_WORKERS, CrowdedArena
from tests.stress.faults.judge import Judge, read_diaries
from tests.stress.faults.plan import Plan, Variant, draw
from tests.stress.faults.test_faults import (
    SOON,
    counts,
    failures,
    not_granted,
    tasks_lost,
    tell,
    what_is_left,
)

RABBITMQ = Variant("prefork", "rabbitmq", True)
REDIS = Variant("prefork", "redis", True)


@pytest.mark.timeout(180)
def test_many_wait_while_a_worker_stands_still_and_its_children_are_killed(
    tmp_path: Path,
) -> None:
    run_and_judge(_plan(REDIS, OF_CHILDREN, 3.0), tmp_path, tasks=120, seconds=0.12)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", [RABBITMQ, REDIS], ids=str)
def test_hundreds_wait_while_a_worker_and_its_children_are_killed_and_stopped(
    variant: Variant, tmp_path: Path
) -> None:
    run_and_judge(_plan(variant, OF_WORKERS, 15.0), tmp_path, tasks=300, seconds=0.25)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", [RABBITMQ, REDIS], ids=str)
def test_hundreds_wait_while_the_lock_server_stops_and_loses_all_it_knew(
    variant: Variant, tmp_path: Path
) -> None:
    plan = _plan(variant, [*OF_WORKERS, *OF_SERVER], 20.0)
    run_and_judge(plan, tmp_path, tasks=300, seconds=0.25)


def _plan(variant: Variant, kinds: Sequence[str], seconds: float) -> Plan:
    seed = int(os.environ.get("REDLOCK_FAULTS_SEED", random.randrange(10**6)))
    return draw(seed, seconds, variant, kinds)


def run_and_judge(plan: Plan, directory: Path, tasks: int, seconds: float) -> None:
    with CrowdedArena(plan, directory, tasks, seconds) as arena:
        tell(f"plan: {plan}")
        arena.run()
        unended, lost = arena.settle()
        found = [*tasks_lost(unended, lost), *failures(arena), *not_granted(arena)]
        found += what_is_left(arena)
        if not eventually(lambda: not arena.left_keys(), SOON):
            found.append(f"left on the lock server: {arena.left_keys()}")
        if not eventually(lambda: set(arena.parked().values()) == {0}, SOON):
            found.append(f"still parked: {arena.parked()}")
        judge = Judge(
            arena.shop.bodies.bodies(),
            read_diaries(diary_of(arena.shop.bodies.path)),
            arena.deeds.deaths,
            arena.deeds.harms,
        )
        found += judge.faults()
        found += arena.not_once()
        if not _kinds(plan, OF_SERVER):
            found += arena.out_of_order()
        if not any(kind.startswith("stop") for kind in _kinds(plan)) and judge.overlaps:
            found.append(f"{judge.overlaps} bodies ran beside others")
        tell("done:", *arena.deeds.done, *counts(arena, judge), f"in line: {arena.most}")
        tell(*(f"{lost.reason(task_id)}: {lost.told(task_id)}" for task_id in unended))
        # Else it has shown nothing. Where all slots are busy the others wait for one, not in line.
        assert arena.most > tasks / 10
    assert not found, "\n".join(found)


def _kinds(plan: Plan, among: Sequence[str] = ()) -> List[str]:
    kinds = [fault.kind for fault in plan.faults]
    return [kind for kind in kinds if kind in among] if among else kinds
