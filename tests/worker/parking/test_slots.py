"""What is kept in the worker's parent takes no slot, and gets one in its turn; on every pool."""

from __future__ import annotations

import pytest

from tests.harness.pools import POOLS
from tests.worker.parking.conftest import HoldingShop, MakeHoldingShop, needed


@pytest.fixture(scope="module", params=POOLS)
def one_slot(request: pytest.FixtureRequest, make_holding_shop: MakeHoldingShop) -> HoldingShop:
    shop = make_holding_shop(worker_prefetch_multiplier=2)
    shop.open(needed(request.param), concurrency=1)
    return shop


@pytest.fixture(scope="module", params=POOLS)
def two_slots(request: pytest.FixtureRequest, make_holding_shop: MakeHoldingShop) -> HoldingShop:
    shop = make_holding_shop()
    shop.open(needed(request.param), concurrency=2)
    return shop


def test_kept_tasks_take_no_slot_and_hold_up_nobody(one_slot: HoldingShop) -> None:
    kept = one_slot.keep("free", 5)
    other = one_slot.send("hold", "free")
    assert one_slot.wait_for_bodies("free", 1) == [other.id]
    one_slot.tell("go", kept)
    assert one_slot.wait_for_bodies("free", 6) == [other.id, *kept]
    assert one_slot.held() == []


def test_slots_go_in_the_order_of_asking_to_tasks_with_and_without_lock(
    one_slot: HoldingShop,
) -> None:
    gate = one_slot.gate()
    early, late, urgent, never = one_slot.keep("order", 4)
    running = one_slot.send("hold", "order", gate.path)
    one_slot.wait_until(lambda: one_slot.ran("order") == [running.id])
    one_slot.tell("go", [early])
    between = one_slot.send("hold", "order")
    _received(one_slot, between.id)
    one_slot.tell("go", [never])
    one_slot.tell("go", [late])
    one_slot.tell("go", [urgent], first=True)
    one_slot.tell("stay", [never])
    assert one_slot.ran("order") == [running.id]
    gate.open()
    expected = [running.id, urgent, early, between.id, late]
    assert one_slot.wait_for_bodies("order", 5) == expected
    one_slot.tell("go", [never])
    assert one_slot.wait_for_bodies("order", 6) == [*expected, never]


def test_a_slot_that_was_given_back_is_used_by_the_next(one_slot: HoldingShop) -> None:
    (kept,) = one_slot.keep("given back")
    one_slot.tell("waste", ["", "", ""])
    one_slot.tell("go", [kept])
    assert one_slot.wait_for_bodies("given back", 1) == [kept]


def test_no_more_run_than_there_are_slots(two_slots: HoldingShop) -> None:
    kept = two_slots.keep("many", 12)
    gate = two_slots.gate()
    two_slots.tell("go", kept[:6])
    others = [two_slots.send("hold", "many").id for _ in range(6)]
    two_slots.tell("go", kept[6:])
    gate.open()
    assert sorted(two_slots.wait_for_bodies("many", 18)) == sorted(kept + others)
    two_slots.bodies.assert_exclusive(limit=2)


def test_a_body_that_exits_leaves_one_free_slot(one_slot: HoldingShop) -> None:
    """On prefork Celery counts two: a task put in the second would wait behind a body."""
    gate = one_slot.gate()
    one_slot.send("leave", "exit")
    one_slot.wait_for_bodies("exit", 1)
    running = one_slot.send("hold", "exit", gate.path)
    one_slot.wait_until(lambda: running.id in one_slot.ran("exit"))
    (kept,) = one_slot.keep("exit")
    one_slot.tell("go", [kept])
    # Without a slot it stays: what was put into the pool is kept no more.
    assert one_slot.held() == [kept]
    assert one_slot.held() == [kept]
    gate.open()
    assert one_slot.wait_for_bodies("exit", 3)[2] == kept


def test_a_task_revoked_before_its_turn_takes_no_slot(one_slot: HoldingShop) -> None:
    gate = one_slot.gate()
    revoked, kept = one_slot.keep("revoked", 2)
    running = one_slot.send("hold", "revoked", gate.path)
    one_slot.wait_until(lambda: one_slot.ran("revoked") == [running.id])
    one_slot.tell("go", [revoked, kept])
    one_slot.app.control.revoke(revoked, reply=True, limit=1, timeout=20)
    gate.open()
    assert one_slot.wait_for_bodies("revoked", 2) == [running.id, kept]


def _received(shop: HoldingShop, task_id: str) -> None:
    """Tasks that stand in the pool's line are reserved, wherever that line is."""
    shop.wait_until(lambda: f"[{task_id}] received" in shop.node.output())
