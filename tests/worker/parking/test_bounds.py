"""A worker keeps so many tasks, and each so long; the others go round, whole and in their order."""

from __future__ import annotations

import re
import time
from typing import Any, List

import pytest

from celery_redlock.integration.call import WAIT
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.worker.locked_app import resource_of

SOON = 60.0


def in_line(shop: LockedShop, account: str, count: int) -> List[Any]:
    results = []
    for number in range(count):
        results.append(shop.send("work", account))
        shop.locks.wait_for_line(account, number + 1)
    return results


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, make_locked_shop: MakeLockedShop) -> LockedShop:
    shop = make_locked_shop(request.param, redlock_max_parked=2)
    shop.node = shop.worker(pool=PREFORK, concurrency=1)  # type: ignore[attr-defined]
    return shop


def came(shop: LockedShop, task_id: str) -> int:
    output: str = shop.node.output()  # type: ignore[attr-defined]
    return output.count(f"[{task_id}] received")


def test_one_more_than_are_kept_goes_round_and_keeps_its_place(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        results = in_line(shop, account, 2)
        beyond = shop.send("work", account)
        assert eventually(lambda: came(shop, beyond.id) >= 2, SOON)
        assert shop.locks.waiting_tasks(account) == [each.id for each in results]
    everybody = [*results, beyond]
    assert [each.get(timeout=SOON) for each in everybody] == ["done"] * 3
    assert ran(shop, account) == [each.id for each in everybody]
    assert shop.overlaps_of(account) == []


def test_what_goes_round_keeps_its_canvas_headers_and_id(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        in_line(shop, account, 2)
        step = shop.task("work").si(account).set(task_id=f"{account}-id")
        chain = (step | shop.task("note").s()).apply_async(headers={"mine": "kept"}, priority=3)
        assert chain.parent.id == f"{account}-id"
        assert eventually(lambda: came(shop, chain.parent.id) >= 2, SOON)
    assert chain.get(timeout=SOON) == "done"
    assert len(set(ran(shop, account))) == len(ran(shop, account)) == 3


def test_one_that_has_gone_round_can_be_revoked(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        in_line(shop, account, 2)
        beyond = shop.send("work", account)
        assert eventually(lambda: came(shop, beyond.id) >= 2, SOON)
        beyond.revoke()
        assert eventually(lambda: beyond.state == "REVOKED", SOON)
    shop.bodies.wait_for(count_ended=2, resource=resource_of(account), timeout=SOON)
    assert beyond.id not in ran(shop, account)


@pytest.mark.parametrize(
    ("task", "expires", "state"), [("work_soon", None, "FAILURE"), ("work", 2.0, "REVOKED")]
)
def test_one_that_goes_round_is_back_when_its_wait_is_over(
    shop: LockedShop, account: str, task: str, expires: Any, state: str
) -> None:
    often = {WAIT: {"since": time.time(), "attempt": 9, "places": {}}}  # 15 s at least, the next
    with shop.locks.held(account):
        in_line(shop, account, 2)
        beyond = shop.task(task).apply_async((account,), headers=often, expires=expires)
        assert eventually(lambda: beyond.state == state, 10.0)
        assert came(shop, beyond.id) in (2, 3)
    shop.bodies.wait_for(count_ended=2, resource=resource_of(account), timeout=SOON)


def test_what_is_told_of_its_wait_counts_from_its_first_ask(shop: LockedShop, account: str) -> None:
    before = {WAIT: {"since": time.time() - 100.0, "attempt": 1, "places": {}}}
    with shop.locks.held(account):
        result = shop.task("work").apply_async((account,), headers=before)
        shop.locks.wait_for_line(account, 1)
    assert result.get(timeout=SOON) == "done"
    output = shop.node.output()  # type: ignore[attr-defined]
    (waited,) = re.findall(rf"\[{result.id}\] on .* waited ([0-9.]+) s for and acquired", output)
    assert float(waited) >= 100.0


def test_one_that_was_kept_too_long_goes_round_and_runs_once(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop(redlock_max_park=1)
    worker = shop.worker(pool=PREFORK, concurrency=1)
    with shop.locks.held(account):
        result = shop.send("work", account)
        assert eventually(lambda: worker.output().count(f"[{result.id}] received") >= 2, SOON)
    assert result.get(timeout=SOON) == "done"
    assert ran(shop, account) == [result.id]


def test_one_that_goes_round_is_back_before_the_broker_delivers_it_twice(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Nobody dates anew what waits for its time to come: Celery keeps it, not the parking place."""
    within = 6.0
    # It looks at no other shop's messages.
    keys = {name: f"{account}-{name}" for name in ("unacked_key", "unacked_index_key")}
    options = {"visibility_timeout": within, "unacked_mutex_key": f"{account}-mutex", **keys}
    shop = make_locked_shop(broker_transport_options=options)
    worker = shop.worker(pool=PREFORK, concurrency=1)
    often = {WAIT: {"since": time.time(), "attempt": 9, "places": {}}}  # 15 s at least, the next
    with shop.locks.held(account):
        result = shop.task("work").apply_async((account,), headers=often)
        # It is kept for half of the visibility timeout.
        assert eventually(lambda: worker.output().count(f"[{result.id}] received") == 2, SOON)
        copied = time.monotonic()
    assert result.get(timeout=SOON) == "done"
    assert time.monotonic() - copied < within


def test_what_was_broadcast_over_redis_stays_and_is_not_lost(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Nobody pops from the queue of a fanout exchange there: its messages are pushed to whoever
    listens.
    """
    names = [f"{account}-queue", f"{account}-news"]
    kinds = [{"exchange": name} for name in names]
    queues = {names[0]: kinds[0], names[1]: {**kinds[1], "exchange_type": "fanout"}}
    of_queues = {"task_default_queue": names[0], "task_queues": queues}
    shop = make_locked_shop(redlock_max_parked=1, **of_queues)
    shop.worker(pool=PREFORK, concurrency=1)
    with shop.locks.held(account):
        results = in_line(shop, account, 1)
        results.append(shop.task("work").apply_async((account,), queue=names[1]))
        assert shop.locks.wait_for_line(account, 2) == [each.id for each in results]
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
    assert ran(shop, account) == [each.id for each in results]


def test_nothing_is_lost_when_the_broker_takes_no_copy(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Read from one Redis, with a URL to write to that nobody listens at."""
    shop = make_locked_shop(
        redlock_max_parked=1,
        broker_write_url="redis://127.0.0.1:1/0",
        broker_transport_options={"max_retries": 0, "socket_connect_timeout": 1},
    )
    shop.app.conf.broker_write_url = shop.settings.broker_url
    worker = shop.worker(pool=PREFORK, concurrency=1)
    with shop.locks.held(account):
        results = in_line(shop, account, 1)
        began = time.monotonic()
        results.append(shop.send("work", account))
        worker.wait_for_output("could not send waiting tasks back", SOON)
        assert eventually(lambda: len(shop.locks.waiting_tasks(account)) == 2, SOON)
        # It stands there until the broker is asked once more, and is not asked all the time.
        again = "could not send waiting tasks back"
        assert eventually(lambda: worker.output().count(again) >= 2, SOON)
        assert time.monotonic() - began > 4
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
    assert ran(shop, account) == [each.id for each in results]
