"""Threads and greenlets: what ends a body there, and what bodies of one process never share."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.exceptions import TimeoutError as NotReady

from tests.harness.locked_shop import MakeLockedShop, eventually
from tests.harness.pools import GREEN, POOLS, PREFORK, chosen_pool, gaps, is_installed
from tests.harness.servers import missing
from tests.worker.pool_site import (
    APP,
    CONCURRENCY,
    SOON,
    Site,
    having,
    in_one_process,
    on,
    without,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pools.md"


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, make_locked_shop: MakeLockedShop) -> Iterator[Site]:
    if not is_installed(request.param):
        missing(request.param)
    site = Site(make_locked_shop(), request.param)
    yield site
    site.worker.kill()


# --- one process


@in_one_process
def test_bodies_of_one_process_never_share_a_hold(site: Site, account: str) -> None:
    accounts = [f"{account}-{number % 2}" for number in range(30)]
    results = [site.shop.send("work", each) for each in accounts]
    assert [result.get(timeout=SOON) for result in results] == ["done"] * len(accounts)
    for each in set(accounts):
        bodies = site.shop.bodies_of(each)
        assert len(bodies) == 15
        assert {body.pid for body in bodies} == {site.worker.pid}
        assert not site.shop.overlaps_of(each)
    site.shop.bodies.assert_fences_grow()
    site.assert_nothing_left()


@in_one_process
def test_bodies_of_one_process_run_at_the_same_time_on_different_resources(
    site: Site, account: str
) -> None:
    gate = site.shop.gate()
    accounts = [f"{account}-{number}" for number in range(CONCURRENCY)]
    results = [site.shop.send("work", each, gate.path) for each in accounts]
    for each in accounts:
        site.wait_for_body(each)
    gate.open()
    assert [result.get(timeout=SOON) for result in results] == ["done"] * CONCURRENCY


@in_one_process
def test_a_thread_with_a_bodys_context_does_not_share_its_lock(site: Site, account: str) -> None:
    """Two of them would run at the same time, each with the body's hold."""
    assert site.shop.send("share_with_thread", account).get(timeout=SOON) == "LockTimeout"
    assert len(site.shop.bodies_of(account)) == 1
    site.assert_goes_on(account)


@in_one_process
def test_a_body_that_computes_for_three_leases_without_yielding_keeps_its_lock(
    site: Site, account: str
) -> None:
    result = site.shop.send("compute", account, 3.5)
    site.wait_for_body(account)
    left = []
    # Under greenlets nothing else of the worker runs now: the end of the body is seen in its log.
    while site.shop.bodies_of(account)[0].end is None:
        left.append(sum(holder.remaining_ms for holder in site.shop.locks.holders(account)))
        time.sleep(0.02)
    assert len(left) > 20
    # The last look may come after the release.
    assert min(left[:-2]) > 0, "its lease passed while it computed"
    assert result.get(timeout=SOON) == ["held"]
    site.assert_goes_on(account)


@pytest.mark.skipif(chosen_pool() != PREFORK, reason="all pools at once, in the default run")
def test_workers_of_all_pools_exclude_one_another(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    installed = [pool for pool in POOLS if is_installed(pool)]
    workers = [shop.worker(app=APP, pool=pool, concurrency=2, ready=False) for pool in installed]
    for worker in workers:
        worker.wait_until_ready()
    results = [shop.send("work", f"{account}-{number % 2}") for number in range(80)]
    assert [result.get(timeout=SOON) for result in results] == ["done"] * len(results)
    assert len({body.pid for body in shop.bodies.bodies()}) >= len(installed)
    shop.bodies.assert_exclusive()
    shop.bodies.assert_fences_grow()


# --- endings


@in_one_process
@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
def test_a_body_that_would_end_its_process_ends_alone_and_frees_its_lock(
    site: Site, how: str, account: str
) -> None:
    result = site.shop.send("end", account, how)
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    site.assert_goes_on(account)
    assert site.worker.is_running
    assert result.state == "PENDING"  # "outcomes after an exit"


@on(*GREEN)
def test_a_body_that_raises_greenlet_exit_frees_its_lock(site: Site, account: str) -> None:
    site.shop.send("exit_greenlet", account)
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    site.assert_goes_on(account)


@having("terminate")
def test_a_terminated_body_frees_its_lock(site: Site, account: str) -> None:
    result = site.start(account)
    result.revoke(terminate=True)
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SOON)
    site.assert_goes_on(account)


@having("terminate")
def test_a_body_that_will_not_be_terminated_keeps_its_lock_until_it_ends(
    site: Site, account: str
) -> None:
    gate = site.shop.gate()
    result = site.shop.send("end_reluctantly", account, gate.path)
    site.wait_for_body(account)
    result.revoke(terminate=True)
    assert eventually(lambda: site.shop.said(account=account, caught="GreenletExit"), SOON)
    assert site.shop.locks.holding_tasks(account) == [result.id]
    gate.open()
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    site.assert_goes_on(account)


