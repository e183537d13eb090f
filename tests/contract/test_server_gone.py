"""A holder notices when its server goes, long before its next renewal, and is back in time."""

from __future__ import annotations

import time
from typing import List

from celery_redlock.core import events
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from celery_redlock.store.urls import open_store
from tests.contract.desk import until
from tests.harness.servers import LockServer

#: Its next renewal is after half a minute.
LEASE_MS = 90_000

#: Shorter than that, and longer than a busy machine takes.
GRACE = 15.0


def test_what_is_held_is_back_within_the_grace_of_a_server_that_restarted_empty() -> None:
    said: List[events.Event] = []
    with LockServer.start() as server:
        # Only the second one has the young server wait for old holders.
        stores = [
            open_store(server.url, prefix="redlock:test:1:", restart_grace=grace)
            for grace in (0.0, GRACE)
        ]
        manager = Manager(stores[0], said.append, background=stores[1])
        record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
        hold = Hold("r", Terms(lease_ms=LEASE_MS), record)
        assert isinstance(manager.acquire(hold), Held)
        until(lambda: manager.clock() - hold.held_since > 2, "it is looked after")
        server.restart()
        until(
            lambda: any(isinstance(event, events.Reestablished) for event in said),
            "it is brought back",
            within=GRACE,
        )
        assert not any(isinstance(event, events.Lost) for event in said)
        assert [holder.token for holder in manager.inspect("r").holders] == [hold.token]
        manager.release(hold)
        for store in stores:
            store.close()
