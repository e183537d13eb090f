"""Hundreds that wait for one resource on two workers start in the order of the server's line."""

from __future__ import annotations

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.worker.parking.crowded import PARKED, SOON, Line, are_done, out_of_order, ran, send_all

COUNT = 300

#: A worker that the machine starves passes its grants on, and others go first.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    """Two workers, each with a slot more than the one body at a time needs."""
    shop = make_locked_shop(**PARKED)
    shop.nodes = [  # type: ignore[attr-defined]
        shop.worker(pool=PREFORK, concurrency=2, ready=False) for _ in range(2)
    ]
    for node in shop.nodes:  # type: ignore[attr-defined]
        node.wait_until_ready()
    return shop


def test_hundreds_that_wait_start_in_the_order_of_their_line(
    shop: LockedShop, account: str
) -> None:
    line = Line(shop, account)
    with shop.locks.held(account, lease=600.0):
        results = send_all(shop, [account], COUNT)
        order = line.wait_for(COUNT)
    assert eventually(lambda: are_done(results), SOON)
    assert out_of_order(ran(shop, account), order) == []
    assert len(ran(shop, account)) == COUNT
    assert shop.overlaps_of(account) == []


def test_those_that_come_while_others_go_start_in_the_order_of_their_line(
    shop: LockedShop, account: str
) -> None:
    line = Line(shop, account)
    results = []
    with shop.locks.held(account, lease=600.0):
        results += send_all(shop, [account], COUNT // 3)
        line.wait_for(COUNT // 3)
    while len(results) < COUNT:
        results += send_all(shop, [account], 5)
        line.look()
    while not are_done(results):
        line.look()
    assert len(line.seen) >= COUNT // 2
    assert out_of_order(ran(shop, account), line.seen) == []
    assert len(ran(shop, account)) == COUNT
    assert shop.overlaps_of(account) == []
