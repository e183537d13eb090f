"""Tasks that are called in other ways, or that call on: a canvas's, a replacement, a retry."""

from __future__ import annotations

import os
import signal
from ast import literal_eval
from typing import Any, Dict, List, Optional, Set

from celery import chain, current_app, group
from celery.worker.request import Request
from kombu.serialization import register

from celery_redlock import LockedTask, current_lock
from tests.worker.app import pass_gate, task
from tests.worker.locked_tasks import account_task, in_body, lock_report, resource_of, say, work_on


@account_task()
def tally(self: Any, results: List[Any], account: str) -> Any:
    """What comes first is what went before: a chord's results, a chain's."""
    with in_body(self, account):
        return results


@account_task(lock_on_conflict="skip")
def tally_or_skip(self: Any, results: List[Any], account: str) -> Any:
    with in_body(self, account):
        return results


# --- replaced: its replacement meets it while it still runs


def replace(self: Any, account: str, signature: Any) -> Any:
    """Replace the task, and end only after its replacement has had the time to meet it."""
    with in_body(self, account):
        try:
            return self.replace(signature)
        finally:
            pass_gate_of(self)


def pass_gate_of(self: Any) -> None:
    pass_gate((self.request.headers or {}).get("gate"))


@account_task(lock_on_conflict="skip")
def replace_by_one(self: Any, account: str) -> Any:
    return replace(self, account, self.app.tasks["shop.work_or_skip"].s(account))


@account_task(lock_on_conflict="skip")
def replace_by_chain(self: Any, account: str) -> Any:
    first, last = self.app.tasks["shop.work_or_skip"].s(account), note(self, "last")
    return replace(self, account, chain(first, last))


@account_task(lock_on_conflict="skip")
def replace_by_group(self: Any, account: str) -> Any:
    first, beside = self.app.tasks["shop.work_or_skip"].s(account), note(self, "beside")
    return replace(self, account, group(first, beside))


def note(self: Any, text: str) -> Any:
    return self.app.tasks["shop.note"].si(text)


# --- more of the same


@account_task()
def add_one_to_the_chord(self: Any, account: str) -> str:
    """The one that it adds works on the same account."""
    with in_body(self, account):
        self.add_to_chord(self.app.tasks["shop.work_or_wait_beside"].s(account))
    return "first"


@account_task()
def work_or_wait_beside(self: Any, account: str) -> str:
    return work_on(self, account)


@account_task(lock_on_conflict="fail", max_retries=2)
def retry_at_once(self: Any, account: str) -> List[int]:
    """Its retry meets it: it ends only after that was published."""
    with in_body(self, account):
        if self.request.retries < 2:
            try:
                self.retry(countdown=0)
            finally:
                pass_gate_of(self)
        return [self.request.retries, self.lock.fence]


@account_task(lock_ttl=1, lock_max_hold=0.1, autoretry_for=(Exception,), max_retries=1)
def outlive_its_lock(self: Any, account: str) -> None:
    """Works until it is told that its lock is lost."""
    say(self.app, task_id=self.request.id, retries=self.request.retries)
    with in_body(self, account):
        while True:
            self.lock.check()
            pass_time()


def pass_time() -> None:
    signal.sigtimedwait((), 0.01)


@account_task(lock_on_conflict="retry")
def tell_request(self: Any, account: str, secret: str = "") -> Dict[str, Any]:
    """What came with the message, as far as a caller has a say in it."""
    request = self.request
    told = {name: getattr(request, name, None) for name in TOLD}
    return {**told, "priority": request.delivery_info["priority"], "mine": request.headers["mine"]}


register(
    "literal",
    lambda value: repr(value).encode(),
    lambda text: literal_eval(bytes(text).decode()),
    "application/x-literal",
    "binary",
)


@account_task(lock_on_conflict="retry")
def take_a_set(self: Any, account: str, numbers: Set[int]) -> List[Any]:
    """Of what JSON cannot write."""
    with in_body(self, account):
        return [type(numbers).__name__, sorted(numbers)]


TOLD = ("id", "root_id", "shadow", "timelimit", "expires", "stamps", "stamped_headers")
TOLD += (
    "argsrepr",
    "kwargsrepr",
    "ignore_result",
    "retries",
    "reply_to",
    "origin",
    "correlation_id",
)


class NotSentAgain(LockedTask):
    """Cannot be sent from where it runs."""

    abstract = True

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.id is not None:
            raise OSError("no way to the broker")
        return super().apply_async(*args, **kwargs)


@account_task(base=NotSentAgain, lock_on_conflict="retry")
def work_not_sent_again(self: Any, account: str) -> str:
    return work_on(self, account)


@account_task(base=NotSentAgain, lock_on_conflict="retry", lock_wait_timeout=1)
def work_not_sent_again_but_soon(self: Any, account: str) -> str:
    return work_on(self, account)


class RetriesBefore(LockedTask):
    """Is retried once before its body, as it came; tells what headers it sees."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        say(self.app, task_id=task_id, headers=repr(self.request.headers))
        if not self.request.retries:
            self.retry(countdown=0)


@account_task(base=RetriesBefore, lock_on_conflict="skip")
def retry_before(self: Any, account: str) -> Any:
    with in_body(self, account):
        return self.request.headers


# --- bodies that call


@account_task()
def call_directly(self: Any, account: str, other: str, how: str) -> Any:
    """A direct call on another account, from a body."""
    with in_body(self, account):
        return self.app.tasks[f"shop.{how}"](other)


@account_task()
def apply_inside(self: Any, account: str, other: str) -> List[Dict[str, Any]]:
    """Its own report, that of an eager call on another account, and its own after that."""
    inner = self.app.tasks["shop.report"].apply((other,)).get(disable_sync_subtasks=False)
    return [lock_report(), inner, lock_report()]


# --- classes


class NotingRequest(Request):
    """A user's own request class."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        say(self._app, task_id=self.id, failed=self.task_name)
        return super().on_failure(exc_info, *args, **kwargs)


@account_task(Request=NotingRequest)
def die(self: Any, account: str) -> None:
    with in_body(self, account):
        os.kill(os.getpid(), signal.SIGKILL)


class Calls(LockedTask):
    """A user's own ``__call__`` that goes on by ``super()``."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ["called", super().__call__(*args, **kwargs)]


@account_task(base=Calls, lock_on_conflict="skip")
def work_called(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@task(bind=True)
def errback(self: Any, task_id: str) -> None:
    say(self.app, failed=task_id)


@task(
    base=LockedTask,
    lock_key=lambda request: resource_of(request.args[0]),
    lock_on_conflict="skip",
)
def errback_called(request: Any, error: Any, traceback: Any) -> None:
    """One that Celery calls directly, in the process of the task that failed."""
    lock = current_lock()
    with current_app.body_log.body(lock.resource, lock.fence):
        pass
