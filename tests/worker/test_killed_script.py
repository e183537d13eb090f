"""A script that is killed while it holds a Lock: the next that asks on its host takes it over."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Iterator

import pytest

from celery_redlock import Lock
from tests.harness.locked_shop import LockedShop, MakeLockedShop
from tests.harness.servers import LockServer
from tests.worker.locked_tasks import resource_of
from tests.worker.scripts import Scripts

SOON = 20.0

#: The killed script's lease is a minute.
AT_ONCE = 5.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    shop = make_locked_shop(redlock_prefix="scripts:")
    shop.worker(concurrency=2)
    return shop


@pytest.fixture
def scripts(lock_server: LockServer, tmp_path: Path) -> Iterator[Scripts]:
    with ExitStack() as stack:
        yield Scripts(lock_server.url, "scripts:", tmp_path, stack)


@pytest.fixture
def fence(scripts: Scripts, account: str) -> int:
    """A script has held the account, and has been killed; what its fence was."""
    script = scripts.start("hold", resource_of(account))
    fence = int(script.tells(fence=...)["fence"])
    script.program.send(signal.SIGKILL)
    assert script.program.wait(SOON)
    return fence


def test_another_script_gets_it(scripts: Scripts, account: str, fence: int) -> None:
    script = scripts.start("take", resource_of(account))
    script.tells(asking=True)
    taken = script.tells(fence=..., within=AT_ONCE)
    assert taken["fence"] > fence


def test_a_lock_that_does_not_wait_gets_it(shop: LockedShop, account: str, fence: int) -> None:
    lock = Lock(resource_of(account), app=shop.app)
    assert lock.acquire(blocking=False)
    assert (lock.fence or 0) > fence
    lock.release()


def test_a_task_gets_it(shop: LockedShop, account: str, fence: int) -> None:
    report = shop.send("report", account).get(timeout=AT_ONCE)
    assert report["fence"] > fence


def test_one_that_waits_already_gets_it(scripts: Scripts, shop: LockedShop, account: str) -> None:
    holder = scripts.start("hold", resource_of(account))
    fence = holder.tells(fence=...)["fence"]
    result = shop.send("report", account)
    shop.locks.wait_for_line(account, 1)
    holder.program.send(signal.SIGKILL)
    assert result.get(timeout=AT_ONCE)["fence"] > fence


def test_one_that_lives_keeps_it(scripts: Scripts, shop: LockedShop, account: str) -> None:
    holder = scripts.start("hold", resource_of(account))
    holder.tells(fence=...)
    holder.program.send(signal.SIGSTOP)  # not dead: it may go on at any time
    try:
        ends_at = time.monotonic() + 1.5
        lock = Lock(resource_of(account), app=shop.app)
        assert not lock.acquire(blocking_timeout=ends_at - time.monotonic())
    finally:
        holder.program.send(signal.SIGCONT)
