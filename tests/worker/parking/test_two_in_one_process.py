"""Two workers in one process, of one app or of two: neither touches what is the other's.

Celery means a process to have workers of one app. With those of two it runs tasks as the app's
whose worker was started last. Workers of threads share an event loop as well: here are greenlets.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Iterator, List, Tuple

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.process import Program
from tests.harness.servers import LockServer
from tests.harness.shop import Gate
from tests.harness.worker import ROOT
from tests.worker.locked_app import resource_of
from tests.worker.parking.conftest import needed

SOON = 30.0

#: A lease is 30 seconds.
WELL_UNDER_A_LEASE = 10.0

EMBEDDING = "tests.worker.parking.embedding"
READY = "both workers are ready"
ENDED = "the first worker has ended"


class Embedded:
    """The process; each worker is of a shop, with its node's name and its queue."""

    def __init__(self, *workers: Tuple[LockedShop, str, str]) -> None:
        shop = workers[0][0]
        told = [(shop.settings._asdict(), name, queue) for shop, name, queue in workers]
        self._gate: Gate = shop.gate()
        self.program = Program(
            [sys.executable, "-m", EMBEDDING, json.dumps(told), self._gate.path],
            output=shop.directory / "embedding.log",
            environment={"PYTHONUNBUFFERED": "1"},
            directory=ROOT,
        )
        self.program.start()
        self.program.wait_for_text(READY, SOON)

    def end_first(self) -> None:
        self._gate.open()
        self.program.wait_for_text(ENDED, SOON)


@pytest.fixture
def embed() -> Iterator[Any]:
    made: List[Embedded] = []

    def start(*workers: Any) -> Embedded:
        needed("gevent")
        made.append(Embedded(*workers))
        return made[-1]

    yield start
    for each in made:
        each.program.kill()


def test_a_worker_that_ends_leaves_the_waits_of_another_of_its_app_alone(
    make_locked_shop: MakeLockedShop, embed: Any, account: str
) -> None:
    shop = make_locked_shop()
    queues = (shop.queue, f"{shop.queue}-2")
    workers = embed((shop, "first@here", queues[0]), (shop, "second@here", queues[1]))
    with shop.locks.held(account):
        results = [
            shop.task("work").apply_async((account,), queue=queue) for queue in (*queues, *queues)
        ]
        shop.locks.wait_for_line(account, 4)
        workers.end_first()
        seconds = [results[1], results[3]]
        assert shop.locks.waiting_tasks(account) == [each.id for each in seconds]
    assert [each.get(timeout=SOON) for each in seconds] == ["done"] * 2
    ran = [body.task_id for body in shop.bodies_of(account)]
    assert ran == [each.id for each in seconds]


def test_a_body_that_celery_runs_as_another_apps_holds_the_lock_of_that_app(
    make_locked_shop: MakeLockedShop, embed: Any, account: str
) -> None:
    own_server = LockServer.start()
    try:
        first, second = make_locked_shop(lock_url=own_server.url), make_locked_shop()
        second.settings = second.settings._replace(body_log=first.settings.body_log)
        embed((first, "first@here", first.queue), (second, "second@here", second.queue))
        gate = first.gate()
        results = [first.send("work", account, gate.path)]
        first.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
        results.append(second.send("work", account))
        second.locks.wait_for_line(account, 1)
        assert second.locks.holding_tasks(account) == [results[0].id]
        # What its parent was granted in vain.
        assert eventually(lambda: first.locks.is_free(account), WELL_UNDER_A_LEASE)
        gate.open()
        assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
        assert first.overlaps_of(account) == []
        assert second.locks.is_free(account)
    finally:
        own_server.stop()
