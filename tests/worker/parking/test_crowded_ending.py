"""A worker of threads or greenlets ends while hundreds wait in it: none is lost or doubled."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any, Dict, List, Set, Tuple

import pytest
from celery import VERSION

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import GREEN, PREFORK, chosen_pool
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of
from tests.worker.parking.conftest import needed
from tests.worker.parking.crowded import PARKED, send_all

SOON = 60.0

PROMPTLY = 30.0

#: So many wait, in so many lines.
COUNT, LINES = 200, 4

Signals = Tuple[signal.Signals, ...]

WARM, COLD = signal.SIGTERM, signal.SIGQUIT

#: The worker's settings, and what is sent to it.
ENDINGS: Dict[str, Tuple[Dict[str, Any], Signals]] = {
    "warm": ({}, (WARM,)),
    "warm twice": ({}, (WARM, WARM)),
    "warm, then cold": ({}, (WARM, COLD)),
    "soft": ({"worker_soft_shutdown_timeout": 1.0}, (COLD,)),
    "cold": ({}, (COLD,)),
}

IN_PROCESS = [pool for pool in ("threads", *GREEN) if chosen_pool() in (PREFORK, pool)]


def endings() -> List[Any]:
    """Each takes a while: greenlets, which go on while the worker ends, are always tried."""
    quick = {(pool, "redis", "cold") for pool in GREEN}
    all_of_them = [
        *((pool, "redis", how) for pool in IN_PROCESS for how in ENDINGS),
        *((pool, "rabbitmq", how) for pool in IN_PROCESS for how in ("warm", "cold")),
    ]
    return [
        pytest.param(*each, marks=[] if each in quick else pytest.mark.long) for each in all_of_them
    ]


class Crowd:
    """One body that runs, and ``COUNT`` tasks in line: some for its lock, most for a rival's."""

    def __init__(self, shop: LockedShop, account: str) -> None:
        self.shop = shop
        self.accounts = [f"{account}-{number}" for number in range(LINES)]
        self.gate = shop.gate()
        self.running = shop.send("work_acked_late", self.accounts[0], self.gate.path)
        resource = resource_of(self.accounts[0])
        shop.bodies.wait_for(count_started=1, resource=resource, timeout=SOON)
        for each in self.accounts[1:]:
            shop.locks.take(each)
        self.waiting = send_all(shop, self.accounts, COUNT)
        assert eventually(lambda: self.count_in_line() == COUNT, SOON), self.count_in_line()

    def count_in_line(self) -> int:
        return sum(len(self.shop.locks.waiting_tasks(each)) for each in self.accounts)

    def count_run_while_it_failed(self, worker: WorkerProcess) -> int:
        """How many of them were run although the worker was told to end.

        Where Celery's own answer to the signal fails, which it does in a greenlet that may not
        wait, it ends what runs and the worker ends a moment later: who waited for that goes on.
        """
        if "Unrecoverable error" not in worker.output():
            return 0
        return len(self.shop.bodies_of(self.accounts[0])) - 1

    def let_go(self) -> None:
        """Nothing holds anybody up any more."""
        self.gate.open()
        for each in self.accounts[1:]:
            self.shop.locks.free(each)

    def assert_each_ran_once(self) -> None:
        assert [each.get(timeout=SOON) for each in self.waiting] == ["done"] * COUNT
        bodies = [body for each in self.accounts for body in self.shop.bodies_of(each)]
        ran = [body.task_id for body in bodies if body.task_id != self.running.id]
        assert sorted(map(str, ran)) == sorted(each.id for each in self.waiting)
        self.shop.bodies.assert_exclusive()
        self.shop.bodies.assert_fences_grow()


@pytest.mark.parametrize(("pool", "broker", "how"), endings())
def test_all_that_wait_go_back_to_the_queue_however_the_worker_ends(
    make_locked_shop: MakeLockedShop,
    lock_server: LockServer,
    pool: str,
    broker: str,
    how: str,
    account: str,
) -> None:
    if how == "soft" and VERSION < (5, 5):
        pytest.skip("soft shutdown is of Celery 5.5")
    conf, signals = ENDINGS[how]
    shop = make_locked_shop(broker, **PARKED, **conf)
    worker = shop.worker(pool=needed(pool), concurrency=8)
    crowd = Crowd(shop, account)
    for number in signals:
        worker.send(number)
    assert eventually(lambda: crowd.count_in_line() == 0, SOON), crowd.count_in_line()
    # Not one of them is begun by the ending worker; its body goes back as well if it is ended.

    def settled() -> int:
        return count_queued(shop) + crowd.count_run_while_it_failed(worker)

    assert eventually(lambda: settled() >= COUNT, SOON), settled()
    crowd.gate.open()
    assert worker.wait(PROMPTLY), worker.output()[-4000:]
    assert COUNT <= settled() <= COUNT + 1
    crowd.let_go()
    fresh = shop.worker(pool=pool, concurrency=8)
    crowd.assert_each_ran_once()
    stop(fresh)
    assert left_of(lock_server, account) == {"f"}


@pytest.mark.parametrize("pool", IN_PROCESS)
@pytest.mark.parametrize("how", ["warm", pytest.param("cold", marks=pytest.mark.long)])
def test_what_needs_no_lock_and_waits_for_a_slot_goes_back_as_well(
    make_locked_shop: MakeLockedShop, pool: str, how: str, account: str
) -> None:
    conf, (signal_to_end,) = ENDINGS[how]
    shop = make_locked_shop(**conf)
    worker = shop.worker(pool=needed(pool), concurrency=1)
    gate = shop.gate()
    shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    unlocked = [shop.send("hold", account) for _ in range(3)]
    for each in unlocked:
        worker.wait_for_output(f"[{each.id}] received", SOON)
    worker.send(signal_to_end)
    # What Celery says first.
    worker.wait_for_output({"warm": "Warm shutdown", "cold": "Ctrl+C again"}[how], SOON)
    gate.open()
    assert worker.wait(PROMPTLY), worker.output()[-4000:]
    fresh = shop.worker(pool=pool, concurrency=2)
    assert [each.get(timeout=SOON) for each in unlocked] == [account] * len(unlocked)
    assert len(shop.bodies.bodies(account)) == len(unlocked)
    stop(fresh)


def stop(worker: WorkerProcess) -> None:
    assert worker.stop(), worker.output()[-4000:]


def count_queued(shop: LockedShop) -> int:
    with shop.app.connection_for_read() as connection, suppress(connection.channel_errors):
        declared = connection.default_channel.queue_declare(shop.queue, passive=True)
        return int(declared.message_count)
    return 0  # kombu knows no empty queue of a Redis broker


def left_of(server: LockServer, account: str) -> Set[str]:
    """The fields of all that the lock server keeps for accounts of this test, but for tombstones,
    which are for a while: it is to be fences alone.
    """
    with server.client() as client:
        keys = list(client.scan_iter(match=f"*{account}*"))
        assert {client.type(key) for key in keys} == {"hash"}, keys
        fields = {field for key in keys for field in client.hkeys(key)}
    return {field for field in fields if not field.startswith("x:")}
