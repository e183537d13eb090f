"""Tasks that lose their lock in whatever they are doing."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from celery.exceptions import SoftTimeLimitExceeded

from celery_redlock import LockLost
from tests.worker.app import pass_gate, task
from tests.worker.locked_tasks import account_task, in_body, say

#: Longer than any test waits.
LONG = 60.0

LEASE = 1.2


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def sleep_often(seconds: float) -> None:
    for _ in until(seconds):
        time.sleep(0.01)


def compute(seconds: float) -> None:
    for _ in until(seconds):
        sum(range(100))


def compute_and_yield(seconds: float) -> None:
    for _ in until(seconds):
        sum(range(100))
        time.sleep(0)


def wait_for_a_socket(seconds: float) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(seconds)
        here.recv(1)


def wait_often_for_a_socket(seconds: float) -> None:
    for _ in until(seconds):
        try:
            wait_for_a_socket(0.05)
        except socket.timeout:
            continue


def until(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


DOING: Dict[str, Callable[[float], None]] = {
    doing.__name__: doing
    for doing in (
        sleep,
        sleep_often,
        compute,
        compute_and_yield,
        wait_for_a_socket,
        wait_often_for_a_socket,
    )
}


def be_busy(self: Any, account: str, doing: str, seconds: float, gate: Optional[str]) -> str:
    """Tells what ended it, if anything did; ``check()`` finds fault in the end, or not."""
    with in_body(self, account):
        try:
            if gate is None:
                DOING[doing](seconds)
            else:
                pass_gate(gate)
        except (LockLost, SoftTimeLimitExceeded) as error:
            say(self.app, account=account, raised=type(error).__name__, pid=os.getpid())
            raise
        self.lock.check()
    return "done"


def losing(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return account_task(**{"lock_ttl": LEASE, **options})


Gate = Optional[str]


@losing()
def lose(
    self: Any, account: str, doing: str = "sleep_often", seconds: float = LONG, gate: Gate = None
) -> str:
    return be_busy(self, account, doing, seconds, gate)


@losing(lock_on_lost="cancel_unsure")
def lose_unsurely(
    self: Any, account: str, doing: str = "sleep_often", seconds: float = LONG, gate: Gate = None
) -> str:
    return be_busy(self, account, doing, seconds, gate)


@losing(lock_on_lost="warn")
def lose_warned(
    self: Any, account: str, doing: str = "sleep_often", seconds: float = LONG, gate: Gate = None
) -> str:
    return be_busy(self, account, doing, seconds, gate)


@losing(lock_max_hold=0.5)
def lose_in_the_end(self: Any, account: str, doing: str = "sleep_often") -> str:
    return be_busy(self, account, doing, LONG, None)


@losing(autoretry_for=(Exception,), retry_kwargs={"countdown": 0})
def lose_with_autoretry(self: Any, account: str) -> str:
    return be_busy(self, account, "sleep_often", LONG, None)


@losing(lock_key=["account:{account}", "account:{other}"])
def lose_one_of_two(self: Any, account: str, other: str) -> str:
    say(self.app, account=account, fences=self.lock.fences)
    sleep_often(LONG)
    return "done"


@losing()
def lose_around(self: Any, account: str, other: str, doing: str = "sleep_often") -> str:
    """A body whose nested call works on another account meanwhile, or waits for it."""
    with in_body(self, account):
        return str(self.app.tasks["shop.lose"](other, doing))


@losing()
def lose_and_go_on(self: Any, account: str, gate: str) -> List[str]:
    """A body that swallows what interrupts it, and asks for its lock afterwards."""
    found = []
    with in_body(self, account):
        try:
            sleep_often(LONG)
        except Exception as error:  # noqa: BLE001 - as some bodies do
            found.append(type(error).__name__)
            say(self.app, account=account, swallowed=True)
        pass_gate(gate)
        try:
            self.lock.check()
        except LockLost as error:
            found.append(type(error).__name__)
    return found


@losing(lock_ttl=6)
def lose_slowly(self: Any, account: str, gate: str) -> str:
    return be_busy(self, account, "", LONG, gate)


@account_task(lock_max_hold=0.02)
def end_at_about_the_loss(self: Any, account: str) -> str:
    time.sleep(0.008 + 0.024 * random.random())
    return "done"


@task()
def stand_by(seconds: float) -> str:
    """Holds nothing, and loses nothing."""
    time.sleep(seconds)
    return "done"
