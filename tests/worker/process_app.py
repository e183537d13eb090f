"""Locked tasks whose processes the tests end, replace and interrupt."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from celery_redlock.exceptions import LockError
from examples.demo.bodylog import BodyLog
from tests.worker.app import PREFIX, ShopSettings, make_app
from tests.worker.locked_tasks import account_task, in_body, resource_of


@account_task()
def work_on_both(self: Any, account: str, other: str) -> str:
    """Hold one account and work on another: waits in place for it, wherever tasks wait."""
    with in_body(self, account):
        return str(self.app.tasks["shop.work"](other))


@account_task()
def leak(self: Any, account: str, told: str) -> str:
    """Leave behind a thread that goes on using the lock; it tells how that ended."""
    lock = self.lock

    def go_on() -> None:
        ends_at = time.monotonic() + 30.0
        while time.monotonic() < ends_at:
            try:
                lock.check()
            except LockError as error:
                Path(told).write_text(f"{type(error).__name__} {lock.is_held}")
                return
            time.sleep(0.01)

    with in_body(self, account):
        threading.Thread(target=go_on, daemon=True).start()
    return "done"


@account_task()
def tell_process(self: Any, account: str) -> Any:
    """The process that runs this body, and the seconds of its lease.

    For a spawned process too: there the app comes without what the shop has put on it.
    """
    log = BodyLog(os.environ[PREFIX + "BODY_LOG"])
    with log.body(resource_of(account), self.lock.fence, self.request.id):
        time.sleep(0.01)
        return os.getpid(), self.lock.expires_in


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
