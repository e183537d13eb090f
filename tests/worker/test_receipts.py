"""The owner token of a run: made at each receipt, told to nobody, different each time."""

from __future__ import annotations

import uuid

import pytest

from celery_redlock.integration.request import RECEIPT, token_of
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.worker.locked_tasks import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(concurrency=2)
    return shop


def token_of_the_holder(shop: LockedShop, account: str, task_id: str) -> str:
    assert eventually(lambda: shop.locks.holding_tasks(account) == [task_id], SOON)
    (holder,) = shop.locks.holders(account)
    return holder.token


def test_a_token_that_comes_with_the_message_is_overwritten(shop: LockedShop, account: str) -> None:
    gate, forged, task_id = shop.gate(), "f" * 32, str(uuid.uuid4())
    result = shop.task("work").apply_async(
        (account, gate.path), task_id=task_id, headers={RECEIPT: forged}
    )
    token = token_of_the_holder(shop, account, task_id)
    assert token not in (forged, token_of(forged, resource_of(account)))
    gate.open()
    assert result.get(timeout=SOON) == "done"


def test_each_delivery_of_a_task_has_a_token_of_its_own(shop: LockedShop, account: str) -> None:
    task_id, tokens = str(uuid.uuid4()), set()
    for _ in range(3):
        gate = shop.gate()
        shop.task("work").apply_async((account, gate.path), task_id=task_id)
        tokens.add(token_of_the_holder(shop, account, task_id))
        gate.open()
        assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert len(tokens) == 3


def test_a_retry_does_not_publish_the_token(shop: LockedShop, account: str) -> None:
    """The retried run's parent overwrites it anyway; the broker must not see the first one."""
    task_id = str(uuid.uuid4())
    result = shop.task("tell_headers_and_retry").apply_async((account,), task_id=task_id)
    assert result.get(timeout=SOON) == "done"
    told = [said["headers"] for said in shop.said(task_id=task_id) if "headers" in said]
    assert told == [[], []]
