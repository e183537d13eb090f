"""Tasks whose bodies use Lock, beside the lock of their own."""

from __future__ import annotations

import os
import threading
from typing import Any, Dict, List

from celery_redlock import Lock, LockTimeout
from tests.worker.app import PREFIX, ShopSettings, make_app, pass_gate
from tests.worker.locked_tasks import account_task, in_body, resource_of

_left: List[Lock] = []


def lock_on(self: Any, account: str, **options: Any) -> Lock:
    return Lock(resource_of(account), app=self.app, **options)


@account_task()
def lock_own(self: Any, account: str) -> List[Any]:
    """A Lock on the task's own account: the fences of both, and what is held after it."""
    with in_body(self, account):
        with lock_on(self, account) as lock:
            fences = [self.lock.fence, lock.fence]
        self.lock.check()
        return [*fences, lock.locked()]


@account_task()
def leave_locked(self: Any, account: str, other: str, how: str = "return") -> None:
    """Its body ends with another account locked: it forgot the release, or a nested body did."""
    with in_body(self, account):
        lock = lock_on(self, other)
        lock.acquire()
        _left.append(lock)
        if how == "raise":
            raise ValueError(other)
        if how == "retry" and self.request.retries == 0:
            raise self.retry(countdown=0)


@account_task()
def leave_locked_inside(self: Any, account: str, other: str) -> bool:
    """A body that it calls forgets the release; whether it is locked after that."""
    self.app.tasks["shop.leave_locked"](f"{account}-inner", other)
    return lock_on(self, other).locked()


@account_task()
def lock_other(self: Any, account: str, other: str, gate: str) -> Dict[str, Any]:
    """Hold one account and lock another: how long that may take is bounded."""
    with in_body(self, account):
        try:
            with lock_on(self, other) as lock:
                pass_gate(gate)
                return {"fence": lock.fence}
        except LockTimeout as error:
            return {"held": error.held, "owner": error.owner, "holder": error.holder}


@account_task()
def release_in_a_thread(self: Any, account: str, other: str) -> List[bool]:
    """Acquired by the body and released by a thread of it."""
    lock = lock_on(self, other)
    lock.acquire()
    locked = [lock.locked()]
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    return [*locked, lock.locked()]


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
