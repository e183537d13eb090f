"""A child that dies: what it held is free when it is dead, at once and never before."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest

from celery_redlock.core.record import Record
from examples.demo.bodylog import Body, now_ns
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.process import is_living
from tests.harness.worker import WorkerProcess
from tests.worker import death_app
from tests.worker.locked_tasks import resource_of

pytestmark = pytest.mark.needs("processes")

APP = death_app.__name__
SOON = 20.0

#: From a death to the release. It takes milliseconds; Celery itself takes up to seconds to notice.
AT_ONCE = 1.0

KILLS = 50
PROCESSES = 4


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(worker_pool_restarts=True)


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> Iterator[WorkerProcess]:
    worker = shop.worker(app=APP, concurrency=PROCESSES)
    yield worker
    worker.kill()


def start(shop: LockedShop, account: str, task: str = "work", **options: Any) -> Tuple[Any, Body]:
    """A body that runs until something ends it."""
    result = shop.task(task).apply_async((account, shop.gate().path), **options)
    (body,) = shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    return result, body


def kill(pid: int) -> float:
    """Kill it, and say when."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def assert_freed(shop: LockedShop, account: str, since: float) -> float:
    """Free at once; the seconds that it took."""
    assert eventually(lambda: shop.locks.is_free(account), AT_ONCE), shop.locks.holders(account)
    return time.monotonic() - since


def assert_held_until_dead(shop: LockedShop, account: str, pid: int) -> None:
    """Not free for as long as the process lives, and at once when it does not."""
    deadline = time.monotonic() + SOON
    while True:
        is_free = shop.locks.is_free(account)
        if not is_living(pid):
            break
        assert not is_free, f"{account} was free while {pid} lived"
        assert time.monotonic() < deadline, f"{pid} lives"
        time.sleep(0.002)
    assert_freed(shop, account, time.monotonic())


# --- ways to die


