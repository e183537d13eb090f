"""A lock kept over a retry, on a real worker."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable

import pytest

from tests.harness.locked_shop import LockedShop, eventually
from tests.worker.locked_app import resource_of

SOON = 20.0

#: A retry that nobody woke would ask after ten seconds.
PROMPTLY = 5.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(concurrency=3)
    return shop


def gap(shop: LockedShop, account: str) -> float:
    """Seconds from the first body's end to the next one's start."""
    first, again = shop.bodies_of(account)[:2]
    assert first.end is not None
    return (again.start - first.end) / 1e9


def test_a_retry_at_once_has_the_lock_of_the_body_that_published_it(
    shop: LockedShop, account: str
) -> None:
    fence = shop.send("retry_often", account, 5).get(timeout=SOON)
    assert [told["fence"] for told in shop.said(kept=account)] == [fence] * 6
    assert shop.overlaps_of(account) == []
    bodies = shop.bodies_of(account)
    assert (bodies[-1].start - bodies[0].start) / 1e9 < PROMPTLY


def test_a_retry_that_comes_before_its_bodys_end_waits_for_that_and_no_longer(
    shop: LockedShop, account: str
) -> None:
    result = shop.send("retry_slowly", account, 1.0)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    shop.locks.wait_for_line(account, 1)
    fence = result.get(timeout=SOON)
    first, again = shop.bodies_of(account)
    assert first.fence == again.fence == fence
    assert shop.overlaps_of(account) == []
    assert gap(shop, account) < PROMPTLY


def test_a_retry_that_comes_early_passes_those_in_line(shop: LockedShop, account: str) -> None:
    gate = shop.gate()
    result = shop.send("retry_slowly", account, 1.0, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    rival = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    gate.open()
    assert shop.locks.wait_for_line(account, 2) == [rival.id, result.id]
    fence = result.get(timeout=SOON)
    assert rival.get(timeout=SOON) == "done"
    first, again, other = shop.bodies_of(account)
    assert [first.task_id, again.task_id, other.task_id] == [result.id, result.id, rival.id]
    assert first.fence == again.fence == fence
    assert gap(shop, account) < PROMPTLY


@pytest.mark.parametrize("is_naive", [False, True], ids=["aware", "naive"])
def test_a_retry_at_an_eta_has_the_lock(shop: LockedShop, account: str, is_naive: bool) -> None:
    """A naive time is one of UTC, as it is for Celery's worker."""
    result = shop.send("retry_at_eta", account, 1.0, is_naive)
    shop.bodies.wait_for(count_ended=1, resource=resource_of(account), timeout=SOON)
    assert eventually(lambda: kept(shop, account), SOON)
    # For the second until then and one more lease of thirty.
    assert shop.locks.holders(account)[0].remaining_ms / 1000 == pytest.approx(30.5, abs=2.0)
    fence = result.get(timeout=SOON)
    first, again = shop.bodies_of(account)
    assert first.fence == again.fence == fence


def test_several_locks_are_kept_together(shop: LockedShop, account: str) -> None:
    fences = shop.send("retry_with_two", account, f"{account}-other").get(timeout=SOON)
    assert [told["fences"] for told in shop.said(kept=account)] == [fences] * 2
    assert len(fences) == 2
    assert shop.overlaps_of(account) == shop.overlaps_of(f"{account}-other") == []


def test_a_retry_with_other_arguments_keeps_nothing_of_the_first_ones(
    shop: LockedShop, account: str
) -> None:
    assert shop.send("retry_for_another", account, f"{account}-other").get(timeout=SOON) == "done"
    assert shop.locks.is_free(account)


def test_a_retry_that_was_never_sent_keeps_nothing(shop: LockedShop, account: str) -> None:
    result = shop.send("call_what_retries", account, f"{account}-other")
    assert eventually(lambda: result.state == "RETRY", SOON)
    assert shop.locks.is_free(account)
    assert shop.locks.is_free(f"{account}-other")


