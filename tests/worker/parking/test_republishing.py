"""A message that is sent once more is the same task, whole, and the original is over."""

from __future__ import annotations

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from tests.harness.pools import PREFORK
from tests.worker.parking.conftest import WITHIN, HoldingShop, MakeHoldingShop

PLACE = {"since": 12.5, "places": {"account": 7}}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, make_holding_shop: MakeHoldingShop) -> HoldingShop:
    shop = make_holding_shop(request.param, task_queue_max_priority=9)
    shop.open(PREFORK, concurrency=2)
    return shop


def _send_again(shop: HoldingShop, task_id: str, delay: float = 0.0) -> None:
    """Send it again and wait until its copy is kept, and nothing else of it."""
    before = _received(shop, task_id)
    published = len(shop.tell("send_again", [task_id], delay=delay, place=PLACE)["published"])
    shop.wait_until(lambda: len(shop.tell("go", [])["published"]) > published)
    assert shop.tell("go", [])["published"][-1] is True
    shop.wait_until(lambda: _received(shop, task_id) > before and task_id in shop.held())


def _received(shop: HoldingShop, task_id: str) -> int:
    return shop.node.output().count(f"[{task_id}] received")


def test_its_id_headers_properties_and_place_come_through(shop: HoldingShop) -> None:
    options = {
        "priority": 3,
        "retries": 2,
        "headers": {"mine": "kept"},
        "time_limit": 60,
        "soft_time_limit": 50,
        "compression": "zlib",
        "expires": 300,
        "reply_to": "elsewhere",
    }
    result = shop.task("kept").apply_async(("whole",), **options)
    shop.wait_until(lambda: result.id in shop.held())
    _send_again(shop, result.id)
    _send_again(shop, result.id)
    shop.tell("go", [result.id])
    found = result.get(timeout=WITHIN)
    assert found["retries"] == 2
    assert found["priority"] == 3
    assert found["timelimit"] == [60, 50]
    assert found["correlation_id"] == result.id
    assert found["reply_to"] == "elsewhere"
    assert (found["headers"], found["redlock_wait"]) == ({"mine": "kept"}, PLACE)
    assert shop.ran("whole") == [result.id]


def test_its_canvas_comes_through(shop: HoldingShop) -> None:
    kept, add = shop.task("kept"), shop.task("add")
    workflow = chord([kept.si("head"), add.si(1, 1)], add.si(2, 2)) | add.s(3)
    result = workflow.apply_async()
    head = _kept_now(shop)
    _send_again(shop, head)
    shop.tell("go", [head])
    assert result.get(timeout=WITHIN) == 7


def test_it_comes_after_its_delay(shop: HoldingShop) -> None:
    (kept,) = shop.keep("late")
    shop.tell("send_again", [kept], delay=1.5, place=PLACE)
    shop.wait_until(lambda: _received(shop, kept) == 2)
    # Received at once and kept by Celery until its time has come.
    assert kept not in shop.held()
    shop.wait_until(lambda: kept in shop.held())
    shop.tell("go", [kept])
    assert shop.wait_for_bodies("late", 1) == [kept]


def test_its_copy_can_be_revoked(shop: HoldingShop) -> None:
    result = shop.task("kept").apply_async(("revoked",))
    shop.wait_until(lambda: result.id in shop.held())
    _send_again(shop, result.id)
    shop.app.control.revoke(result.id, reply=True, limit=1, timeout=WITHIN)
    shop.tell("go", [result.id])
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WITHIN)
    assert shop.ran("revoked") == []


def test_nothing_of_it_is_left_behind(shop: HoldingShop) -> None:
    kept = shop.keep("left", 20)
    shop.tell("send_again", kept, delay=0, place=PLACE)
    shop.wait_until(lambda: all(_received(shop, each) == 2 for each in kept))
    shop.wait_until(lambda: set(kept) <= set(shop.held()))
    shop.tell("go", kept)
    shop.wait_for_bodies("left", len(kept))
    shop.wait_until_idle()
    assert shop.prefetch_count() == 8
    assert sorted(shop.ran("left")) == sorted(kept)


def test_it_stays_kept_if_the_broker_does_not_take_its_copy(
    make_holding_shop: MakeHoldingShop,
) -> None:
    """RabbitMQ confirms a message that it could put into no queue, once it has returned it."""
    shop = make_holding_shop("rabbitmq")
    shop.open(PREFORK, concurrency=1)
    (kept,) = shop.keep("returned")
    shop.tell("send_again", [kept], delay=0, place=PLACE, queue="nowhere")
    shop.wait_until(lambda: shop.tell("go", [])["published"] == [False])
    shop.tell("go", [kept])
    assert shop.wait_for_bodies("returned", 1) == [kept]


def _kept_now(shop: HoldingShop) -> str:
    shop.wait_until(lambda: len(shop.held()) == 1)
    return shop.held()[0]
