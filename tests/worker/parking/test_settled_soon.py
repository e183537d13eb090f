"""A parked task that is revoked or expires is settled soon, on every pool, and not when granted."""

from __future__ import annotations

import time
from typing import Any, Callable

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import POOLS, PREFORK, chosen_pool
from tests.worker.parking.conftest import needed

SOON = 30.0

#: It is promised within a second; the rest is room for the machine.
WELL_BEFORE_THE_GRANT = 6.0


def by_id(shop: LockedShop, account: str) -> Any:
    result = sent(shop, account)
    result.revoke()
    return result


def by_stamp(shop: LockedShop, account: str) -> Any:
    result = sent(shop, account)
    shop.app.control.revoke_by_stamped_headers({"customer": [account]})
    return result


def by_its_time(shop: LockedShop, account: str) -> Any:
    result = sent(shop, account, expires=4.0)
    time.sleep(4.0)
    return result


def sent(shop: LockedShop, account: str, **options: Any) -> Any:
    """In line by now; stamped with the account."""
    signature = shop.task("work").s(account)
    signature.stamp(customer=account)
    result = signature.apply_async(**options)
    shop.locks.wait_for_line(account, 1)
    return result


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, make_locked_shop: MakeLockedShop) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(pool=needed(request.param), concurrency=1)
    return shop


@pytest.mark.parametrize("end", [by_id, by_stamp, by_its_time])
@pytest.mark.parametrize(
    "shop",
    [pool for pool in POOLS if chosen_pool() in (PREFORK, pool)],
    indirect=True,
    scope="module",
)
def test_it_is_settled_while_another_holds_its_lock(
    shop: LockedShop, end: Callable[[LockedShop, str], Any], account: str
) -> None:
    with shop.locks.held(account):
        result = end(shop, account)
        since = time.monotonic()
        # A revoke by its id is recorded before it is settled.
        assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
        assert eventually(lambda: result.state == "REVOKED", SOON)
        assert time.monotonic() - since < WELL_BEFORE_THE_GRANT
    assert shop.locks.is_free(account)
    assert shop.bodies_of(account) == []
