"""A shop with locked tasks, and its locks as the lock server has them."""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from celery_redlock.core.ports import Acquire, Granted, HolderView, Leave, Terms
from celery_redlock.core.record import Record
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.store.urls import open_store
from examples.demo.bodylog import Body, Overlap
from tests.harness.shop import Shop
from tests.harness.worker import WorkerProcess
from tests.worker.app import ShopSettings
from tests.worker.locked_app import resource_of, told_in

POLL_SECONDS = 0.005


def eventually(is_true: Callable[[], Any], within: float = 10.0) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + within
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class Locks:
    """What the lock server says, and a rival that is no worker: no Celery, no manager."""

    def __init__(self, url: str, prefix: str) -> None:
        self._store = open_store(url, prefix=prefix, restart_grace=0)
        self._taken: Dict[str, str] = {}

    def holders(self, account: str) -> List[HolderView]:
        """Who holds it now; lapsed leases do not count."""
        view = self._store.inspect(resource_of(account))
        return [holder for holder in view.holders if holder.remaining_ms > 0]

    def holding_tasks(self, account: str) -> List[Optional[str]]:
        records = (Record.decode(holder.record) for holder in self.holders(account))
        return [record and record.task_id for record in records]

    def waiting_tasks(self, account: str) -> List[Optional[str]]:
        """The line, its head first."""
        line = self._store.inspect(resource_of(account)).waiters
        records = (Record.decode(waiter.record) for waiter in sorted(line, key=lambda w: w.seq))
        return [record and record.task_id for record in records]

    def places(self, account: str) -> Dict[str, int]:
        """Who waits, with the number that the server has given each: the head's is the least."""
        line = self._store.inspect(resource_of(account)).waiters
        records = [(Record.decode(waiter.record), waiter.seq) for waiter in line]
        return {record.task_id: seq for record, seq in records if record and record.task_id}

    def is_free(self, account: str) -> bool:
        return not self.holders(account)

    def wait_for_line(self, account: str, count: int) -> List[Optional[str]]:
        assert eventually(lambda: len(self.waiting_tasks(account)) == count), (
            f"{self.waiting_tasks(account)} wait for {account}, expected {count}"
        )
        return self.waiting_tasks(account)

    @contextmanager
    def held(self, account: str, holder: str = "rival", lease: float = 60.0) -> Iterator[None]:
        """Hold it as task ``holder`` for the length of the ``with`` block, never renewed."""
        self.take(account, holder, lease)
        try:
            yield
        finally:
            self.free(account)

    def take(self, account: str, holder: str = "rival", lease: float = 60.0) -> None:
        """Hold it as task ``holder`` until ``free``, never renewed."""
        resource, token = resource_of(account), secrets.token_hex(16)
        record = Record(host="elsewhere", pid=os.getpid(), since=time.time(), task_id=holder)
        terms = Terms(lease_ms=int(lease * 1000))
        answer = self._store.acquire(Acquire(resource, token, terms, record.encode()))
        assert isinstance(answer, Granted), f"{account} is not free: {answer}"
        self._taken[account] = token

    def free(self, account: str) -> None:
        """Release what was taken."""
        self._store.leave(Leave(resource_of(account), (self._taken.pop(account),)))

    def close(self) -> None:
        self._store.close()


class LockedShop(Shop):
    """A shop whose workers have the locked tasks."""

    def __init__(self, settings: ShopSettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self.locks = Locks(settings.lock_url, runtime_of(self.app).settings.prefix)

    def worker(self, **options: Any) -> WorkerProcess:
        return super().worker(**{"app": "tests.worker.locked_app", **options})

    def bodies_of(self, account: str) -> List[Body]:
        return self.bodies.bodies(resource_of(account))

    def said(self, **fields: Any) -> List[Dict[str, Any]]:
        """What tasks told the test, of that what has these fields."""
        path = told_in(self.bodies.path)
        lines = path.read_text().splitlines() if path.exists() else []
        return [told for told in map(json.loads, lines) if {**told, **fields} == told]

    def overlaps_of(self, account: str, limit: int = 1) -> List[Overlap]:
        found = self.bodies.overlaps(limit)
        return [each for each in found if each.first.resource == resource_of(account)]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        runtime = runtime_of(self.app)
        if runtime._manager is not None:
            runtime.manager.store.close()
        self.locks.close()


MakeLockedShop = Callable[..., LockedShop]
