"""Locked tasks of the shop: accounts, worked on by one body at a time."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from celery import Celery, signals

import celery_redlock
from celery_redlock import Conflict, LockedTask, LockError, current_lock, resource
from tests.worker.app import pass_gate, task

ACCOUNT = "account:{account}"


def resource_of(account: str) -> str:
    return resource(ACCOUNT, account=account)


def account_task(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a task whose argument ``account`` names what it locks."""
    return task(**{"base": LockedTask, "bind": True, "lock_key": ACCOUNT, **options})


def say(app: Celery, **fields: Any) -> None:
    """Tell the test what happened, beside the body log; ``LockedShop.said`` reads it."""
    with told_in(app.body_log.path).open("a") as told:
        told.write(json.dumps(fields) + "\n")


def told_in(body_log: Path) -> Path:
    return body_log.with_suffix(".told")


@contextmanager
def in_body(self: Any, account: str, shared: bool = False) -> Iterator[None]:
    """In the log as a body on the account."""
    log = self.app.body_log
    with log.body(resource_of(account), self.lock.fence, self.request.id, shared):
        yield


def work_on(self: Any, account: str, gate: Optional[str] = None, shared: bool = False) -> str:
    with in_body(self, account, shared):
        pass_gate(gate)
    return "done"


# --- one task for each policy


@account_task()
def work(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_wait_timeout=0.2)
def work_soon(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_on_conflict="retry")
def work_later(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_on_conflict="skip")
def work_or_skip(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_on_conflict="fail")
def work_or_fail(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


# --- policies


def as_the_account_says(conflict: Conflict) -> Any:
    """A policy that is the first word of the account; what it was told goes into the result."""
    word = conflict.resource.partition(":")[2].partition("-")[0]
    if word == "raise":
        raise KeyError(json.dumps(vars(conflict)))
    return {"nonsense": "perhaps", "none": None}.get(word, word)


@account_task(lock_on_conflict=as_the_account_says)
def work_as_it_says(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_on_conflict="retry", lock_wait_timeout=0.6)
def work_later_but_soon(self: Any, account: str) -> str:
    return work_on(self, account)


class Hooked(LockedTask):
    """Tells which hooks were called, and what ``self.lock`` was in them."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.say_hook("before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.say_hook("on_success")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.say_hook("on_retry")

    def say_hook(self, hook: str) -> None:
        try:
            lock = repr(self.lock)
        except LockError:
            lock = "LockError"
        say(self.app, hook=hook, task_id=self.request.id, lock=lock)


@signals.task_retry.connect
def say_retry(sender: Any, request: Any, **_details: Any) -> None:
    if hasattr(sender.app, "body_log"):
        say(sender.app, hook="task_retry", task_id=request.id)


@account_task(base=Hooked, lock_on_conflict="retry", max_retries=0)
def work_later_hooked(self: Any, account: str) -> Dict[str, Any]:
    work_on(self, account)
    return {"id": self.request.id, "retries": self.request.retries}


@account_task(lock_on_conflict="fail", autoretry_for=(Exception,), retry_kwargs={"countdown": 0})
def work_or_fail_with_autoretry(self: Any, account: str) -> str:
    return work_on(self, account)


@account_task(lock_wait_timeout=0.2, autoretry_for=(Exception,), retry_kwargs={"countdown": 0})
def work_soon_with_autoretry(self: Any, account: str) -> str:
    return work_on(self, account)


# --- lines, limits and modes


@account_task(lock_max_waiting=1)
def work_in_a_short_line(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_max_waiting=1, lock_overflow="drop_oldest")
def work_on_the_latest(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_limit=2)
def work_by_two(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate)


@account_task(lock_mode="shared")
def read(self: Any, account: str, gate: Optional[str] = None) -> str:
    return work_on(self, account, gate, shared=True)


@account_task(lock_mode="shared")
def write_while_reading(self: Any, account: str) -> str:
    return str(self.app.tasks["shop.work"](account))


# --- what a body sees of its lock


def lock_report() -> Dict[str, Any]:
    lock = current_lock()
    lock.check()
    return {"fence": lock.fence, "is_held": lock.is_held, "reason": lock.reason}


@account_task()
def report(self: Any, account: str) -> Dict[str, Any]:
    assert self.lock is not None
    return lock_report()


@account_task()
def report_nested(self: Any, account: str) -> List[Dict[str, Any]]:
    """Its own report, that of a direct call on the same account, and its own after that."""
    return [lock_report(), self.app.tasks["shop.report"](account), lock_report()]


@account_task(lock_key=lambda account: None)
def report_without_key(self: Any, account: str) -> Dict[str, Any]:
    return lock_report()


@account_task(base=Hooked)
def report_hooked(self: Any, account: str) -> Dict[str, Any]:
    return lock_report()


class WaitsBefore(LockedTask):
    """Waits for a gate between its receipt and its lock."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        account, gate = args
        say(self.app, began=account)
        pass_gate(gate)


@account_task(base=WaitsBefore)
def report_when_open(self: Any, account: str, gate: str) -> Dict[str, Any]:
    return lock_report()


@account_task(lock_on_outage="fail", lock_ttl=1.5)
def report_or_fail(self: Any, account: str) -> Dict[str, Any]:
    return lock_report()


@account_task(lock_on_outage="run", lock_ttl=1.5)
def report_anyway(self: Any, account: str) -> Dict[str, Any]:
    return lock_report()


@account_task(lock_on_retry="keep")
def work_twice(
    self: Any, account: str, countdown: float, gate: Optional[str] = None
) -> Optional[int]:
    """Works, and once more in its retry, there at the gate; gives the fence of the second time."""
    if self.request.retries == 0:
        work_on(self, account)
        raise self.retry(countdown=countdown)
    work_on(self, account, gate)
    return int(self.lock.fence)


# --- without a lock: what stands beside them in a canvas, and errors on their way home


@task()
def note(text: str) -> str:
    return text


@task()
def collect(results: List[Any]) -> List[Any]:
    return results


@task()
def raise_error(name: str, fields: List[Any]) -> None:
    raise getattr(celery_redlock, name)(*fields)
