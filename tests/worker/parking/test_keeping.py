"""What is kept holds up nothing else, and leaves nothing behind in what Celery counts."""

from __future__ import annotations

from typing import Any

import pytest
from celery import VERSION

from tests.harness.pools import GREEN, PREFORK
from tests.worker.parking.conftest import MakeHoldingShop, needed


@pytest.mark.skipif(VERSION[:2] < (5, 5), reason="Celery consumes from quorum queues since 5.5")
@pytest.mark.parametrize("pool", [PREFORK, *GREEN])
def test_kept_tasks_of_a_quorum_queue_hold_up_nobody(
    make_holding_shop: MakeHoldingShop, pool: str
) -> None:
    """RabbitMQ sends two messages there at a time, whatever the worker would like."""
    shop = make_holding_shop(
        "rabbitmq", task_default_queue_type="quorum", worker_prefetch_multiplier=2
    )
    shop.open(needed(pool), concurrency=1)
    kept = shop.keep("quorum", 7)
    other = shop.send("hold", "quorum")
    assert shop.wait_for_bodies("quorum", 1) == [other.id]
    shop.tell("go", kept)
    assert shop.wait_for_bodies("quorum", 8) == [other.id, *kept]
    shop.wait_until_idle()
    shop.node.stop()
    assert shop.queued() == []


@pytest.mark.parametrize("conf", [{"worker_eta_task_limit": 3}, {}], ids=["limited", "unlimited"])
def test_the_prefetch_count_is_at_last_what_it_was(
    make_holding_shop: MakeHoldingShop, conf: Any
) -> None:
    """Celery caps how far it rises and not how far it falls: just the change is undone."""
    if conf and VERSION[:2] < (5, 6):
        pytest.skip("Celery has the setting since 5.6")
    shop = make_holding_shop(worker_prefetch_multiplier=2, **conf)
    shop.open(PREFORK, concurrency=1)
    kept = shop.keep("counted", 3 if conf else 6)
    assert shop.prefetch_count() == (3 if conf else 8)
    shop.tell("go", kept)
    shop.wait_for_bodies("counted", len(kept))
    shop.wait_until_idle()
    assert shop.prefetch_count() == 2