@without("terminate")
def test_a_body_that_cannot_be_terminated_keeps_its_lock(site: Site, account: str) -> None:
    gate = site.shop.gate()
    result = site.shop.send("work", account, gate.path)
    site.wait_for_body(account)
    result.revoke(terminate=True)
    site.worker.wait_for_output("NotImplementedError", SOON)
    assert site.shop.locks.holding_tasks(account) == [result.id]
    gate.open()
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    site.assert_goes_on(account)


@having("hard time limits")
def test_a_body_over_its_hard_time_limit_frees_its_lock(site: Site, account: str) -> None:
    result = site.start(account, time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=SOON)
    site.wait_for_body(account, ended=True)
    site.assert_free(account)
    site.assert_goes_on(account)


@without("hard time limits")
def test_a_body_over_a_hard_time_limit_that_its_pool_ignores_keeps_its_lock(
    site: Site, account: str
) -> None:
    assert_goes_on_under_its_lock(site, account, time_limit=0.3)


@without("soft time limits")
def test_a_body_over_a_soft_time_limit_that_its_pool_ignores_keeps_its_lock(
    site: Site, account: str
) -> None:
    assert_goes_on_under_its_lock(site, account, soft_time_limit=0.3)


def assert_goes_on_under_its_lock(site: Site, account: str, **limit: float) -> None:
    gate = site.shop.gate()
    result = site.shop.task("work").apply_async((account, gate.path), **limit)
    site.wait_for_body(account)
    with pytest.raises(NotReady):
        result.get(timeout=1.0)
    assert site.shop.locks.holding_tasks(account) == [result.id]
    gate.open()
    assert result.get(timeout=SOON) == "done"


# --- waits in place


@having("terminate")
@pytest.mark.parametrize("where", ["before its body", "in its body"])
def test_a_terminated_waiter_leaves_no_place_in_line_and_no_hold(
    site: Site, where: str, account: str
) -> None:
    own = f"{account}-own" if where == "in its body" else None
    with site.shop.locks.held(account):
        result = wait_in_place(site, account, own)
        result.revoke(terminate=True)
        assert_waits_no_more(site, account, own)
    site.assert_goes_on(account)


@having("hard time limits")
def test_a_waiter_over_its_hard_time_limit_leaves_no_place_in_line_and_no_hold(
    site: Site, account: str
) -> None:
    own = f"{account}-own"
    with site.shop.locks.held(account):
        result = wait_in_place(site, account, own, time_limit=1)
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=SOON)
        assert_waits_no_more(site, account, own)
    site.assert_goes_on(account)


@having("hard time limits")
def test_a_hard_time_limit_does_not_run_while_a_task_waits_in_the_parent(
    site: Site, account: str
) -> None:
    with site.shop.locks.held(account):
        result = site.shop.task("work").apply_async((account,), time_limit=1)
        site.shop.locks.wait_for_line(account, 1)
        with pytest.raises(NotReady):
            result.get(timeout=1.5)
    assert result.get(timeout=SOON) == "done"
    site.assert_goes_on(account)


def wait_in_place(site: Site, account: str, own: Optional[str], **options: Any) -> Any:
    """A task that waits for the account, in the parent or, with ``own``, in place in its body."""
    if own is None:
        result = site.shop.task("work").apply_async((account,), **options)
    else:
        result = site.shop.task("work_on_both").apply_async((own, account), **options)
    site.shop.locks.wait_for_line(account, 1)
    return result


def assert_waits_no_more(site: Site, account: str, own: Optional[str]) -> None:
    site.shop.locks.wait_for_line(account, 0)
    if own is not None:
        site.assert_free(own)
    assert site.shop.bodies_of(account) == []
    assert site.shop.locks.holding_tasks(account) == ["rival"]


@in_one_process
def test_a_waiter_that_gives_up_leaves_no_place_in_line(site: Site, account: str) -> None:
    with site.shop.locks.held(account):
        result = site.shop.send("work_soon", account)
        result.get(timeout=SOON, propagate=False)
        assert result.state == "FAILURE"
        site.shop.locks.wait_for_line(account, 0)
    site.assert_goes_on(account)


# --- the worker's end


@in_one_process
def test_a_warm_shutdown_lets_bodies_end_and_leaves_no_lock(
    make_locked_shop: MakeLockedShop, site: Site, account: str
) -> None:
    site = Site(make_locked_shop(), site.pool)
    gate = site.shop.gate()
    result = site.shop.send("work", account, gate.path)
    site.wait_for_body(account)
    waiter = site.shop.send("work", account)
    site.shop.locks.wait_for_line(account, 1)
    site.worker.send(signal.SIGTERM)
    # What waited in the parent goes back to the queue, for another worker.
    site.shop.locks.wait_for_line(account, 0)
    gate.open()
    assert site.worker.wait(30.0)
    assert result.get(timeout=SOON) == "done"
    site.assert_free(account)
    assert [body.task_id for body in site.shop.bodies_of(account)] == [result.id]
    Site(site.shop, site.pool)
    assert waiter.get(timeout=SOON) == "done"
    assert not site.shop.overlaps_of(account)


def test_the_docs_say_what_cannot_hold_where_and_why() -> None:
    assert gaps() in PAGE.read_text()
