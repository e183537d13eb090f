"""Tasks that lock several accounts: transfers between them, and calls from one into another."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Dict, List, Optional, Sequence

from celery_redlock import LockedTask, LockTimeout, resource
from tests.worker.app import pass_gate, task
from tests.worker.locked_tasks import account_task, resource_of, say

BOTH = ["account:{source}", "account:{target}"]


def work_on_all(self: Any, accounts: Sequence[str], gate: Optional[str] = None) -> Dict[str, Any]:
    """In the log as a body on each of the accounts, which it must hold."""
    fences = self.lock.fences
    with ExitStack() as bodies:
        for account in sorted(set(accounts)):
            name = resource_of(account)
            body = self.app.body_log.body(name, fences[name], self.request.id)
            bodies.enter_context(body)
        self.lock.check()
        pass_gate(gate)
    return {"resources": list(self.lock.resources), "fences": dict(fences)}


def several(**options: Any) -> Any:
    return task(**{"base": LockedTask, "bind": True, "lock_key": BOTH, **options})


@several()
def transfer(self: Any, source: str, target: str, gate: Optional[str] = None) -> Dict[str, Any]:
    return work_on_all(self, (source, target), gate)


@several(lock_on_conflict="skip")
def transfer_or_skip(self: Any, source: str, target: str) -> Dict[str, Any]:
    return work_on_all(self, (source, target))


@several(lock_on_conflict="fail")
def transfer_or_fail(self: Any, source: str, target: str) -> Dict[str, Any]:
    return work_on_all(self, (source, target))


@several(lock_on_conflict="retry")
def transfer_later(self: Any, source: str, target: str) -> Dict[str, Any]:
    return work_on_all(self, (source, target))


@several(lock_wait_timeout=0.3)
def transfer_soon(self: Any, source: str, target: str) -> Dict[str, Any]:
    return work_on_all(self, (source, target))


def each_of(accounts: List[str]) -> List[str]:
    return [f"account:{account}" for account in accounts]


@several(lock_key=each_of)
def close_books(self: Any, accounts: List[str], gate: Optional[str] = None) -> Dict[str, Any]:
    return work_on_all(self, accounts, gate)


@several()
def ask_for_one(self: Any, source: str, target: str) -> List[str]:
    """What the questions for one resource say where there are several."""
    answers = []
    for question in ("resource", "fence"):
        try:
            answers.append(str(getattr(self.lock, question)))
        except Exception as error:  # noqa: BLE001 - told to the test
            answers.append(type(error).__name__)
    return answers


@account_task()
def work_then(self: Any, account: str, other: str, task_name: str = "shop.work") -> Any:
    """Works on its account and meanwhile, by a direct call, on another."""
    with self.app.body_log.body(resource_of(account), self.lock.fence, self.request.id):
        say(self.app, holds=account)
        return self.app.tasks[task_name](other)


@account_task()
def transfer_from(self: Any, account: str, other: str) -> Dict[str, Any]:
    """Holds its account and calls a transfer that wants it as well."""
    found: Dict[str, Any] = self.app.tasks["shop.transfer"](account, other)
    return {**found, "mine": self.lock.fence, "resource": resource("account:{a}", a=account)}


@several(lock_key=each_of)
def perform(
    self: Any, accounts: List[str], steps: List[Any], held: Sequence[str] = ()
) -> Dict[str, Any]:
    """Hold the accounts and do the steps: a number sleeps so long, a pair is a direct call.

    ``held`` are the accounts of the bodies around this one: they are in the log already. Gives how
    many bodies ran in it and how long each wait lasted that was given up.
    """
    found: Dict[str, Any] = {"ran": 1, "gave_up": []}
    with ExitStack() as bodies:
        for account in sorted(set(accounts) - set(held)):
            name = resource_of(account)
            body = self.app.body_log.body(name, self.lock.fences[name], self.request.id)
            bodies.enter_context(body)
        for step in steps:
            if not isinstance(step, list):
                time.sleep(step)
                continue
            inner, inner_steps = step
            try:
                told = self.app.tasks["shop.perform"](inner, inner_steps, [*held, *accounts])
            except LockTimeout as error:
                found["gave_up"].append(error.waited)
            else:
                found["ran"] += told["ran"]
                found["gave_up"] += told["gave_up"]
            # What was called has released what it took itself, and nothing else.
            self.lock.check()
    return found
