"""A body far longer than its lease keeps its lock."""

from __future__ import annotations

import time
from typing import Callable, List

import pytest

from celery_redlock import LockConflict
from tests.harness.locked_shop import LockedShop
from tests.worker.conftest import (  # noqa: F401
    account,
    lock_server,
    make_locked_shop,
    redis_server,
)
from tests.worker.locked_app import resource_of

SOON = 20.0
BODY_SECONDS = 60.0
ASK_EVERY = 1.0


@pytest.mark.timeout(180)
def test_a_body_of_a_minute_under_a_lease_of_two_seconds_is_never_joined_by_a_rival(
    make_locked_shop: Callable[..., LockedShop],  # noqa: F811
    account: str,  # noqa: F811
) -> None:
    shop = make_locked_shop()
    shop.worker(concurrency=2)
    long = shop.send("work_long", account, BODY_SECONDS)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    refused: List[LockConflict] = []
    while not long.ready():
        rival = shop.send("work_or_fail", account)
        try:
            rival.get(timeout=SOON)
        except LockConflict as conflict:
            refused.append(conflict)
            time.sleep(ASK_EVERY)
        else:
            # The only one that may: it came after the end of the body.
            assert long.get(timeout=SOON)["is_held"]
    assert long.get(timeout=SOON)["is_held"]
    assert len(refused) > BODY_SECONDS / ASK_EVERY / 2
    assert {conflict.holder for conflict in refused} == {long.id}
    assert shop.overlaps_of(account) == []
    assert shop.send("work_or_fail", account).get(timeout=SOON) == "done"
