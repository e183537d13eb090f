"""A worker whose bodies share its process, and the marks that choose its pool."""

from __future__ import annotations

from typing import Any, List

import pytest

from examples.demo.bodylog import Body
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.pools import GREEN, NEEDS, POOLS, PREFORK, chosen_pool
from tests.harness.worker import WorkerProcess
from tests.worker import pool_app
from tests.worker.locked_tasks import resource_of

APP = pool_app.__name__
SOON = 20.0

#: The lease is thirty seconds: what is free within this was not freed by its end.
AT_ONCE = 2.0
CONCURRENCY = 8


def on(*pools: str) -> pytest.MarkDecorator:
    """Run on these pools; under another ``--pool`` than prefork on that one alone."""
    here = [pool for pool in POOLS if pool in pools and chosen_pool() in (PREFORK, pool)]
    return pytest.mark.parametrize("site", here, indirect=True, scope="module")


IN_PROCESS = ("threads", *GREEN)
in_one_process = on(*IN_PROCESS)


def having(need: str) -> pytest.MarkDecorator:
    return on(*(pool for pool in IN_PROCESS if NEEDS[need].is_on(pool)))


def without(need: str) -> pytest.MarkDecorator:
    return on(*(pool for pool in IN_PROCESS if not NEEDS[need].is_on(pool)))


class Site:
    """A shop whose one worker has a pool of threads or greenlets."""

    def __init__(self, shop: LockedShop, pool: str) -> None:
        self.shop = shop
        self.pool = pool
        self.worker: WorkerProcess = shop.worker(app=APP, pool=pool, concurrency=CONCURRENCY)

    def start(self, account: str, task: str = "work", **options: Any) -> Any:
        """A body that runs until the shop ends, or something ends it."""
        result = self.shop.task(task).apply_async((account, self.shop.gate().path), **options)
        self.wait_for_body(account)
        return result

    def wait_for_body(self, account: str, ended: bool = False) -> Body:
        return self.shop.bodies.wait_for(
            count_started=1, count_ended=int(ended), resource=resource_of(account), timeout=SOON
        )[0]

    def assert_free(self, account: str) -> None:
        locks = self.shop.locks
        assert eventually(lambda: locks.is_free(account), AT_ONCE), locks.holders(account)

    def assert_goes_on(self, account: str) -> None:
        """Another task gets the lock at once, and nothing is left when it has ended."""
        assert self.shop.send("work", account).get(timeout=SOON) == "done"
        assert not self.shop.overlaps_of(account)
        self.shop.bodies.assert_fences_grow()
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        left: List[Any] = []

        def is_clean() -> bool:
            left[:] = [self.shop.send("tell_left").get(timeout=SOON)]
            return bool(left[0] == {"pid": self.worker.pid, "is_idle": True, "running": 0})

        assert eventually(is_clean), left
