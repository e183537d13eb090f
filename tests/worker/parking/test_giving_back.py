"""What a worker keeps when it ends, or when its broker's connection does, is lost by neither."""

from __future__ import annotations

import signal
from typing import List, Tuple

import pytest

from tests.harness.pools import POOLS, PREFORK
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.worker.parking.conftest import HoldingShop, MakeHoldingShop, needed


def _end(shop: HoldingShop, signals: Tuple[signal.Signals, ...] = (signal.SIGTERM,)) -> None:
    for number in signals:
        shop.node.send(number)
    assert shop.node.wait(20), shop.node.output()[-4000:]


@pytest.mark.parametrize(
    ("pool", "broker"),
    [*((pool, "redis") for pool in POOLS), ("prefork", "rabbitmq"), ("gevent", "rabbitmq")],
)
def test_kept_messages_return_in_the_order_in_which_they_came(
    make_holding_shop: MakeHoldingShop, pool: str, broker: str
) -> None:
    shop = make_holding_shop(broker, worker_prefetch_multiplier=1)
    shop.open(needed(pool), concurrency=1)
    kept = [shop.keep("order")[0] for _ in range(5)]
    _end(shop)
    assert shop.queued() == kept


def test_they_return_at_a_cold_shutdown(make_holding_shop: MakeHoldingShop) -> None:
    shop = make_holding_shop()
    shop.open(PREFORK, concurrency=1)
    kept = [shop.keep("ending")[0] for _ in range(3)]
    _end(shop, (signal.SIGQUIT,))
    assert shop.queued() == kept


def test_they_return_while_a_body_still_runs(make_holding_shop: MakeHoldingShop) -> None:
    shop = make_holding_shop()
    shop.open(PREFORK, concurrency=1)
    gate = shop.gate()
    running = shop.send("hold", "running", gate.path)
    shop.wait_until(lambda: shop.ran("running") == [running.id])
    kept = [shop.keep("waiting")[0] for _ in range(3)]
    shop.node.send(signal.SIGTERM)
    queued: List[str] = []

    def are_back() -> bool:
        queued.extend(shop.queued())
        return len(queued) == len(kept)

    shop.wait_until(are_back)
    assert shop.node.is_running
    gate.open()
    assert shop.node.wait(20)
    assert queued == kept


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_lost_connection_loses_and_doubles_nothing(
    request: pytest.FixtureRequest, make_holding_shop: MakeHoldingShop, broker: str
) -> None:
    server = request.getfixturevalue("redis_server" if broker == "redis" else "rabbitmq")
    with Proxy(server.url) as proxy:
        shop = make_holding_shop(broker)
        environment = {"REDLOCK_TEST_BROKER_URL": proxy.url}
        shop.open(PREFORK, concurrency=2, environment=environment)
        kept = shop.keep("lost", 5)
        proxy.drop()
        shop.node.wait_for_output("Connection to broker lost", 20)
        # Delivered anew: what was kept before is kept no more.
        shop.wait_until(
            lambda: (
                shop.node.output().count(f"[{kept[0]}] received") == 2
                and sorted(shop.held()) == sorted(kept)
            )
        )
        shop.tell("go", kept)
        ran = shop.wait_for_bodies("lost", len(kept))
        assert sorted(ran) == sorted(kept)
        other = shop.send("hold", "after")
        assert shop.wait_for_bodies("after", 1) == [other.id]
        shop.wait_until_idle()
        _end(shop)
        assert shop.queued() == []
        assert len(shop.ran("lost")) == len(kept)


def test_messages_are_not_delivered_again_while_they_are_kept(
    make_holding_shop: MakeHoldingShop, redis_server: LockServer
) -> None:
    """kombu would, after its visibility timeout: the times in its index are renewed."""
    options = {"visibility_timeout": 2, "unacked_index_key": "kept_index", "unacked_key": "kept"}
    shop = make_holding_shop(broker_transport_options=options)
    shop.open(PREFORK, concurrency=1)
    kept = shop.keep("visible", 3)
    client = redis_server.client()

    def oldest() -> float:
        return min(time for _, time in client.zrange("kept_index", 0, -1, withscores=True))

    first = oldest()
    shop.wait_until(lambda: oldest() > first + 2)
    assert shop.node.output().count(f"[{kept[0]}] received") == 1
    shop.tell("go", kept)
    assert shop.wait_for_bodies("visible", 3) == kept
    shop.wait_until(lambda: client.zcard("kept_index") == 0)
    _end(shop)
    assert shop.queued() == []
