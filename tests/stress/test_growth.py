"""What a worker's parent needs does not grow with the tasks that it has run, nor with the dead."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.conftest import (  # noqa: F401
    account,
    lock_server,
    make_locked_shop,
    redis_server,
)

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")

PROCESSES = 4
RESOURCES = 100

#: What Celery has open at one moment and not at another.
SLACK = 2

#: Seconds: what many children needed that died at the same time is closed when it was not used for
#: ten of them.
SETTLED = 40

#: Seconds: what has left the queue the worker may still have before it.
ALL_DONE = 180


class Open(NamedTuple):
    threads: int
    sockets: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Open:
        links = [os.readlink(str(link)) for link in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = [link for link in links if link.startswith("socket:")]
        return cls(len(os.listdir(f"/proc/{pid}/task")), len(sockets), len(links))

    def has_outgrown(self, other: Open) -> bool:
        return any(mine > its + SLACK for mine, its in zip(self, other))


class Load(NamedTuple):
    tasks: int
    of_these_killed: int


def settles(shop: LockedShop, worker: WorkerProcess, before: Open) -> bool:
    """Whether it has come down to that: it closes what it does not need while it works."""

    def has_settled() -> bool:
        assert shop.send("work", "the last").get(timeout=ALL_DONE) == "done"
        return not Open.of(worker.pid).has_outgrown(before)

    return eventually(has_settled, SETTLED)


def run(shop: LockedShop, worker: WorkerProcess, load: Load, account: str) -> None:  # noqa: F811
    """Publish so many and wait until all have run and every child that was killed is replaced."""
    kills = set(random.sample(range(load.tasks), load.of_these_killed))
    for number in range(load.tasks):
        name = f"{account}-{number % RESOURCES}"
        if number in kills:
            shop.task("end").apply_async((name, "SIGKILL"), ignore_result=True)
        else:
            shop.task("work_unrecorded").apply_async((name,))
    with shop.app.connection_for_read() as connection:
        client = connection.default_channel.client
        assert eventually(lambda: not client.llen(shop.queue), within=load.tasks)
    assert eventually(lambda: len(worker.pids()) == PROCESSES)
    for number in range(RESOURCES):
        assert shop.send("work", f"{account}-{number}").get(timeout=ALL_DONE) == "done"


@pytest.mark.needs("processes")
@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(Load(60, 2), Load(200, 13), id="hundreds"),
        pytest.param(
            Load(1000, 20),
            Load(9000, 180),
            id="thousands",
            marks=[pytest.mark.long, pytest.mark.timeout(600)],
        ),
    ],
)
def test_threads_sockets_and_files_of_a_parent_stay_as_few_as_they_were(
    make_locked_shop: Callable[..., LockedShop],  # noqa: F811
    account: str,  # noqa: F811
    first: Load,
    then: Load,
) -> None:
    shop = make_locked_shop()
    worker = shop.worker(concurrency=PROCESSES)
    run(shop, worker, first, account)
    before = Open.of(worker.pid)
    run(shop, worker, then, account)
    assert settles(shop, worker, before), f"{before} became {Open.of(worker.pid)}"
    assert worker.output().count("exited with 'signal 9 (SIGKILL)'") >= then.of_these_killed
