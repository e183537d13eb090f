"""A task that watches its lock until it is lost."""

from __future__ import annotations

import time
from typing import Any

from celery_redlock import LockLost
from tests.worker.locked_tasks import account_task, in_body, say


@account_task(lock_ttl=1.5, lock_on_lost="warn")
def work_until_lost(self: Any, account: str) -> str:
    with in_body(self, account):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.lock.check()
            except LockLost as lost:
                say(self.app, account=account, lost=self.request.id, fence=lost.fence)
                return "lost"
            time.sleep(0.01)
    return "kept"
