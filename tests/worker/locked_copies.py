"""Tasks that are delivered twice, and tasks that keep their lock over a retry."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, Optional

from tests.worker.app import pass_gate
from tests.worker.locked_tasks import account_task, in_body, resource_of, say, work_on


@account_task(acks_late=True)
def work_acked_late(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(acks_late=True, lock_wait_timeout=0.5)
def work_acked_late_and_soon(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(ignore_result=True)
def work_unrecorded(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task()
def fail_first(self: Any, account: str, gate: str, failed: str) -> str:
    """Fails where nobody has failed before."""
    with in_body(self, account):
        pass_gate(gate)
        if not Path(failed).exists():
            Path(failed).touch()
            raise ValueError(account)
    return "done"


# --- kept over a retry

KEPT: Dict[str, Any] = {"lock_on_retry": "keep", "max_retries": 5}


@account_task(**KEPT)
def retry_at_eta(self: Any, account: str, seconds: float, is_naive: bool) -> Optional[int]:
    work_on(self, account)
    if self.request.retries == 0:
        eta = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        raise self.retry(eta=eta.replace(tzinfo=None) if is_naive else eta)
    return int(self.lock.fence)


@account_task(**KEPT)
def retry_slowly(
    self: Any, account: str, seconds: float, gate: Optional[str] = None
) -> Optional[int]:
    """Its retry is published, once the gate is open, a while before its body has ended."""
    with in_body(self, account):
        pass_gate(gate)
        if self.request.retries == 0:
            try:
                raise self.retry(countdown=0)
            finally:
                time.sleep(seconds)
    return int(self.lock.fence)


@account_task(**KEPT)
def retry_often(self: Any, account: str, times: int) -> Optional[int]:
    work_on(self, account)
    say(self.app, kept=account, fence=self.lock.fence)
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return int(self.lock.fence)


@account_task(**KEPT, lock_ttl=1)
def retry_of_a_short_lease(self: Any, account: str, countdown: float) -> str:
    work_on(self, account)
    if self.request.retries == 0:
        raise self.retry(countdown=countdown)
    return "done"


@account_task(**KEPT, lock_ttl=1)
def retry_elsewhere(self: Any, account: str, queue: str) -> str:
    """Its retry is sent to another queue."""
    work_on(self, account)
    if self.request.retries == 0:
        raise self.retry(countdown=0, queue=queue)
    return "done"


@account_task(**KEPT)
def retry_in_another_worker(self: Any, account: str, queue: str) -> Optional[int]:
    work_on(self, account)
    if self.request.retries == 0:
        raise self.retry(countdown=0, queue=queue)
    return int(self.lock.fence)


@account_task(lock_key=["account:{account}", "account:{other}"], **KEPT)
def retry_with_two(self: Any, account: str, other: str) -> Any:
    log = self.app.body_log
    with log.body(resource_of(account)), log.body(resource_of(other)):
        fences = dict(self.lock.fences)
    say(self.app, kept=account, fences=fences)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return fences


@account_task(**KEPT)
def retry_for_another(self: Any, account: str, other: str) -> str:
    """Its retry works on another account."""
    work_on(self, account)
    if self.request.retries == 0:
        raise self.retry(args=(other, other), countdown=0)
    return "done"


@account_task(**KEPT)
def call_what_retries(self: Any, account: str, other: str) -> str:
    """A direct call has no message to be retried: its Retry is an error that publishes nothing."""
    with in_body(self, account):
        return str(self.app.tasks["shop.retry_often"](other, 1))


# --- many in an outage


@account_task(lock_key=[f"account:{{account}}-{number}" for number in range(8)])
def work_on_many(self: Any, account: str, gate: str) -> str:
    say(self.app, began=account)
    pass_gate(gate)
    say(self.app, ended=account, at=time.time())
    return "done"
