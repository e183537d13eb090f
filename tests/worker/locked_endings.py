"""Tasks whose bodies end in every way that a body can."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Optional

from celery.exceptions import Ignore, Reject

from celery_redlock import LockedTask
from tests.worker.app import pass_gate
from tests.worker.locked_tasks import account_task, in_body, lock_report, say, work_on


@account_task()
def end(self: Any, account: str, how: str, gate: Optional[str] = None) -> Any:
    """A body that ends as ``how`` says, once the gate is open."""
    with in_body(self, account):
        pass_gate(gate)
        return ENDINGS[how](self)


@account_task(lock_key=["account:{account}", "account:{other}"])
def die_holding_two(self: Any, account: str, other: str) -> None:
    """A body that holds two resources and ends without a word."""
    say(self.app, account=account, resources=self.lock.resources)
    os._exit(1)


@account_task()
def tell_headers_and_retry(self: Any, account: str) -> str:
    """Tells which of our headers its retry is published with, and which ones the retry gets."""
    retry = self.signature_from_request(self.request)
    headers = {**(retry.options.get("headers") or {}), **(self.request.headers or {})}
    ours = [name for name in (*headers, *vars(self.request)) if name.startswith("redlock")]
    say(self.app, task_id=self.request.id, headers=ours)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "done"


class EndsBefore(LockedTask):
    """Ends before its body begins, as its argument says."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        account, how = args
        say(self.app, began=account)
        ENDINGS[how](self)


@account_task(base=EndsBefore)
def end_before(self: Any, account: str, how: str) -> None:
    """Never comes to its body."""


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


def raises(error: Callable[[], BaseException]) -> Callable[[Any], Any]:
    def end_by_raising(self: Any) -> None:
        raise error()

    return end_by_raising


def retry_once(self: Any) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return "done"


ENDINGS: Dict[str, Callable[[Any], Any]] = {
    "return": lambda self: "done",
    "raise": raises(ValueError),
    "retry": retry_once,
    "Ignore": raises(Ignore),
    "Reject": raises(lambda: Reject("no", requeue=False)),
    "soft time limit": lambda self: time.sleep(60),
    "unpicklable result": lambda self: threading.Lock(),
    "unpicklable exception": raises(Unpicklable),
    "MemoryError": raises(MemoryError),
    "SystemExit": lambda self: sys.exit(1),
    "KeyboardInterrupt": raises(KeyboardInterrupt),
    "os._exit": lambda self: os._exit(1),
    "SIGKILL": lambda self: os.kill(os.getpid(), signal.SIGKILL),
}


@account_task()
def end_stubbornly(self: Any, account: str, gate: str) -> str:
    """Swallows what would end it, once, and goes on until the gate is open."""
    with in_body(self, account):
        try:
            say(self.app, account=account, ready=True)
            pass_gate(gate)
        except SystemExit:
            say(self.app, account=account, swallowed="SystemExit")
            pass_gate(gate)
    return "done"


class SlowToEnd(LockedTask):
    """What follows its body takes its time: by then the lock must be free."""

    abstract = True

    def after_return(self, *_details: Any) -> None:
        time.sleep(0.02)


@account_task(base=SlowToEnd, lock_on_conflict="fail")
def step(self: Any, account: str) -> str:
    return work_on(self, account)


@account_task(lock_ttl=2)
def work_long(self: Any, account: str, seconds: float) -> Dict[str, Any]:
    """Longer than its lease."""
    with in_body(self, account):
        time.sleep(seconds)
        self.lock.check()
        return lock_report()


@account_task()
def stand_still(self: Any, account: str) -> str:
    """A body that is stopped before its first line is done."""
    os.kill(os.getpid(), signal.SIGSTOP)
    with in_body(self, account):
        return "done"
