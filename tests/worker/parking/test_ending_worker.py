"""What waits in a worker that ends, or loses its broker, is neither lost nor doubled."""

from __future__ import annotations

import signal
from typing import Any, Dict, List, Tuple

import pytest
from celery import VERSION

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.harness.proxy import Proxy
from tests.worker.locked_app import resource_of

SOON = 30.0

Signals = Tuple[signal.Signals, ...]

SHUTDOWNS: Dict[str, Tuple[Dict[str, Any], Signals]] = {
    "warm": ({}, (signal.SIGTERM,)),
    "soft": ({"worker_soft_shutdown_timeout": 0.5}, (signal.SIGQUIT,)),
    "cold": ({}, (signal.SIGQUIT,)),
}


def in_line(shop: LockedShop, account: str, count: int) -> List[Any]:
    results = []
    for number in range(count):
        results.append(shop.send("work", account))
        shop.locks.wait_for_line(account, number + 1)
    return results


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


def test_a_soft_shutdown_keeps_no_lock_from_others(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Celery sleeps in its signal's handler for as long as its bodies may take."""
    if VERSION < (5, 5):
        pytest.skip("soft shutdown is of Celery 5.5")
    shop = make_locked_shop(worker_soft_shutdown_timeout=60)
    worker = shop.worker(pool=PREFORK, concurrency=2)
    running = f"{account}-running"
    shop.send("work", running, shop.gate().path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(running), timeout=SOON)
    with shop.locks.held(account):
        in_line(shop, account, 5)
        worker.send(signal.SIGQUIT)
        worker.wait_for_output("Initiating Soft Shutdown", SOON)
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    assert shop.locks.is_free(account)
    assert ran(shop, account) == []


@pytest.mark.parametrize(
    ("how", "broker"),
    [
        ("warm", "redis"),
        ("cold", "redis"),
        pytest.param("soft", "redis", marks=pytest.mark.long),
        pytest.param("warm", "rabbitmq", marks=pytest.mark.long),
        pytest.param("soft", "rabbitmq", marks=pytest.mark.long),
        pytest.param("cold", "rabbitmq", marks=pytest.mark.long),
    ],
)
def test_what_waits_goes_back_in_order_however_the_worker_ends(
    make_locked_shop: MakeLockedShop, how: str, broker: str, account: str
) -> None:
    if how == "soft" and VERSION < (5, 5):
        pytest.skip("soft shutdown is of Celery 5.5")
    conf, signals = SHUTDOWNS[how]
    shop = make_locked_shop(broker, **conf)
    worker = shop.worker(pool=PREFORK, concurrency=1)
    other = f"{account}-other"
    with shop.locks.held(account):
        with shop.locks.held(other):
            results = in_line(shop, account, 3)
            shop.send("work", other)
            shop.locks.wait_for_line(other, 1)
            for number in signals:
                worker.send(number)
            assert worker.wait(SOON), worker.output()[-4000:]
            assert shop.locks.waiting_tasks(account) == shop.locks.waiting_tasks(other) == []
        shop.worker(pool=PREFORK, concurrency=1)
        shop.locks.wait_for_line(account, 3)
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 3
    assert ran(shop, account) == [each.id for each in results]
    assert eventually(lambda: len(shop.bodies_of(other)) == 1, SOON)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_lost_broker_connection_costs_nobody_his_place(
    request: pytest.FixtureRequest, make_locked_shop: MakeLockedShop, broker: str, account: str
) -> None:
    server = request.getfixturevalue("redis_server" if broker == "redis" else "rabbitmq")
    with Proxy(server.url) as proxy:
        shop = make_locked_shop(broker)
        environment = {"REDLOCK_TEST_BROKER_URL": proxy.url}
        worker = shop.worker(pool=PREFORK, concurrency=2, environment=environment)
        with shop.locks.held(account):
            results = in_line(shop, account, 4)
            ids = [each.id for each in results]
            proxy.drop()
            worker.wait_for_output("Connection to broker lost", SOON)
            assert eventually(
                lambda: all(worker.output().count(f"[{each}] received") == 2 for each in ids),
                SOON,
            )
            assert eventually(lambda: shop.locks.waiting_tasks(account) == ids, SOON)
            late = shop.send("work", account)
            shop.locks.wait_for_line(account, 5)
        assert [each.get(timeout=SOON) for each in (*results, late)] == ["done"] * 5
        assert ran(shop, account) == [*ids, late.id]
        assert shop.overlaps_of(account) == []


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_body_that_runs_while_the_connection_breaks_is_not_doubled(
    request: pytest.FixtureRequest, make_locked_shop: MakeLockedShop, broker: str, account: str
) -> None:
    server = request.getfixturevalue("redis_server" if broker == "redis" else "rabbitmq")
    with Proxy(server.url) as proxy:
        shop = make_locked_shop(broker)
        gate = shop.gate()
        environment = {"REDLOCK_TEST_BROKER_URL": proxy.url}
        worker = shop.worker(pool=PREFORK, concurrency=2, environment=environment)
        first = shop.send("work_acked_late", account, gate.path)
        shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
        second = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        proxy.drop()
        assert eventually(lambda: worker.output().count(f"[{first.id}] received") == 2, SOON)
        assert eventually(lambda: len(shop.locks.waiting_tasks(account)) == 2, SOON)
        assert len(shop.bodies_of(account)) == 1
        gate.open()
        assert [each.get(timeout=SOON) for each in (first, second)] == ["done"] * 2
        assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
        assert ran(shop, account) == [first.id, second.id]