def test_of_fifty_killed_children_each_is_cleaned_up_after_at_once(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    took: List[float] = []
    pids = set()
    for number in range(KILLS):
        _result, body = start(shop, f"{account}-{number}")
        pids.add(body.pid)
        took.append(assert_freed(shop, f"{account}-{number}", kill(body.pid)))
    assert len(pids) > PROCESSES, "no replacement was killed"
    assert statistics.median(took) < 0.15, sorted(took)
    worker.wait_for_output(
        f"the worker on {worker.nodename} (pid {worker.pid}) ended the hold of "
        f"{resource_of(account)}-0 that a dead process left behind: shop.work[",
        SOON,
    )


def test_who_waits_for_a_killed_child_begins_at_once(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    _result, body = start(shop, account)
    waiter = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    kill(body.pid)
    died = now_ns()
    assert waiter.get(timeout=SOON) == "done"
    _killed, next_one = shop.bodies_of(account)
    assert 0 < (next_one.start - died) / 1e9 < AT_ONCE
    assert next_one.fence > (body.fence or 0)


def test_a_task_whose_child_dies_before_it_takes_it_and_that_was_revoked_leaves_nothing(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Celery gives it to no other child: it accepts it in the parent's name, and fails it."""
    shop = make_locked_shop()
    worker = shop.worker(app=APP, concurrency=1)
    (child,) = worker.pids()
    os.kill(child, signal.SIGSTOP)
    result = shop.send("work", account)
    assert eventually(lambda: shop.locks.holding_tasks(account) == [result.id], SOON)
    worker.wait_for_output("received", SOON)
    shop.app.control.revoke(result.id)
    worker.wait_for_output("revoked", SOON)
    os.kill(child, signal.SIGKILL)
    assert eventually(lambda: result.state == "REVOKED", SOON), result.state
    # Long before its lease is over: Celery looks for dead children every five seconds at the least.
    assert eventually(lambda: shop.locks.is_free(account), SOON), shop.locks.holders(account)
    assert not shop.bodies_of(account)


def test_children_that_die_as_soon_as_their_body_begins_leave_nothing(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    """Their parent may hear of the death before it hears that they took a task."""
    accounts = [f"{account}-{number}" for number in range(12)]
    for each in accounts:
        shop.send("die_or_report", each, True)
    for each in accounts:
        shop.bodies.wait_for(count_started=1, resource=resource_of(each), timeout=SOON)
        assert eventually(lambda of=each: shop.locks.is_free(of), SOON)
    for each in accounts:
        assert shop.send("die_or_report", each, False).get(timeout=SOON)["is_held"]


def test_what_a_child_held_that_swallows_its_hard_time_limit_is_freed_when_it_is_dead(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    _result, body = start(shop, account, "end_stubbornly", time_limit=1)
    assert_held_until_dead(shop, account, body.pid)
    (ended,) = shop.bodies_of(account)
    assert ended.end is None, "the body ended by itself: the test proves nothing"


def test_what_a_child_held_that_a_revoke_kills_is_freed_when_it_is_dead(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    result, body = start(shop, account)
    result.revoke(terminate=True, signal="SIGKILL")
    assert_held_until_dead(shop, account, body.pid)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1"])
def test_a_child_that_a_revoke_interrupts_frees_what_it_held_itself(
    shop: LockedShop, worker: WorkerProcess, number: str, account: str
) -> None:
    result, body = start(shop, account)
    result.revoke(terminate=True, signal=number)
    shop.bodies.wait_for(count_ended=1, resource=resource_of(account), timeout=SOON)
    assert_freed(shop, account, time.monotonic())
    assert f"ended the hold of {resource_of(account)} " not in worker.output()
    if number == "SIGUSR1":
        assert is_living(body.pid)
        kill(body.pid)  # whatever it ran later, billiard would call it terminated when it died


def test_a_child_that_swallows_a_revoke_keeps_its_lock_until_it_is_killed(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    result, body = start(shop, account, "end_stubbornly")
    result.revoke(terminate=True, signal="SIGTERM")
    assert eventually(lambda: shop.said(account=account, swallowed="SystemExit"), SOON)
    assert eventually(lambda: result.state == "REVOKED", SOON)
    assert shop.locks.holding_tasks(account) == [result.id]
    assert_freed(shop, account, kill(body.pid))


def test_a_redelivered_task_gets_the_lock_of_its_killed_delivery_at_once(
    shop: LockedShop, worker: WorkerProcess, account: str, tmp_path: Path
) -> None:
    sent = time.monotonic()
    result = shop.send("survive_one_death", account, str(tmp_path / "mark"))
    assert result.get(timeout=SOON) == "done"
    assert time.monotonic() - sent < 15.0, "its own lease of thirty seconds was in its way"
    first, second = shop.bodies_of(account)
    assert first.task_id == second.task_id
    assert second.fence > (first.fence or 0)


def test_a_name_that_takes_its_time_holds_up_neither_the_worker_nor_other_deaths(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    other = f"{account}-other"
    _result, slow = start(shop, account, "work_slowly_named")
    _result, quick = start(shop, other)
    slow_at, quick_at = kill(slow.pid), kill(quick.pid)
    assert_freed(shop, other, quick_at)
    assert shop.send("work", f"{account}-third").get(timeout=SOON) == "done"
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert time.monotonic() - slow_at > 2.5, "its name was found at once: the test proves nothing"


# --- children that come later


@pytest.mark.parametrize("how", ["pool_grow", "pool_restart"])
def test_children_that_come_while_the_worker_runs_are_cleaned_up_after(
    make_locked_shop: MakeLockedShop, how: str, account: str
) -> None:
    shop = make_locked_shop(worker_pool_restarts=True)
    worker = shop.worker(app=APP, concurrency=1)
    before = set(worker.pids())
    if how == "pool_grow":
        shop.app.control.pool_grow(2, destination=[worker.nodename], reply=True, timeout=SOON)
        assert eventually(lambda: len(worker.pids()) == 3, SOON)
    else:
        shop.app.control.pool_restart(destination=[worker.nodename], reply=True, timeout=SOON)
        assert eventually(lambda: worker.pids() and not before & set(worker.pids()), SOON)
    accounts = [f"{account}-{number}" for number in range(3 if how == "pool_grow" else 1)]
    bodies = [start(shop, each)[1] for each in accounts]
    assert {body.pid for body in bodies} - before, "no new child ran any: the test proves nothing"
    for each, body in zip(accounts, bodies):
        assert_freed(shop, each, kill(body.pid))


def test_children_that_autoscale_adds_are_cleaned_up_after(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    shop.worker(app=APP, arguments=["--autoscale=3,1"])
    accounts = [f"{account}-{number}" for number in range(3)]
    bodies = [start(shop, each)[1] for each in accounts]
    assert len({body.pid for body in bodies}) == 3
    for each, body in zip(accounts, bodies):
        assert_freed(shop, each, kill(body.pid))


# --- a worker that dies as a whole


def test_a_worker_that_starts_frees_what_the_dead_of_its_host_held(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    killed, living = shop.worker(app=APP, concurrency=1), f"{account}-living"
    start(shop, account)
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: not killed.members(), SOON)
    assert not shop.locks.is_free(account), "somebody freed it: the test proves nothing"
    with shop.locks.held(living):
        successor = shop.worker(app=APP, concurrency=1)
        assert eventually(lambda: shop.locks.is_free(account), SOON)
        successor.wait_for_output(f"ended the hold of {resource_of(account)} that", SOON)
        assert shop.locks.holding_tasks(living) == ["rival"]


def test_who_waits_elsewhere_on_the_host_takes_over_from_a_killed_worker(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop, other = make_locked_shop(), make_locked_shop()
    killed = shop.worker(app=APP, concurrency=1)
    start(shop, account)
    other.worker(app=APP, concurrency=1)
    waiter = other.send("work", account)
    shop.locks.wait_for_line(account, 1)
    os.kill(killed.pid, signal.SIGKILL)
    died = now_ns()
    assert waiter.get(timeout=SOON) == "done"
    (next_one,) = other.bodies_of(account)
    # It looks within a second, on a busy machine somewhat later.
    assert (next_one.start - died) / 1e9 < 3.0


def test_who_waits_for_a_lost_host_begins_when_its_lease_is_over(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    lease, asked = 1.5, now_ns()
    with shop.locks.held(account, lease=lease):
        waiter = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        assert waiter.get(timeout=SOON) == "done"
    (body,) = shop.bodies_of(account)
    assert lease <= (body.start - asked) / 1e9 < lease + 3.0


def test_a_child_that_dies_while_its_parent_is_stopped_is_seen_to_by_whoever_waits(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """From its first renewal on the lock server knows the child, and not only its parent."""
    shop, other = make_locked_shop(), make_locked_shop()
    stopped = shop.worker(app=APP, concurrency=1)
    _result, body = start(shop, account, "work_on_a_short_lease")

    def is_known() -> bool:
        (holder,) = shop.locks.holders(account)
        record = Record.decode(holder.record)
        return record is not None and record.pid == body.pid

    assert eventually(is_known, SOON), shop.locks.holders(account)
    successor = other.worker(app=APP, concurrency=1)
    waiter = other.send("work", account)
    shop.locks.wait_for_line(account, 1)
    stopped.send(signal.SIGSTOP)
    kill(body.pid)
    assert waiter.get(timeout=SOON) == "done"
    # Not its lease: that nobody has seen to it would be silent.
    successor.wait_for_output(f"ended the hold of {resource_of(account)} that", SOON)


def test_a_cold_shutdown_frees_what_a_body_that_swallows_it_held(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    worker = shop.worker(app=APP, concurrency=1)
    _result, body = start(shop, account, "end_stubbornly")
    assert eventually(lambda: shop.said(account=account, ready=True), SOON)
    worker.send(signal.SIGQUIT)
    assert eventually(lambda: shop.said(account=account, swallowed="SystemExit"), SOON)
    assert not shop.locks.is_free(account)
    assert_freed(shop, account, kill(body.pid))
    assert worker.wait(SOON)
