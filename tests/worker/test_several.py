"""A task that locks several resources has all of them or none, and nobody ever blocks for ever."""

from __future__ import annotations

import random
from typing import Any, Callable

import pytest

from celery_redlock import LockConflict, LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.servers import LockServer
from tests.worker.locked_tasks import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    shop = make_locked_shop(redlock_nested_wait_timeout=1.0)
    shop.worker(concurrency=4)
    return shop


@pytest.fixture
def pair(account: str) -> Any:
    """Two accounts in the order of their names."""
    return f"a-{account}", f"b-{account}"


def test_it_holds_all_of_them_each_with_its_fence(shop: LockedShop, pair: Any) -> None:
    names = [resource_of(account) for account in pair]
    found = shop.send("transfer", *pair).get(timeout=SOON)
    assert found["resources"] == names
    assert sorted(found["fences"]) == names
    assert all(shop.locks.is_free(account) for account in pair)


def test_a_callable_may_name_several(shop: LockedShop, pair: Any) -> None:
    found = shop.send("close_books", [*pair, pair[0]]).get(timeout=SOON)
    assert found["resources"] == [resource_of(account) for account in pair]


def test_a_name_twice_is_one_resource(shop: LockedShop, account: str) -> None:
    found = shop.send("transfer", account, account).get(timeout=SOON)
    assert found["resources"] == [resource_of(account)]


def test_where_there_are_several_nobody_asks_for_the_one(shop: LockedShop, pair: Any) -> None:
    assert shop.send("ask_for_one", *pair).get(timeout=SOON) == ["LockError", "LockError"]


@pytest.mark.parametrize("busy", [0, 1])
def test_what_meets_a_conflict_leaves_the_others_free(
    shop: LockedShop, pair: Any, busy: int
) -> None:
    with shop.locks.held(pair[busy]):
        skipped = shop.send("transfer_or_skip", *pair).get(timeout=SOON)
        assert is_skipped(skipped)
        assert (skipped["resource"], skipped["holder"]) == (resource_of(pair[busy]), "rival")
        with pytest.raises(LockConflict) as conflict:
            shop.send("transfer_or_fail", *pair).get(timeout=SOON)
        assert conflict.value.resource == resource_of(pair[busy])
        with pytest.raises(LockTimeout) as timeout:
            shop.send("transfer_soon", *pair).get(timeout=SOON)
        assert timeout.value.resource == resource_of(pair[busy])
        assert shop.locks.is_free(pair[1 - busy])
    assert not shop.bodies_of(pair[0])


def test_in_line_it_holds_what_comes_before(shop: LockedShop, pair: Any) -> None:
    first, second = pair
    with shop.locks.held(second):
        result = shop.send("transfer", *pair)
        assert shop.locks.wait_for_line(second, 1) == [result.id]
        assert shop.locks.holding_tasks(first) == [result.id]
    result.get(timeout=SOON)


def test_published_again_it_holds_nothing_meanwhile(shop: LockedShop, pair: Any) -> None:
    first, second = pair
    with shop.locks.held(second):
        result = shop.send("transfer_later", *pair)
        assert eventually(lambda: result.state == "RETRY")
        assert eventually(lambda: shop.locks.is_free(first))
    result.get(timeout=SOON)


def test_one_call_takes_them_all(make_locked_shop: Callable[..., LockedShop], account: str) -> None:
    with LockServer.start() as server:
        shop = make_locked_shop(lock_url=server.url)
        shop.worker(concurrency=1)
        accounts = [f"{letter}-{account}" for letter in "abcde"]
        shop.send("close_books", accounts).get(timeout=SOON)
        assert eventually(lambda: all(shop.locks.is_free(each) for each in accounts))
        before = server.calls("evalsha")
        gate = shop.gate()
        result = shop.send("close_books", accounts, gate.path)
        shop.bodies.wait_for(count_started=10, timeout=SOON)
        assert server.calls("evalsha") - before == 1
        gate.open()
        result.get(timeout=SOON)


def test_crossing_transfers_all_end_and_none_overlap(shop: LockedShop, account: str) -> None:
    choose = random.Random(1)
    accounts = [f"{letter}-{account}" for letter in "abcd"]
    results = []
    for _ in range(60):
        some = choose.sample(accounts, choose.randint(1, 3))
        results.append(shop.send("close_books", some))
        results.append(shop.send("work", choose.choice(accounts)))
    for result in results:
        result.get(timeout=60)
    for each in accounts:
        assert len(shop.bodies_of(each)) > 20
        assert not shop.overlaps_of(each)
        assert shop.locks.is_free(each)
    shop.bodies.assert_fences_grow()


def test_a_call_that_wants_one_more_keeps_the_one_it_has(shop: LockedShop, pair: Any) -> None:
    found = shop.send("transfer_from", *pair).get(timeout=SOON)
    assert found["fences"][found["resource"]] == found["mine"]
    assert all(shop.locks.is_free(account) for account in pair)


def test_calls_out_of_calls_leave_every_outer_body_its_locks(
    shop: LockedShop, account: str
) -> None:
    a, b, c, d = (f"{letter}-{account}" for letter in "abcd")
    innermost = [[[d], [0]], [[a, c], [0]]]
    steps = [[[b], [0]], [[b], [[[c], innermost], [[c], innermost]]]]
    found = shop.send("perform", [a], steps).get(timeout=SOON)
    assert found == {"ran": 9, "gave_up": []}
    assert all(shop.locks.is_free(each) for each in (a, b, c, d))


def test_two_that_hold_what_the_other_wants_do_not_wait_for_ever(
    shop: LockedShop, pair: Any
) -> None:
    """The only way to a deadlock is a call out of a body; its wait is bounded, and names both."""
    with shop.locks.held(pair[1], holder="rival"):
        result = shop.send("work_then", *pair)
        with pytest.raises(LockTimeout) as timeout:
            result.get(timeout=SOON)
    error = timeout.value
    assert (error.resource, error.holder) == (resource_of(pair[1]), "rival")
    assert (error.held, error.owner) == (resource_of(pair[0]), result.id)
    for told in (resource_of(pair[0]), resource_of(pair[1]), "rival", result.id):
        assert told in str(error)
    assert shop.locks.is_free(pair[0])
