"""However a body ends, its resource is free at once, and by the body's own hand where it lives."""

from __future__ import annotations

import signal
from typing import Any, Dict

import billiard
import pytest
from celery import chain

from examples.demo.bodylog import Body
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK, chosen_pool
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0

#: The lease is thirty seconds: what is free within this was not freed by its end.
AT_ONCE = 2.0

#: The same from Celery's word on: a body over its hard time limit is killed only after that.
AFTER_DEATH = 3.0

#: Solo has no workers but its own: it is tested once, beside prefork.
POOLS = [chosen_pool(), *(["solo"] if chosen_pool() == PREFORK else [])]

EVERYWHERE = [
    "return",
    "raise",
    "retry",
    "Ignore",
    "Reject",
    "unpicklable result",
    "unpicklable exception",
]
#: Endings after which the caller has a result, which is stored after the release.
STORED = {"return", "raise", "soft time limit", "unpicklable result", "unpicklable exception"}


class Site:
    """A shop with its one worker, which logs each release."""

    def __init__(self, shop: LockedShop, pool: str, concurrency: int = 2) -> None:
        self.shop = shop
        self.worker: WorkerProcess = shop.worker(
            pool=pool, concurrency=concurrency, arguments=["--loglevel=DEBUG"]
        )

    def end(self, account: str, how: str, **options: Any) -> Any:
        task = self.shop.task("end")
        return task.apply_async((account, how), **options)

    def first_body(self, account: str, count_ended: int = 1) -> Body:
        bodies = self.shop.bodies.wait_for(
            count_ended=count_ended, resource=resource_of(account), timeout=SOON
        )
        return bodies[0]

    def assert_free(self, account: str, within: float = AT_ONCE) -> None:
        locks = self.shop.locks
        assert eventually(lambda: locks.is_free(account), within), locks.holders(account)

    def assert_released_by(self, body: Body) -> None:
        self.worker.wait_for_output(f"(pid {body.pid}) released {body.resource} after", SOON)


@pytest.fixture(scope="module")
def sites(make_locked_shop: MakeLockedShop) -> Dict[str, Site]:
    return {pool: Site(make_locked_shop(), pool) for pool in POOLS}


@pytest.mark.parametrize("how", EVERYWHERE)
@pytest.mark.parametrize("pool", POOLS)
def test_a_body_that_ends_frees_its_resource_itself(
    sites: Dict[str, Site], pool: str, how: str, account: str
) -> None:
    site = sites[pool]
    result = site.end(account, how)
    if how in STORED:
        result.get(timeout=SOON, propagate=False)
        assert site.shop.locks.is_free(account), "the result was there before the release"
    body = site.first_body(account)
    site.assert_free(account)
    site.assert_released_by(body)


@pytest.mark.parametrize("how", ["raise", "retry", "Ignore", "Reject"])
@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_ends_before_its_body_leaves_no_lock(
    sites: Dict[str, Site], pool: str, how: str, account: str
) -> None:
    site = sites[pool]
    site.shop.task("end_before").apply_async((account, how))
    assert eventually(lambda: site.shop.said(began=account), SOON)
    site.assert_free(account)


@pytest.mark.needs("soft time limits")
def test_a_body_that_is_over_its_soft_time_limit_frees_its_resource_itself(
    sites: Dict[str, Site], account: str
) -> None:
    site = sites[chosen_pool()]
    site.end(account, "soft time limit", soft_time_limit=0.3).get(timeout=SOON, propagate=False)
    assert site.shop.locks.is_free(account)
    site.assert_released_by(site.first_body(account))


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
def test_a_child_that_is_told_to_exit_frees_its_resource_itself(
    sites: Dict[str, Site], how: str, account: str
) -> None:
    site = sites[chosen_pool()]
    site.end(account, how)
    body = site.first_body(account)
    site.assert_free(account)
    site.assert_released_by(body)


@pytest.mark.needs("processes")
@pytest.mark.parametrize(
    ("pool", "how"),
    [("prefork", "MemoryError"), ("solo", "SystemExit"), ("solo", "KeyboardInterrupt")],
)
def test_a_body_that_ends_its_worker_frees_its_resource_itself(
    make_locked_shop: MakeLockedShop, pool: str, how: str, account: str
) -> None:
    site = Site(make_locked_shop(), pool, concurrency=1)
    site.end(account, how)
    body = site.first_body(account)
    site.assert_free(account)
    site.assert_released_by(body)
    if how == "MemoryError" and billiard.VERSION < (4, 3):
        # This billiard only logs what Celery raises to end the worker.
        assert site.shop.send("work", account).get(timeout=SOON) == "done"
    else:
        assert site.worker.wait(SOON)


