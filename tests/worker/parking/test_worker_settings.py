"""Tasks park and go on under the settings that decide how much a worker fetches and runs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Dict, List, Tuple

import pytest
from celery import VERSION

from tests.harness.locked_shop import LockedShop, MakeLockedShop
from tests.harness.pools import PREFORK
from tests.worker.locked_app import resource_of

#: Celery may write a job to a process that ends with its task, and notices after five seconds.
SOON = 60.0

QUORUM = {"task_default_queue_type": "quorum", "worker_detect_quorum_queues": True}

#: Settings, further arguments of the worker, and since which Celery.
SETTINGS: Dict[str, Tuple[Dict[str, Any], List[str], Tuple[int, int]]] = {
    "no prefetch multiplier": ({"worker_prefetch_multiplier": 0}, [], (5, 3)),
    "prefetch multiplier 1": ({"worker_prefetch_multiplier": 1}, [], (5, 3)),
    "disable prefetch": ({"worker_disable_prefetch": True}, [], (5, 6)),
    "limit of ETA tasks": (
        {"worker_eta_task_limit": 8, "worker_prefetch_multiplier": 1},
        [],
        (5, 6),
    ),
    "one task a child": ({}, ["--max-tasks-per-child", "1"], (5, 3)),
    "prefetch multiplier 1, acks late": (
        {"worker_prefetch_multiplier": 1, "task_acks_late": True},
        [],
        (5, 3),
    ),
}


def in_line(shop: LockedShop, account: str, count: int) -> List[Any]:
    results = []
    for number in range(count):
        results.append(shop.send("work", account))
        shop.locks.wait_for_line(account, number + 1)
    return results


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


def assert_parks(shop: LockedShop, account: str, count: int = 4) -> None:
    """As many as that wait, one that need not runs, and they run in their order."""
    with shop.locks.held(account):
        results = in_line(shop, account, count)
        assert shop.send("work", f"{account}-other").get(timeout=SOON) == "done"
        assert shop.send("add", 1, 2).get(timeout=SOON) == 3
    assert [each.get(timeout=SOON) for each in results] == ["done"] * count
    assert ran(shop, account) == [each.id for each in results]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_tasks_park_and_others_go_on(
    make_locked_shop: MakeLockedShop, name: str, account: str
) -> None:
    conf, arguments, since = SETTINGS[name]
    if VERSION[:2] < since:
        pytest.skip(f"{name} is of Celery {since}")
    shop = make_locked_shop(**conf)
    shop.worker(pool=PREFORK, concurrency=1, arguments=arguments)
    assert_parks(shop, account, count=2 if "child" in name else 4)


def test_tasks_park_on_a_quorum_queue(make_locked_shop: MakeLockedShop, account: str) -> None:
    if VERSION < (5, 5):
        pytest.skip("quorum queues are of Celery 5.5")
    shop = make_locked_shop("rabbitmq", worker_prefetch_multiplier=2, **QUORUM)
    shop.worker(pool=PREFORK, concurrency=1)
    assert_parks(shop, account, count=6)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_tasks_with_priorities_park_and_go_back_with_them(
    make_locked_shop: MakeLockedShop, broker: str, account: str
) -> None:
    shop = make_locked_shop(broker, task_queue_max_priority=9, worker_prefetch_multiplier=1)
    worker = shop.worker(pool=PREFORK, concurrency=1)
    with shop.locks.held(account):
        # What comes first is what asks first, whatever its priority.
        results = []
        for number, priority in enumerate((6, 0, 3)):
            results.append(shop.task("work").apply_async((account,), priority=priority))
            shop.locks.wait_for_line(account, number + 1)
        assert worker.stop(SOON)
        shop.worker(pool=PREFORK, concurrency=1)
        shop.locks.wait_for_line(account, 3)
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 3
    # In which order they are received again is up to the broker.
    assert sorted(ran(shop, account)) == sorted(each.id for each in results)


def test_parked_tasks_start_no_processes_until_they_are_granted(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    worker = shop.worker(pool=PREFORK, concurrency=1, arguments=["--autoscale=3,1"])
    accounts = [f"{account}-{number}" for number in range(3)]
    gate = shop.gate()
    with ExitStack() as held:
        results = []
        for each in accounts:
            held.enter_context(shop.locks.held(each))
            results.append(shop.send("work", each, gate.path))
            shop.locks.wait_for_line(each, 1)
        assert "Scaling up" not in worker.output()
    for each in accounts:
        shop.bodies.wait_for(count_started=1, resource=resource_of(each), timeout=SOON)
    gate.open()
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 3
