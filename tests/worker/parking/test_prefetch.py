"""Who waits for a slot counts among what its worker may fetch; who waits for a lock does not."""

from __future__ import annotations

import time

import pytest

from tests.harness.locked_shop import MakeLockedShop, eventually
from tests.worker.locked_app import resource_of

SOON = 30.0

PREFETCHED = 2
OTHERS = 8


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_busy_worker_leaves_to_others_what_it_cannot_run(
    make_locked_shop: MakeLockedShop, broker: str, account: str
) -> None:
    shop = make_locked_shop(broker, worker_prefetch_multiplier=PREFETCHED)
    worker = shop.worker(concurrency=1)

    def received() -> int:
        return worker.output().count("] received")

    gate = shop.gate()
    first = shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    others = [shop.send("work", f"{account}-{number}") for number in range(OTHERS)]
    # The one that runs is acknowledged, and no longer counts.
    assert eventually(lambda: received() >= 1 + PREFETCHED, SOON)
    # So much for it to fetch more if it would.
    for _ in range(3):
        assert shop.app.control.inspect(timeout=SOON, limit=1).ping()
    assert received() == 1 + PREFETCHED
    gate.open()
    assert [each.get(timeout=SOON) for each in (first, *others)] == ["done"] * (1 + OTHERS)


#: Far below the two seconds for each message, or each few, that Celery waits on green pools.
AT_ONCE = 6.0


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_what_stands_behind_those_that_wait_is_fetched_at_once(
    make_locked_shop: MakeLockedShop, broker: str, account: str
) -> None:
    shop = make_locked_shop(broker, worker_prefetch_multiplier=1)
    shop.worker(concurrency=1)
    shop.send("work", f"{account}-first").get(timeout=SOON)
    with shop.locks.held(account):
        waiting = [shop.send("work", account) for _ in range(8)]
        began = time.monotonic()
        assert shop.send("work", f"{account}-other").get(timeout=SOON) == "done"
        assert time.monotonic() - began < AT_ONCE
    assert [each.get(timeout=SOON) for each in waiting] == ["done"] * len(waiting)