@pytest.mark.parametrize("pool", POOLS)
def test_a_retry_waits_without_its_lock_and_gets_it_again(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site = sites[pool]
    result = site.end(account, "retry")
    first = site.first_body(account)
    site.assert_free(account)
    assert result.get(timeout=SOON) == "done"
    again = site.shop.bodies_of(account)[1]
    assert again.task_id == first.task_id
    site.shop.bodies.assert_fences_grow()


def test_the_next_step_of_a_chain_never_meets_the_lock_of_the_one_before(
    sites: Dict[str, Site], account: str
) -> None:
    shop = sites[chosen_pool()].shop
    step = shop.task("step")
    for _ in range(50):
        assert chain(step.si(account), step.si(account))().get(timeout=SOON) == "done"
    assert shop.overlaps_of(account) == []
    assert len(shop.bodies_of(account)) == 100


@pytest.mark.needs("processes")
@pytest.mark.parametrize("how", ["os._exit", "SIGKILL"])
def test_a_child_that_dies_in_its_body_is_cleaned_up_after_by_its_parent(
    sites: Dict[str, Site], how: str, account: str
) -> None:
    site = sites[chosen_pool()]
    gate = site.shop.gate()
    site.shop.send("end", account, how, gate.path)
    (body,) = site.shop.bodies.wait_for(
        count_started=1, resource=resource_of(account), timeout=SOON
    )
    assert not site.shop.locks.is_free(account)
    gate.open()
    site.assert_free(account, AFTER_DEATH)
    assert site.shop.send("work", account).get(timeout=SOON) == "done"
    assert site.shop.bodies_of(account)[1].fence > (body.fence or 0)


@pytest.mark.needs("processes")
def test_a_child_that_dies_frees_every_resource_that_it_held(
    sites: Dict[str, Site], account: str
) -> None:
    site, other = sites[chosen_pool()], f"{account}-other"
    site.shop.send("die_holding_two", account, other)
    both = [resource_of(account), resource_of(other)]
    assert eventually(lambda: bool(site.shop.said(resources=both)), SOON)
    site.assert_free(account, AFTER_DEATH)
    site.assert_free(other, AFTER_DEATH)
    for name in (account, other):
        assert site.shop.send("work", name).get(timeout=SOON) == "done"


@pytest.mark.needs("hard time limits")
@pytest.mark.parametrize("task", ["work", "end_stubbornly"])
def test_a_body_over_its_hard_time_limit_is_cleaned_up_after(
    sites: Dict[str, Site], task: str, account: str
) -> None:
    site = sites[chosen_pool()]
    arguments = (account, site.shop.gate().path)
    result = site.shop.task(task).apply_async(arguments, time_limit=1)
    site.shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    result.get(timeout=SOON, propagate=False)
    site.assert_free(account, AFTER_DEATH)


@pytest.mark.needs("terminate")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_revoked_body_that_is_terminated_frees_its_resource(
    sites: Dict[str, Site], number: str, account: str
) -> None:
    site = sites[chosen_pool()]
    result = site.shop.send("work", account, site.shop.gate().path)
    site.shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    result.revoke(terminate=True, signal=number)
    site.assert_free(account, AFTER_DEATH)


@pytest.mark.needs("signals")
def test_a_revoked_body_that_will_not_end_keeps_its_lock_until_it_does(
    sites: Dict[str, Site], account: str
) -> None:
    site = sites[chosen_pool()]
    gate = site.shop.gate()
    result = site.shop.send("end_stubbornly", account, gate.path)
    site.shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    result.revoke(terminate=True, signal=signal.Signals.SIGTERM.name)
    assert eventually(lambda: site.shop.said(account=account, swallowed="SystemExit"), SOON)
    assert eventually(lambda: result.state == "REVOKED", SOON)
    assert site.shop.locks.holding_tasks(account) == [result.id]
    gate.open()
    site.first_body(account)
    site.assert_free(account)


@pytest.mark.needs("cold shutdown")
def test_a_cold_shutdown_interrupts_a_body_which_frees_its_resource_itself(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    site = Site(make_locked_shop(), chosen_pool(), concurrency=1)
    site.shop.send("work", account, site.shop.gate().path)
    site.shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    site.worker.send(signal.SIGQUIT)
    body = site.first_body(account)
    site.assert_free(account)
    site.assert_released_by(body)
    assert site.worker.wait(SOON)
