"""How many may wait, how many may hold, and who comes first, on a real worker."""

from __future__ import annotations

from typing import Callable, List

import pytest
from celery.result import AsyncResult

from celery_redlock import is_skipped
from tests.harness.locked_shop import LockedShop
from tests.worker.locked_app import resource_of

SOON = 20.0

#: A waiter under the default lease shows that it is alive every five seconds.
WELL_UNDER_A_HEARTBEAT = 2.5


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(concurrency=4)
    return shop


def wait_for_body(shop: LockedShop, account: str, count: int = 1) -> None:
    shop.bodies.wait_for(count_started=count, resource=resource_of(account), timeout=SOON)


# --- who comes first


def test_waiters_are_served_in_the_order_in_which_they_asked(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        results: List[AsyncResult] = []
        for number in range(4):
            results.append(shop.send("work", account))
            shop.locks.wait_for_line(account, number + 1)
        assert shop.locks.waiting_tasks(account) == [result.id for result in results]
    assert [result.get(timeout=SOON) for result in results] == ["done"] * 4
    assert [body.task_id for body in shop.bodies_of(account)] == [result.id for result in results]
    assert shop.overlaps_of(account) == []


def test_a_waiter_is_woken_by_the_release_itself(shop: LockedShop, account: str) -> None:
    gate = shop.gate()
    first = shop.send("work", account, gate.path)
    wait_for_body(shop, account)
    second = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    gate.open()
    second.get(timeout=SOON)
    before, after = shop.bodies_of(account)
    assert (before.task_id, after.task_id) == (first.id, second.id)
    assert before.end is not None
    assert 0 < after.start - before.end < WELL_UNDER_A_HEARTBEAT * 1e9
    assert (after.fence or 0) > (before.fence or 0)


# --- how many may wait


def test_one_more_than_may_wait_is_skipped(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        first = shop.send("work_in_a_short_line", account)
        shop.locks.wait_for_line(account, 1)
        assert is_skipped(shop.send("work_in_a_short_line", account).get(timeout=SOON))
        assert shop.locks.waiting_tasks(account) == [first.id]
    assert first.get(timeout=SOON) == "done"


def test_the_latest_takes_the_place_of_the_one_that_waits(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        first = shop.send("work_on_the_latest", account)
        shop.locks.wait_for_line(account, 1)
        second = shop.send("work_on_the_latest", account)
        dropped = first.get(timeout=SOON)
        assert is_skipped(dropped)
        assert dropped["reason"] == "replaced"
        assert shop.locks.waiting_tasks(account) == [second.id]
    assert second.get(timeout=SOON) == "done"
    assert [body.task_id for body in shop.bodies_of(account)] == [second.id]


# --- how many may hold


def test_as_many_bodies_run_as_the_limit_allows(shop: LockedShop, account: str) -> None:
    gate = shop.gate()
    results = [shop.send("work_by_two", account, gate.path) for _ in range(4)]
    wait_for_body(shop, account, 2)
    shop.locks.wait_for_line(account, 2)
    assert len(shop.bodies_of(account)) == len(shop.locks.holders(account)) == 2
    gate.open()
    assert [result.get(timeout=SOON) for result in results] == ["done"] * 4
    assert shop.overlaps_of(account, limit=1)
    assert shop.overlaps_of(account, limit=2) == []


def test_readers_share_and_a_writer_is_alone(shop: LockedShop, account: str) -> None:
    reading, writing = shop.gate(), shop.gate()
    readers = [shop.send("read", account, reading.path) for _ in range(2)]
    wait_for_body(shop, account, 2)
    writer = shop.send("work", account, writing.path)
    shop.locks.wait_for_line(account, 1)
    late = shop.send("read", account)
    # It could share with the readers, and does not overtake the writer.
    assert shop.locks.wait_for_line(account, 2) == [writer.id, late.id]
    reading.open()
    wait_for_body(shop, account, 3)
    assert shop.locks.holding_tasks(account) == [writer.id]
    writing.open()
    for result in (*readers, writer, late):
        assert result.get(timeout=SOON) == "done"
    bodies = shop.bodies_of(account)
    assert [body.task_id for body in bodies[2:]] == [writer.id, late.id]
    assert shop.overlaps_of(account) == []


# --- a lock kept over a retry


def test_nobody_gets_in_between_a_task_and_its_retry_that_keeps_the_lock(
    shop: LockedShop, account: str
) -> None:
    gate = shop.gate()
    result = shop.send("work_twice", account, 2.0, gate.path)
    shop.bodies.wait_for(count_ended=1, resource=resource_of(account), timeout=SOON)
    rival = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    gate.open()
    fence = result.get(timeout=SOON)
    assert rival.get(timeout=SOON) == "done"
    first, again, other = shop.bodies_of(account)
    assert [first.task_id, again.task_id, other.task_id] == [result.id, result.id, rival.id]
    assert first.fence == again.fence == fence
    assert (other.fence or 0) > fence
