"""A Redis broker gives a parked task to a second worker while its first one stands still."""

from __future__ import annotations

import secrets
import signal

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK

SOON = 60.0

pytestmark = pytest.mark.long


@pytest.fixture
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    """Its broker soon forgets that it has delivered a message, and looks at no other shop's."""
    unacked = f"unacked-{secrets.token_hex(4)}"
    options = {
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_key": unacked,
        "unacked_index_key": f"{unacked}-index",
        "unacked_mutex_key": f"{unacked}-mutex",
    }
    # Longer than it is kept here: it does not go round by the queue.
    return make_locked_shop(broker_transport_options=options, redlock_max_park=600)


def test_a_parked_task_that_a_second_worker_is_given_runs_once(
    shop: LockedShop, account: str
) -> None:
    first = shop.worker(pool=PREFORK, concurrency=1)
    with shop.locks.held(account, lease=600.0):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        second = shop.worker(pool=PREFORK, concurrency=1)
        first.send(signal.SIGSTOP)
        try:
            second.wait_for_output(f"[{result.id}] received", SOON)
        finally:
            first.send(signal.SIGCONT)
        assert eventually(lambda: shop.locks.waiting_tasks(account) == [result.id] * 2, SOON)
    assert result.get(timeout=SOON) == "done"
    # The copy finds that the work is done.
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    after = shop.send("work", account)
    assert after.get(timeout=SOON) == "done"
    assert [body.task_id for body in shop.bodies_of(account)] == [result.id, after.id]
    assert result.state == "SUCCESS"
    assert shop.overlaps_of(account) == []
