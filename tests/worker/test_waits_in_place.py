"""A wait where the task runs, in a solo worker and in eager mode, ends when what it is in ends."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import Any, Iterator

import pytest
from celery import VERSION

from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK, chosen_pool

SOON = 20.0

#: A rival's lease, on which nobody waits.
UNDER_A_LEASE = 15.0

solo_pool = pytest.mark.skipif(chosen_pool() != PREFORK, reason="solo, in the default run")


@pytest.fixture
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    """Its queue is that of this test's workers alone."""
    return make_locked_shop()


@pytest.fixture(scope="module")
def eager(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop(task_always_eager=True, redlock_eager=True)


@solo_pool
def test_a_solo_worker_ends_when_what_waits_in_it_has_had_its_lock(
    shop: LockedShop, account: str
) -> None:
    """Celery has taken the task for begun: a warm shutdown waits for it."""
    worker = shop.worker(pool="solo")
    with shop.locks.held(account):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        behind = shop.send("work", account)
        worker.send(signal.SIGTERM)
        worker.wait_for_output("Warm shutdown", SOON)
        assert shop.locks.waiting_tasks(account) == [result.id]
    assert worker.wait(SOON), worker.output()[-4000:]
    assert result.get(timeout=SOON) == "done"
    assert shop.locks.is_free(account)
    shop.worker(pool="solo").wait_for_output(f"[{behind.id}] received", SOON)
    assert behind.get(timeout=SOON) == "done"
    assert len(shop.bodies_of(account)) == 2


@solo_pool
@pytest.mark.skipif(VERSION < (5, 5), reason="before 5.5 Celery does not interrupt it")
@pytest.mark.parametrize(
    "signals",
    [
        pytest.param(
            "SIGQUIT",
            marks=pytest.mark.skipif(
                VERSION < (5, 7), reason="before 5.7 Celery asks a solo pool to kill its job"
            ),
        ),
        "SIGTERM SIGQUIT",
        "SIGINT SIGINT",
    ],
)
def test_a_cold_shutdown_ends_a_wait_in_a_solo_worker(
    shop: LockedShop, signals: str, account: str
) -> None:
    worker = shop.worker(pool="solo")
    with shop.locks.held(account, lease=2 * SOON):
        result = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        # While that is logged, logging would keep to itself what Celery raises.
        worker.wait_for_output(" waits for ", SOON)
        *before, last = signals.split()
        for name in before:
            worker.send(signal.Signals[name])
            worker.wait_for_output("Warm shutdown", SOON)
        worker.send(signal.Signals[last])
        assert worker.wait(UNDER_A_LEASE), worker.output()[-4000:]
        shop.locks.wait_for_line(account, 0)
        # By what Celery raises in whatever such a worker does.
        assert result.state == "FAILURE"
    assert eventually(lambda: shop.locks.is_free(account))
    assert shop.bodies_of(account) == []


class Interrupted(BaseException):
    pass


@contextmanager
def interrupted_in_line(shop: LockedShop, account: str) -> Iterator[None]:
    """The main thread, as by Ctrl+C, as soon as somebody stands in the account's line."""

    def interrupt(*_signal: Any) -> None:
        raise Interrupted

    def wait_and_interrupt() -> None:
        shop.locks.wait_for_line(account, 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=wait_and_interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        thread.join(SOON)
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_eager_call_leaves_no_place_in_line_and_no_hold(
    eager: LockedShop, account: str
) -> None:
    with eager.locks.held(account):
        with interrupted_in_line(eager, account):
            eager.send("work", account)
        eager.locks.wait_for_line(account, 0)
    assert eager.locks.is_free(account)
    assert eager.bodies_of(account) == []
    assert eager.send("work", account).get() == "done"
