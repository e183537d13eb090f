"""Locked tasks about what the bodies of one process share, and do not."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from typing import Any, Dict, List, Optional

from greenlet import GreenletExit

from celery_redlock.exceptions import LockTimeout
from celery_redlock.integration.runtime import runtime_of
from tests.worker import locked_endings
from tests.worker.app import PREFIX, ShopSettings, make_app, pass_gate, task
from tests.worker.locked_tasks import account_task, in_body, say, work_on
from tests.worker.process_app import work_on_both as work_on_both


@account_task(lock_ttl=1)
def compute(self: Any, account: str, seconds: float) -> List[str]:
    """Never yields to another greenlet; tells the states that its hold was in meanwhile."""
    with in_body(self, account):
        ends_at, states = time.monotonic() + seconds, set()
        while time.monotonic() < ends_at:
            for _ in range(1000):
                pass
            states.add("held" if self.lock.is_held else "unsure")
        self.lock.check()
    return sorted(states)


@account_task()
def exit_greenlet(self: Any, account: str) -> None:
    with in_body(self, account):
        raise GreenletExit


@account_task()
def end_reluctantly(self: Any, account: str, gate: str) -> str:
    """Catches what would end it, once, and goes on until the gate is open."""
    with in_body(self, account):
        try:
            pass_gate(gate)
        except GreenletExit:
            say(self.app, account=account, caught="GreenletExit")
            pass_gate(gate)
    return "done"


@account_task(lock_wait_timeout=0.3)
def work_briefly(self: Any, account: str) -> str:
    return work_on(self, account)


@account_task()
def share_with_thread(self: Any, account: str) -> Optional[str]:
    """Calls a task on its own account in a thread that has its context; tells how that ended."""
    ended: List[str] = []

    def call() -> None:
        try:
            ended.append(self.app.tasks["shop.work_briefly"](account))
        except LockTimeout:
            ended.append("LockTimeout")

    with in_body(self, account):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
        thread.start()
        thread.join(20.0)
    return ended[0] if ended else None


@task(bind=True)
def tell_left(self: Any) -> Dict[str, Any]:
    """What this worker still holds, awaits or thinks to be running."""
    runtime = runtime_of(self.app)
    return {
        "pid": os.getpid(),
        "is_idle": runtime.manager.is_idle,
        "running": len(runtime.running),
    }


assert locked_endings.end
if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
