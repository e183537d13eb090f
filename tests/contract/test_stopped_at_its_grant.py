"""Who is stopped when a release has granted it the lock holds it for a lease, not for a moment."""

from __future__ import annotations

import threading
import time
from typing import List

from celery_redlock.core import timing
from celery_redlock.core.ports import Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Outcome, Patience
from tests.contract.desk import PATIENCE, Desk, until

LEASE_MS = 20_000


def test_a_waiter_that_was_granted_it_needs_no_watchdog_to_keep_it(store: Store) -> None:
    desk, manager = Desk(store, "stopped"), Manager(store, lambda event: None)
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
    hold = Hold("stopped", Terms(lease_ms=LEASE_MS), record)
    outcomes: List[Outcome] = []
    waiter = threading.Thread(target=lambda: outcomes.append(manager.acquire(hold, Patience())))
    desk.granted("holder")
    waiter.start()
    until(lambda: desk.line() == [hold.token] and not manager.wakeups.is_idle, "it waits")
    # As if everything stood still once it has what it waited for.
    manager.watchdog.watch = lambda hold: None  # type: ignore[method-assign]
    desk.leave("holder")
    waiter.join(PATIENCE)
    assert outcomes == [Held((hold,))]
    moment_ms = timing.to_ms(timing.grant_ttl(hold.lease))
    until(lambda: desk.holder(hold.token).remaining_ms > moment_ms, "it has its lease")
    manager.release(hold)
    assert desk.view().holders == ()
    manager.stop()
