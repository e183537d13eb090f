"""The worker's event loop goes on while hundreds are parked and the lock server says nothing."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, timezone
from typing import Any, List, NamedTuple

import pytest

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker.parking.crowded import PARKED, SOON, are_done, send_all

#: The latest that a timer may come because of us, in seconds.
LATE = 0.05

#: How long the machine may keep the loop waiting all in all, beyond what it did before, as a share
#: of the time. A loop that waits for the server's answer stands still for all of it.
NOISE = 0.25

ACCOUNTS = 10


class Ticks(NamedTuple):
    late: List[float]
    busy: List[float]

    @classmethod
    def of(cls, shop: LockedShop, worker: WorkerProcess) -> Ticks:
        """Those since the last look."""
        to = [worker.nodename]
        for _ in range(4):
            told: Any = shop.app.control.broadcast(
                "ticks", destination=to, reply=True, timeout=SOON / 4, limit=1
            )
            if told:
                return cls(**told[0][worker.nodename])
        raise AssertionError(f"{worker.nodename} does not answer")

    @property
    def stood_still(self) -> float:
        """For how long it came later than it may."""
        return sum(late - LATE for late in self.late if late > LATE)

    def __str__(self) -> str:
        late = sorted(self.late)
        parts = [f"{len(late)} ticks", f"99 % late by {late[len(late) * 99 // 100] * 1e3:.1f} ms"]
        parts += [f"worst {late[-1] * 1e3:.1f} ms", f"stood still {self.stood_still:.3f} s"]
        return ", ".join([*parts, f"worst CPU {max(self.busy) * 1e3:.1f} ms"])


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(100, 2.0), pytest.param(500, 10.0, marks=[pytest.mark.long, pytest.mark.timeout(240)])],
)
def test_timers_are_in_time_while_many_are_parked_and_the_lock_server_hangs(
    make_locked_shop: MakeLockedShop, count: int, seconds: float, account: str
) -> None:
    with LockServer.start() as server:
        shop = make_locked_shop(lock_url=server.url, **PARKED)
        worker = shop.worker(app="tests.worker.parking.ticking", pool=PREFORK, concurrency=2)
        accounts = [f"{account}-{number}" for number in range(ACCOUNTS)]
        # What the machine does by itself.
        Ticks.of(shop, worker)
        time.sleep(seconds)
        before = Ticks.of(shop, worker)
        for each in accounts:
            shop.locks.take(each, lease=600.0)
        results = send_all(shop, accounts, count)
        assert eventually(lambda: in_line(shop, accounts) == count, SOON)
        Ticks.of(shop, worker)
        server.pause()
        time.sleep(seconds)
        meanwhile = Ticks.of(shop, worker)
        server.resume()
        time.sleep(1.0)
        after = Ticks.of(shop, worker)
        told = f"\nwith none parked: {before}\nwhile it hung: {meanwhile}\nafter: {after}\n"
        sys.stdout.write(told)
        for each in accounts:
            shop.locks.free(each)
        assert eventually(lambda: are_done(results), SOON)
    # Its own doing: what others take of the machine is no part of it.
    assert max(meanwhile.busy) <= LATE + max(before.busy), told
    assert max(after.busy) <= LATE + max(before.busy), told
    # Waiting is no computing: were it for the server, it would be for all of the time.
    assert meanwhile.stood_still <= 2 * before.stood_still + NOISE * seconds, told


def test_timers_are_in_time_while_hundreds_expire_at_once(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    """Celery records of each of them that it is revoked, and waits for the result backend."""
    count, expires = 400, datetime.now(timezone.utc) + timedelta(seconds=10.0)
    shop = make_locked_shop(**PARKED)
    worker = shop.worker(app="tests.worker.parking.ticking", pool=PREFORK, concurrency=2)
    with shop.locks.held(account):
        work = shop.task("work")
        results = [work.apply_async((account,), expires=expires) for _ in range(count)]
        assert eventually(lambda: in_line(shop, [account]) == count, SOON)
        Ticks.of(shop, worker)
        assert eventually(lambda: in_line(shop, [account]) == 0, SOON)
        meanwhile = Ticks.of(shop, worker)
        assert eventually(lambda: {each.state for each in results} == {"REVOKED"}, SOON)
    assert max(meanwhile.busy) <= LATE, str(meanwhile)


def in_line(shop: LockedShop, accounts: List[str]) -> int:
    return sum(len(shop.locks.waiting_tasks(each)) for each in accounts)
