"""Two workers at one line: who is dropped, who is passed over, and who keeps his place."""

from __future__ import annotations

import signal
from typing import Any, List, Tuple

import pytest

from celery_redlock import LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 30.0

#: A lease is 30 seconds.
WELL_UNDER_A_LEASE = 15.0

Two = Tuple[WorkerProcess, WorkerProcess]


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def workers(shop: LockedShop) -> Two:
    """Each with one slot and a queue of its own, named as it is."""
    first, second = (
        shop.worker(
            concurrency=1,
            name=name,
            ready=False,
            arguments=["-Q", queue_of(shop, name), "--prefetch-multiplier", "4"],
        )
        for name in ("first", "second")
    )
    for worker in (first, second):
        worker.wait_until_ready()
    return first, second


pytestmark = pytest.mark.usefixtures("workers")


def queue_of(shop: LockedShop, name: str) -> str:
    return f"{shop.queue}-{name}"


def send(shop: LockedShop, name: str, task: str, *args: Any) -> Any:
    return shop.task(task).apply_async(args, queue=queue_of(shop, name))


def output_of(shop: LockedShop) -> str:
    """What all of its workers wrote."""
    return "".join(log.read_text() for log in shop.directory.glob("*.log"))


def ran(shop: LockedShop, account: str) -> List[Any]:
    return [body.task_id for body in shop.bodies_of(account)]


@pytest.mark.parametrize("where", [("first", "second"), ("second", "first"), ("first", "first")])
def test_one_that_is_replaced_ends_at_once_and_names_the_newcomer(
    shop: LockedShop, where: Tuple[str, str], account: str
) -> None:
    with shop.locks.held(account):
        old = send(shop, where[0], "work_on_the_latest", account)
        shop.locks.wait_for_line(account, 1)
        new = send(shop, where[1], "work_on_the_latest", account)
        dropped = old.get(timeout=SOON)
        assert is_skipped(dropped)
        assert (dropped["reason"], dropped["holder"]) == ("replaced", new.id)
        assert shop.locks.waiting_tasks(account) == [new.id]
    assert new.get(timeout=SOON) == "done"
    assert ran(shop, account) == [new.id]


def test_a_full_line_skips_the_newcomer_on_whichever_worker(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        first = send(shop, "first", "work_in_a_short_line", account)
        shop.locks.wait_for_line(account, 1)
        skipped = send(shop, "second", "work_in_a_short_line", account).get(timeout=SOON)
        assert is_skipped(skipped)
        assert skipped["holder"] == "rival"
    assert first.get(timeout=SOON) == "done"


def test_a_wait_that_takes_too_long_names_the_holder_on_the_other_worker(
    shop: LockedShop, account: str
) -> None:
    gate = shop.gate()
    holder = send(shop, "first", "work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    with pytest.raises(LockTimeout) as caught:
        send(shop, "second", "work_soon", account).get(timeout=SOON)
    gate.open()
    assert caught.value.holder == holder.id
    assert holder.get(timeout=SOON) == "done"


def test_a_worker_without_a_free_slot_lets_the_other_go_first(
    shop: LockedShop, workers: Two, account: str
) -> None:
    gate, busy = shop.gate(), f"{account}-busy"
    with shop.locks.held(account):
        waits = send(shop, "first", "work", account)
        shop.locks.wait_for_line(account, 1)
        fills = send(shop, "first", "hold", busy, gate.path)
        shop.bodies.wait_for(count_started=1, resource=busy, timeout=SOON)
        other = send(shop, "second", "work", account)
        shop.locks.wait_for_line(account, 2)
    assert other.get(timeout=SOON) == "done"
    assert waits.state == "PENDING"
    gate.open()
    assert [fills.get(timeout=SOON), waits.get(timeout=SOON)] == [busy, "done"]
    assert ran(shop, account) == [other.id, waits.id]


def test_who_was_passed_over_keeps_the_place_that_he_had(
    shop: LockedShop, workers: Two, account: str
) -> None:
    """Back in line before one who asked after him, though the line has as many as it may."""
    gate, busy = shop.gate(), f"{account}-busy"
    with shop.locks.held(account):
        passed = send(shop, "first", "work_in_a_short_line", account)
        shop.locks.wait_for_line(account, 1)
        fills = send(shop, "first", "hold", busy, gate.path)
        shop.bodies.wait_for(count_started=1, resource=busy, timeout=SOON)
    # Its grant is passed on, as there is no slot for it.
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    with shop.locks.held(account):
        later = send(shop, "second", "work_in_a_short_line", account)
        shop.locks.wait_for_line(account, 1)
        gate.open()
        assert shop.locks.wait_for_line(account, 2) == [passed.id, later.id]
    assert [each.get(timeout=SOON) for each in (fills, passed, later)] == [busy, "done", "done"]
    assert ran(shop, account) == [passed.id, later.id]


def test_one_that_was_passed_over_does_not_drop_the_newer(
    shop: LockedShop, workers: Two, account: str
) -> None:
    gate, busy = shop.gate(), f"{account}-busy"
    with shop.locks.held(account):
        old = send(shop, "first", "work_on_the_latest", account)
        shop.locks.wait_for_line(account, 1)
        fills = send(shop, "first", "hold", busy, gate.path)
        shop.bodies.wait_for(count_started=1, resource=busy, timeout=SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    with shop.locks.held(account):
        new = send(shop, "second", "work_on_the_latest", account)
        shop.locks.wait_for_line(account, 1)
        gate.open()
        dropped = old.get(timeout=SOON)
        assert (dropped["reason"], dropped["holder"]) == ("replaced", new.id)
    assert [fills.get(timeout=SOON), new.get(timeout=SOON)] == [busy, "done"]
    assert ran(shop, account) == [new.id]


@pytest.mark.needs("processes")
def test_a_killed_child_frees_what_its_parked_task_was_granted(
    shop: LockedShop, workers: Two, account: str
) -> None:
    """The tokens of its latest receipt: the first ones ended when it was passed over."""
    never, busy, gate = shop.gate(), f"{account}-busy", shop.gate()
    with shop.locks.held(account):
        killed = send(shop, "first", "work", account, never.path)
        shop.locks.wait_for_line(account, 1)
        fills = send(shop, "first", "hold", busy, gate.path)
        shop.bodies.wait_for(count_started=1, resource=busy, timeout=SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    gate.open()
    assert fills.get(timeout=SOON) == busy
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    after = send(shop, "second", "work", account)
    shop.locks.wait_for_line(account, 1)
    (child,) = workers[0].pids()
    workers[0].send(signal.SIGKILL, child)
    assert after.get(timeout=WELL_UNDER_A_LEASE) == "done"
    assert eventually(lambda: killed.state == "FAILURE", SOON)
    assert ran(shop, account) == [killed.id, after.id]


def test_one_that_has_not_asked_yet_does_not_go_before_one_that_was_passed_over(
    shop: LockedShop, account: str
) -> None:
    """Though it has waited for the worker's only slot for longer."""
    gate, busy = shop.gate(), f"{account}-busy"
    with shop.locks.held(account):
        passed = send(shop, "first", "work", account)
        shop.locks.wait_for_line(account, 1)
        fills = send(shop, "first", "hold", busy, gate.path)
        shop.bodies.wait_for(count_started=1, resource=busy, timeout=SOON)
        later = send(shop, "first", "work", account)
        assert eventually(lambda: f"[{later.id}] received" in output_of(shop), SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    gate.open()
    assert [each.get(timeout=SOON) for each in (fills, passed, later)] == [busy, "done", "done"]
    assert ran(shop, account) == [passed.id, later.id]