def test_a_lock_whose_retry_never_comes_is_free_after_countdown_and_lease(
    shop: LockedShop, account: str
) -> None:
    result = shop.send("retry_of_a_short_lease", account, 2.0)
    shop.bodies.wait_for(count_ended=1, resource=resource_of(account), timeout=SOON)
    assert eventually(lambda: kept(shop, account), SOON)
    # Recorded after that: over a revocation that came first it would stand for ever.
    assert eventually(lambda: result.state == "RETRY", SOON)
    result.revoke()
    left = shop.locks.holders(account)[0].remaining_ms / 1000
    assert left <= 3.0
    assert shop.send("work", account).get(timeout=SOON) == "done"
    first, other = shop.bodies_of(account)
    assert first.end is not None
    assert (other.start - first.end) / 1e9 > 1.0
    assert eventually(lambda: result.state == "REVOKED", SOON)


@pytest.mark.parametrize(("how", "expires", "countdown"), [("revoked", None, 2), ("expired", 5, 6)])
def test_a_retry_that_is_not_to_run_keeps_nothing_when_its_time_has_come(
    shop: LockedShop, account: str, how: str, expires: Any, countdown: float
) -> None:
    result = shop.task("work_twice").apply_async((account, countdown), expires=expires)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    assert eventually(lambda: kept(shop, account), SOON)
    # Recorded after that: over a revocation that came first it would stand for ever.
    assert eventually(lambda: result.state == "RETRY", SOON)
    if how == "revoked":
        result.revoke()
    assert eventually(lambda: result.state == "REVOKED", SOON)
    # Long before the lease is over.
    assert eventually(lambda: shop.locks.is_free(account), PROMPTLY)
    assert shop.send("work", account).get(timeout=SOON) == "done"


def test_a_retry_that_comes_too_late_queues_like_anybody(shop: LockedShop, account: str) -> None:
    late = f"{shop.queue}-late"
    result = shop.send("retry_elsewhere", account, late)
    assert eventually(lambda: kept(shop, account), SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    with shop.locks.held(account):
        shop.app.control.add_consumer(late)
        assert shop.locks.wait_for_line(account, 1) == [result.id]
        assert len(shop.bodies_of(account)) == 1
    assert result.get(timeout=SOON) == "done"
    first, again = shop.bodies_of(account)
    assert (again.fence or 0) > (first.fence or 0)


def test_a_kept_lock_outlives_its_worker(
    make_locked_shop: Callable[..., LockedShop], account: str
) -> None:
    """It belongs to no process: nobody takes it from a dead one."""
    shop = make_locked_shop()
    late = f"{shop.queue}-late"
    worker = shop.worker(concurrency=1)
    result = shop.send("retry_in_another_worker", account, late)
    assert eventually(lambda: kept(shop, account), SOON)
    worker.kill()
    another = shop.worker(concurrency=2)
    rival = shop.send("work", account)
    shop.locks.wait_for_line(account, 1)
    shop.app.control.add_consumer(late, destination=[another.nodename])
    fence = result.get(timeout=SOON)
    assert rival.get(timeout=SOON) == "done"
    first, again, other = shop.bodies_of(account)
    assert [first.task_id, again.task_id, other.task_id] == [result.id, result.id, rival.id]
    assert first.fence == again.fence == fence


@pytest.mark.needs("processes")
def test_a_body_that_dies_before_it_has_kept_its_lock_leaves_it_to_its_retry_at_once(
    shop: LockedShop, account: str
) -> None:
    """The retry that it published waits for it."""
    result = shop.send("retry_slowly", account, 60.0)
    shop.locks.wait_for_line(account, 1)
    (first,) = shop.bodies_of(account)
    os.kill(first.pid, signal.SIGKILL)
    shop.bodies.wait_for(count_started=2, resource=resource_of(account), timeout=PROMPTLY)
    assert eventually(lambda: shop.app.backend.get_state(result.id) == "SUCCESS", SOON)
    assert len(shop.bodies_of(account)) == 2


def kept(shop: LockedShop, account: str) -> bool:
    return [holder.state for holder in shop.locks.holders(account)] == ["kept"]
