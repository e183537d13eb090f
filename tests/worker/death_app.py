"""Locked tasks whose processes die at once, or whose first delivery does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, Optional

from tests.worker import locked_endings as locked_endings
from tests.worker.app import PREFIX, ShopSettings, make_app
from tests.worker.locked_tasks import account_task, in_body, lock_report, resource_of, work_on

#: The worker's parent, in its children.
_IMPORTED_IN = os.getpid()


@account_task(acks_late=True, reject_on_worker_lost=True)
def survive_one_death(self: Any, account: str, mark: str) -> str:
    """Its first delivery kills its process, the next one finds the mark."""
    with in_body(self, account):
        if not Path(mark).exists():
            Path(mark).touch()
            os._exit(1)
    return "done"


def slow_in_the_parent(account: str) -> str:
    """A name that is found at once in a child, and after seconds in the worker's parent."""
    if os.getpid() == _IMPORTED_IN:
        time.sleep(3.0)
    return resource_of(account)


@account_task(lock_key=slow_in_the_parent)
def work_slowly_named(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_ttl=12)
def work_on_a_short_lease(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_on_retry="keep")
def die_or_report(self: Any, account: str, dies: bool) -> Dict[str, Any]:
    with in_body(self, account):
        if dies:
            os._exit(1)
        return lock_report()


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
