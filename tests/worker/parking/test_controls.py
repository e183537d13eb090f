"""What Celery can be told of a task works while it is parked."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 30.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(worker_pool_restarts=True)


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=1)


pytestmark = pytest.mark.usefixtures("worker")


def tell(shop: LockedShop, worker: WorkerProcess, command: str, **arguments: Any) -> Any:
    answers = shop.app.control.broadcast(
        command,
        arguments=arguments,
        destination=[worker.nodename],
        reply=True,
        limit=1,
        timeout=SOON,
    )
    assert answers, f"{worker.nodename} does not answer"
    return answers[0][worker.nodename]


def assert_is_settled_in_line(shop: LockedShop, account: str, result: Any) -> None:
    """While the lock is held by another still."""
    assert eventually(lambda: result.state == "REVOKED", SOON)
    shop.locks.wait_for_line(account, 0)
    assert shop.bodies_of(account) == []


def test_a_parked_task_is_revoked_by_a_stamped_header(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        signature = shop.task("work").s(account)
        signature.stamp(customer=account)
        result = signature.apply_async()
        shop.locks.wait_for_line(account, 1)
        shop.app.control.revoke_by_stamped_headers({"customer": [account]})
        assert_is_settled_in_line(shop, account, result)


@pytest.mark.needs("processes")
def test_a_parked_task_is_terminated_without_harm_to_a_child(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    children = worker.pids()
    with shop.locks.held(account):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        result.revoke(terminate=True, signal="SIGKILL")
        assert_is_settled_in_line(shop, account, result)
    assert shop.send("work", account).get(timeout=SOON) == "done"
    assert worker.pids() == children


def test_one_of_several_that_is_revoked_leaves_the_others_in_order(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        results = in_line(shop, account, 3)
        results[1].revoke()
        assert eventually(lambda: results[1].state == "REVOKED", SOON)
        shop.locks.wait_for_line(account, 2)
    assert [results[0].get(timeout=SOON), results[2].get(timeout=SOON)] == ["done"] * 2
    assert ran(shop, account) == [results[0].id, results[2].id]


def test_a_task_parks_when_its_countdown_is_over(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        late = shop.task("work").apply_async((account,), countdown=1.0)
        first = shop.send("work", account)
        assert shop.locks.wait_for_line(account, 1) == [first.id]
        assert shop.locks.wait_for_line(account, 2) == [first.id, late.id]
    assert [late.get(timeout=SOON), first.get(timeout=SOON)] == ["done"] * 2
    assert ran(shop, account) == [first.id, late.id]


def test_a_task_with_a_rate_limit_parks(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    tell(shop, worker, "rate_limit", task_name="shop.work_unrecorded", rate_limit="20/s")
    try:
        with shop.locks.held(account):
            ids = [shop.send("work_unrecorded", account).id for _ in range(4)]
            shop.locks.wait_for_line(account, 4)
        shop.bodies.wait_for(count_ended=4, resource=resource_of(account), timeout=SOON)
    finally:
        tell(shop, worker, "rate_limit", task_name="shop.work_unrecorded", rate_limit=0)
    assert sorted(str(each) for each in ran(shop, account)) == sorted(ids)
    assert shop.overlaps_of(account) == []


@pytest.mark.parametrize("task", ["work", "work_acked_late"])
def test_both_ways_to_acknowledge_end_with_nothing_unacknowledged(
    shop: LockedShop, worker: WorkerProcess, task: str, account: str
) -> None:
    with shop.locks.held(account):
        results = in_line(shop, account, 3, task)
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 3

    def is_empty() -> bool:
        return all(not told_by(shop, worker, what) for what in ("reserved", "active", "scheduled"))

    assert eventually(is_empty, SOON)
    assert ran(shop, account) == [each.id for each in results]


def test_a_parked_task_is_found_by_its_id(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        (result,) = in_line(shop, account, 1)
        state, told = tell(shop, worker, "query_task", ids=[result.id])[result.id]
        assert told["id"] == result.id
        assert state != "active"
    assert result.get(timeout=SOON) == "done"


def test_a_worker_that_consumes_no_more_runs_what_is_parked(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        results = in_line(shop, account, 2)
        tell(shop, worker, "cancel_consumer", queue=shop.queue)
        # One more may come: Celery's last request to the broker is under way.
        later = shop.send("work", account)
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
    tell(shop, worker, "add_consumer", queue=shop.queue)
    assert later.get(timeout=SOON) == "done"
    assert ran(shop, account) == [*(each.id for each in results), later.id]


@pytest.mark.needs("processes")
def test_the_pool_may_grow_and_shrink_under_parked_tasks(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    gate, other = shop.gate(), f"{account}-other"
    with shop.locks.held(account), shop.locks.held(other):
        results = [shop.send("work", each, gate.path) for each in (account, other)]
        shop.locks.wait_for_line(account, 1)
        shop.locks.wait_for_line(other, 1)
        tell(shop, worker, "pool_grow", n=1)
        assert eventually(lambda: len(worker.pids()) == 2, SOON)
    for each in (account, other):
        shop.bodies.wait_for(count_started=1, resource=resource_of(each), timeout=SOON)
    gate.open()
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
    with shop.locks.held(account):
        more = in_line(shop, account, 2)
        tell(shop, worker, "pool_shrink", n=1)
        assert eventually(lambda: len(worker.pids()) == 1, SOON)
    assert [each.get(timeout=SOON) for each in more] == ["done"] * 2


@pytest.mark.needs("processes")
def test_the_pool_may_restart_under_parked_tasks(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    children = worker.pids()
    with shop.locks.held(account):
        results = in_line(shop, account, 2)
        tell(shop, worker, "pool_restart", reload=False)
        assert eventually(lambda: worker.pids() and not set(worker.pids()) & set(children), SOON)
        assert shop.locks.waiting_tasks(account) == [each.id for each in results]
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 2
    assert ran(shop, account) == [each.id for each in results]


def in_line(shop: LockedShop, account: str, count: int, task: str = "work") -> List[Any]:
    results = []
    for number in range(count):
        results.append(shop.send(task, account))
        shop.locks.wait_for_line(account, number + 1)
    return results


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


def told_by(shop: LockedShop, worker: WorkerProcess, what: str) -> List[Dict[str, Any]]:
    told: List[Dict[str, Any]] = tell(shop, worker, what)
    return told
