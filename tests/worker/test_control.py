"""Remote control and ``celery redlock explain``, on real workers."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from typing import Any, Callable, Dict, List

import pytest
from celery.result import AsyncResult

from celery_redlock.core.ports import Terms
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Held
from celery_redlock.store.urls import safe
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.worker import ROOT, WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0

#: Seconds for which the command line collects answers, however soon they are all there.
REPLIES = "4"

Workers = List[WorkerProcess]


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    return make_locked_shop(redlock_allow_release=True)


@pytest.fixture(scope="module")
def workers(shop: LockedShop) -> Workers:
    """Two of them on one queue."""
    workers = [shop.worker(ready=False, concurrency=3) for _ in range(2)]
    for worker in workers:
        worker.wait_until_ready()
    return workers


def wait_for_body(shop: LockedShop, account: str, count: int = 1) -> None:
    shop.bodies.wait_for(count_started=count, resource=resource_of(account), timeout=SOON)


def held_by(shop: LockedShop, workers: Workers) -> Dict[str, List[Dict[str, Any]]]:
    """What each worker says that it holds."""
    nodes = [worker.nodename for worker in workers]
    replies = shop.app.control.inspect(destination=nodes, timeout=SOON, limit=len(nodes))._request(
        "redlock_held"
    )
    assert set(replies) == set(nodes)
    return {node: reply["held"] for node, reply in replies.items()}


def celery(shop: LockedShop, *words: str) -> str:
    """Celery's command line, as an operator has it."""
    run = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tests.worker.locked_app", *words],
        cwd=str(ROOT),
        env={**os.environ, **shop.settings.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.needs("processes")
def test_each_worker_tells_of_what_its_own_children_hold(
    shop: LockedShop, workers: Workers, account: str
) -> None:
    gate = shop.gate()
    others = [f"{account}-{number}" for number in range(2)]
    results = [shop.send("work", name, gate.path) for name in others]
    for name in others:
        wait_for_body(shop, name)
    with shop.locks.held(account):
        answers = held_by(shop, workers)
    mine = {resource_of(name): result.id for name, result in zip(others, results)}
    told = [entry for held in answers.values() for entry in held if entry["resource"] in mine]
    assert {entry["resource"]: entry["task_id"] for entry in told} == mine
    assert resource_of(account) not in [e["resource"] for held in answers.values() for e in held]
    for worker in workers:
        for entry in answers[worker.nodename]:
            # It was granted to the worker's parent, which its record names at first.
            assert entry["pid"] in [worker.pid, *worker.pids()]
            assert entry["task"] == "shop.work"
            assert entry["lease_left"] > 0
    gate.open()
    assert [result.get(timeout=SOON) for result in results] == ["done"] * 2


def test_the_command_line_lists_what_is_held(
    shop: LockedShop, workers: Workers, account: str
) -> None:
    gate = shop.gate()
    result = shop.send("work", account, gate.path)
    wait_for_body(shop, account)
    told = celery(shop, "inspect", "redlock_held", "--timeout", REPLIES, "--json")
    replies = json.loads(told[told.index("{") :].splitlines()[0])
    held = [entry for reply in replies.values() for entry in reply["held"]]
    assert [entry["task_id"] for entry in held] == [result.id]
    assert resource_of(account) in celery(shop, "redlock", "ls")
    gate.open()
    result.get(timeout=SOON)


def test_the_command_line_names_the_lock_server_of_each_worker(
    shop: LockedShop, workers: Workers
) -> None:
    told = celery(shop, "inspect", "redlock_server", "--timeout", REPLIES, "--json")
    replies = json.loads(told[told.index("{") :].splitlines()[0])
    url = safe(shop.settings.lock_url)
    assert replies == {worker.nodename: {"servers": [url]} for worker in workers}


def test_the_command_line_explains_a_task_that_waits_and_one_that_has_ended(
    shop: LockedShop, workers: Workers, account: str
) -> None:
    gate, resource = shop.gate(), resource_of(account)
    holds = shop.send("work", account, gate.path)
    wait_for_body(shop, account)
    waits = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    told = celery(shop, "redlock", "explain", waits.id).splitlines()
    assert told[0].startswith(f"shop.work[{waits.id}] waits for {resource} for ")
    assert told[0].endswith(": 1st of 1 in line")
    assert told[1].startswith(f"  held by shop.work[{holds.id}] on w")
    gate.open()
    assert [holds.get(timeout=SOON), waits.get(timeout=SOON)] == ["done"] * 2
    told = celery(shop, "redlock", "explain", waits.id).splitlines()
    assert told[0].startswith(f"{waits.id} neither holds a lock nor waits for one")
    assert "the result backend says SUCCESS" in told[1]


def test_every_worker_answers_what_it_keeps_and_what_is_reserved(
    shop: LockedShop, workers: Workers
) -> None:
    nodes = {worker.nodename for worker in workers}
    inspect = shop.app.control.inspect(destination=list(nodes), timeout=SOON, limit=len(nodes))
    assert inspect._request("redlock_parked") == {
        node: {"parked": [], "count": 0} for node in nodes
    }
    assert set(inspect.reserved()) == nodes


def test_a_release_by_remote_control_ends_one_hold_and_tells_its_body(
    shop: LockedShop, workers: Workers, account: str
) -> None:
    resource = resource_of(account)
    first = shop.send("work_until_lost", account)
    wait_for_body(shop, account)
    (stale,) = shop.locks.holders(account)
    waiting: List[AsyncResult] = []
    for number in range(2):
        waiting.append(shop.send("work_until_lost", account))
        shop.locks.wait_for_line(account, number + 1)

    told = celery(shop, "control", "redlock_release", resource, "--timeout", REPLIES)
    assert f"[{first.id}]" in told
    # It went to both workers, and one of the three holds is over.
    assert len(told.splitlines()) >= 2
    assert first.get(timeout=SOON) == "lost"
    assert shop.locks.holding_tasks(account) == [waiting[0].id]
    assert shop.locks.waiting_tasks(account) == [waiting[1].id]
    # Who asked is told by the worker that did it and by the one that lost it.
    asker = rf"@{socket.gethostname()} through w\d+@localhost"
    for words in (
        f"{asker} released {resource} by force",
        rf"lost {resource}: forced by \S+{asker}",
    ):
        assert eventually(lambda words=words: said_by(workers, words) == 1), words
    wait_for_body(shop, account, 2)

    for number, result in enumerate(waiting, 3):
        release_with_fence(shop, workers, resource, stale.fence)  # ended long ago: nothing more
        (holder,) = shop.locks.holders(account)
        assert shop.locks.holding_tasks(account) == [result.id]
        release_with_fence(shop, workers, resource, holder.fence)
        assert result.get(timeout=SOON) == "lost"
        if number == 3:
            wait_for_body(shop, account, number)
    fences = [body.fence or 0 for body in shop.bodies_of(account)]
    assert fences == sorted(set(fences))


def said_by(workers: Workers, words: str) -> int:
    """In how many lines the workers said that; ``words`` is a regular expression."""
    lines = [line for worker in workers for line in worker.output().splitlines()]
    return sum(bool(re.search(words, line)) for line in lines)


def release_with_fence(shop: LockedShop, workers: Workers, resource: str, fence: int) -> None:
    nodes = [worker.nodename for worker in workers]
    replies = shop.app.control.broadcast(
        "redlock_release",
        arguments={"resource": resource, "fence": fence},
        destination=nodes,
        reply=True,
        timeout=SOON,
        limit=len(nodes),
    )
    assert all("ok" in answer for reply in replies for answer in reply.values()), replies


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_worker_whose_bodies_run_in_its_own_process_tells_of_them_too(
    make_locked_shop: Callable[..., LockedShop], account: str, pool: str
) -> None:
    shop = make_locked_shop()
    manager = runtime_of(shop.app).manager
    # By this process, as a body of the worker's would: one of a solo worker lets it answer nothing.
    hold = Hold(resource_of(account), Terms(), runtime_of(shop.app).record("shop.work", "id"))
    with shop.embedded_worker(pool) as worker:
        assert isinstance(manager.acquire(hold), Held)
        node = worker.hostname
        told: Dict[str, Any] = {}

        def has_told() -> bool:
            # What is broadcast before the worker listens is heard by nobody.
            inspect = shop.app.control.inspect(destination=[node], timeout=2.0, limit=1)
            told.update(inspect._request("redlock_held") or {})
            return node in told

        assert eventually(has_told, SOON)
        manager.release(hold)
    assert resource_of(account) in [entry["resource"] for entry in told[node]["held"]]
