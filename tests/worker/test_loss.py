"""A body whose lock was lost is interrupted, and nobody else is."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from celery_redlock import LockLost, LockUnsure
from celery_redlock.integration.runtime import runtime_of
from examples.demo.bodylog import Body
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import GREEN, POOLS, PREFORK, chosen_pool, is_installed
from tests.harness.servers import LockServer, missing
from tests.harness.worker import WorkerProcess
from tests.worker.locked_losses import LEASE
from tests.worker.locked_tasks import resource_of

SOON = 20.0

#: Solo has no workers but its own: it is tested once, beside prefork.
HERE = [*POOLS, "solo"] if chosen_pool() == PREFORK else [chosen_pool()]

BREAKS_CALLS = ("sleep", "compute", "wait_for_a_socket")
BETWEEN_CALLS = ("sleep_often", "compute", "wait_often_for_a_socket")
WHEN_IT_YIELDS = ("sleep", "compute_and_yield", "wait_for_a_socket")

#: In what each pool's bodies can be interrupted.
REACHED_IN = {
    PREFORK: BREAKS_CALLS,
    "solo": BREAKS_CALLS,
    "threads": BETWEEN_CALLS,
    **dict.fromkeys(GREEN, WHEN_IT_YIELDS),
}

#: How many bodies end at about the moment of their loss: a thousand on all pools.
AROUND_THE_LOSS = {PREFORK: 400}


class Site:
    """A shop with its one worker."""

    def __init__(self, shop: LockedShop, pool: str, concurrency: int = 4) -> None:
        self.shop = shop
        self.pool = pool
        concurrency = 1 if pool == "solo" else concurrency
        self.worker: WorkerProcess = shop.worker(pool=pool, concurrency=concurrency)

    def start(self, task: str, account: str, *args: Any, **kwargs: Any) -> AsyncResult:
        """A body of this task runs when this returns."""
        result = self.shop.send(task, account, *args, **kwargs)
        self.body(account)
        return result

    def body(self, account: str) -> Body:
        return self.shop.bodies.wait_for(
            count_started=1, resource=resource_of(account), timeout=SOON
        )[0]

    def take(self, account: str) -> None:
        """Release it by force."""
        resource, manager = resource_of(account), runtime_of(self.shop.app).manager
        assert manager.force(resource, manager.inspect(resource).holders, "a test")

    def assert_lost(self, result: AsyncResult, account: str) -> None:
        body = self.body(account)
        with pytest.raises(LockLost) as caught:
            result.get(timeout=SOON)
        assert type(caught.value) is LockLost
        assert caught.value.args == (resource_of(account), body.fence)
        assert [told["pid"] for told in self.said(account)] == [body.pid]

    def said(self, account: str, raised: str = "LockLost") -> List[Dict[str, Any]]:
        return self.shop.said(account=account, raised=raised)

    def assert_goes_on(self, account: str) -> None:
        assert self.shop.send("work", account).get(timeout=SOON) == "done"
        assert self.shop.locks.is_free(account)


@pytest.fixture(scope="module")
def sites(make_locked_shop: MakeLockedShop) -> Iterator[Dict[str, Site]]:
    started: Dict[str, Site] = {}

    class Sites(Dict[str, Site]):
        def __missing__(self, pool: str) -> Site:
            if not is_installed(pool):
                missing(pool)
            self[pool] = Site(make_locked_shop(), pool)
            return self[pool]

    sites = Sites(started)
    yield sites
    for site in sites.values():
        site.worker.kill()


@pytest.fixture
def site(sites: Dict[str, Site]) -> Site:
    """On the pool of the test run."""
    return sites[chosen_pool()]


# --- whose lock was granted to another, or taken


@pytest.mark.parametrize("pool", HERE)
def test_a_body_is_interrupted_in_whatever_it_does(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site = sites[pool]
    for doing in REACHED_IN[pool]:
        name = f"{account}-{doing}"
        result = site.start("lose", name, doing)
        site.take(name)
        site.assert_lost(result, name)
        site.assert_goes_on(name)


@pytest.mark.parametrize("pool", HERE)
def test_a_body_that_was_paused_beyond_its_lease_is_interrupted_for_a_rival(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site = sites[pool]
    result = site.start("lose", account)
    with paused(site.body(account).pid):
        assert eventually(lambda: site.shop.locks.is_free(account))
        rival = site.shop.locks.held(account)
        rival.__enter__()
    site.assert_lost(result, account)
    assert site.shop.locks.holding_tasks(account) == ["rival"]
    rival.__exit__(None, None, None)
    site.assert_goes_on(account)


@pytest.mark.parametrize("pool", HERE)
def test_a_body_that_is_held_for_as_long_as_allowed_is_interrupted(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site = sites[pool]
    site.assert_lost(site.start("lose_in_the_end", account), account)
    said = f"lost {resource_of(account)}: held for as long as allowed"
    site.worker.wait_for_output(said, SOON)


def test_a_body_that_celery_maps_over_is_interrupted_like_any_other(
    site: Site, account: str
) -> None:
    (doing, *_others) = REACHED_IN[site.pool]
    result = site.shop.task("lose").starmap([(account, doing)]).apply_async()
    site.body(account)
    site.take(account)
    site.assert_lost(result, account)
    site.assert_goes_on(account)


def test_a_body_that_lost_one_of_its_resources_is_told_which(site: Site, account: str) -> None:
    other = f"{account}-other"
    result = site.shop.send("lose_one_of_two", account, other)
    assert eventually(lambda: site.shop.said(account=account), SOON)
    site.take(other)
    with pytest.raises(LockLost) as caught:
        result.get(timeout=SOON)
    assert caught.value.resource == resource_of(other)
    site.assert_goes_on(account)


def test_a_loss_around_a_nested_body_ends_both_and_frees_both(site: Site, account: str) -> None:
    other = f"{account}-other"
    result = site.start("lose_around", account, other)
    site.body(other)
    site.take(account)
    with pytest.raises(LockLost) as caught:
        result.get(timeout=SOON)
    assert caught.value.resource == resource_of(account)
    site.assert_goes_on(other)
    site.assert_goes_on(account)


@pytest.mark.parametrize("pool", HERE)
def test_a_loss_around_a_nested_wait_ends_it_and_leaves_the_line(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site, other = sites[pool], f"{account}-other"
    with site.shop.locks.held(other):
        result = site.start("lose_around", account, other)
        site.shop.locks.wait_for_line(other, 1)
        site.take(account)
        with pytest.raises(LockLost) as caught:
            result.get(timeout=SOON)
        assert caught.value.resource == resource_of(account)
        site.shop.locks.wait_for_line(other, 0)
    assert site.shop.bodies_of(other) == []


def test_an_interruption_is_not_retried_by_autoretry(site: Site, account: str) -> None:
    result = site.start("lose_with_autoretry", account)
    site.take(account)
    site.assert_lost(result, account)
    site.assert_goes_on(account)
    assert len(site.shop.bodies_of(account)) == 2  # of which one was that which goes on


def test_a_body_that_swallows_its_interruption_goes_on_and_is_told_by_check(
    site: Site, account: str
) -> None:
    gate = site.shop.gate()
    result = site.start("lose_and_go_on", account, gate.path)
    site.take(account)
    assert eventually(lambda: site.shop.said(account=account, swallowed=True), SOON)
    gate.open()
    assert result.get(timeout=SOON) == ["LockLost", "LockLost"]


# --- who is not interrupted


@pytest.mark.parametrize("pool", HERE)
def test_a_body_that_is_only_to_be_warned_is_never_interrupted(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site, gate = sites[pool], sites[pool].shop.gate()
    result = site.start("lose_warned", account, gate=gate.path)
    site.take(account)
    site.worker.wait_for_output(f"lost {resource_of(account)}", SOON)
    gate.open()
    with pytest.raises(LockLost):  # by check(), in the end
        result.get(timeout=SOON)
    assert site.said(account) == []


@pytest.mark.parametrize("pool", HERE)
def test_bodies_that_end_at_about_the_moment_of_their_loss_harm_nobody_else(
    sites: Dict[str, Site], pool: str, account: str
) -> None:
    site = sites[pool]
    count = AROUND_THE_LOSS.get(pool, 150)
    pids = set(site.worker.pids())
    bodies, others = [], []
    for number in range(count):
        bodies.append(site.shop.send("end_at_about_the_loss", f"{account}-{number}"))
        if number % 2:
            others.append(site.shop.send("stand_by", 0.001))
    # Asked for one by one: an old client of Celery's misses one of so many that come by themselves.
    assert eventually(lambda: all(result.ready() for result in [*bodies, *others]), 60)
    assert {type(result.result) for result in bodies} == {str, LockLost}
    assert {result.result for result in others} == {"done"}
    assert set(site.worker.pids()) == pids, "an idle child has died"
    site.assert_goes_on(account)


@pytest.mark.needs("soft time limits")
def test_a_soft_time_limit_is_no_loss(site: Site, account: str) -> None:
    """Also in a child that has interrupted a body before."""
    for number in range(4):
        name = f"{account}-{number}"
        result = site.start("lose", name, "sleep")
        site.take(name)
        site.assert_lost(result, name)
    lose = site.shop.task("lose")
    results = [
        lose.apply_async((f"{account}-{number}", "sleep"), soft_time_limit=1) for number in range(4)
    ]
    for result in results:
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=SOON)


@pytest.mark.needs("signals")
def test_a_late_signal_harms_neither_an_idle_child_nor_a_body(site: Site, account: str) -> None:
    result = site.start("lose", account)
    pids = site.worker.pids()
    for _ in range(3):
        for pid in pids:
            os.kill(pid, signal.SIGURG)
    site.take(account)
    site.assert_lost(result, account)
    assert site.worker.pids() == pids
    site.assert_goes_on(account)


# --- outages


@pytest.fixture(scope="module")
def own_server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def outage_site(make_locked_shop: MakeLockedShop, own_server: LockServer) -> Site:
    options = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    shop = make_locked_shop(lock_url=own_server.url, redlock_options=options)
    return Site(shop, chosen_pool())


def test_an_outage_longer_than_the_lease_interrupts_those_alone_that_may_not_be_unsure(
    outage_site: Site, own_server: LockServer, account: str
) -> None:
    site, unsure, sure = outage_site, f"{account}-unsure", f"{account}-sure"
    gate = site.shop.gate()
    interrupted = site.start("lose_unsurely", unsure)
    undisturbed = site.start("lose", sure, gate=gate.path)
    own_server.pause()
    try:
        assert eventually(lambda: site.said(unsure, "LockUnsure"), SOON)
        site.worker.wait_for_output(f"may have lost {resource_of(sure)}", SOON)
    finally:
        own_server.resume()
    with pytest.raises(LockUnsure):
        interrupted.get(timeout=SOON)
    site.worker.wait_for_output(f"holds {resource_of(sure)} for certain again", SOON)
    gate.open()
    assert undisturbed.get(timeout=SOON) == "done"
    assert site.shop.said(account=sure) == []


def test_an_outage_shorter_than_the_lease_interrupts_nobody(
    outage_site: Site, own_server: LockServer, account: str
) -> None:
    site, gate = outage_site, outage_site.shop.gate()
    result = site.start("lose_unsurely", account, gate=gate.path)
    with paused(own_server.pid):
        time.sleep(LEASE / 3)  # how long the outage is, not a wait for something
    gate.open()
    assert result.get(timeout=SOON) == "done"


def test_a_lock_whose_server_was_restarted_empty_is_re_established(
    make_locked_shop: MakeLockedShop, own_server: LockServer, account: str
) -> None:
    # Lost for certain without this grace, in which nobody is granted anything.
    shop = make_locked_shop(lock_url=own_server.url, redlock_restart_grace=4)
    site, gate = Site(shop, chosen_pool()), shop.gate()
    result = site.start("lose_slowly", account, gate.path)
    own_server.restart()
    site.worker.wait_for_output(f"holds {resource_of(account)} again", SOON)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    assert site.shop.said(account=account) == []


@contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
