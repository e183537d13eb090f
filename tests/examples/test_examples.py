"""What each example promises, judged from what its bodies logged or wrote."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Tuple

from tests.examples.conftest import SOON, MakeExample, wait_until_ended
from tests.examples.workerlog import count_ended, together
from tests.harness.servers import missing
from tests.harness.worker import WorkerProcess


def test_quickstart_the_same_call_never_overlaps_itself(example: MakeExample) -> None:
    quickstart = example("quickstart")
    worker = quickstart.worker()
    assert quickstart.main().count("the index of books is new") == 3
    assert count_ended(worker.output()) == 3
    assert together(worker.output()) == set()


def test_without_locks_the_same_calls_overlap_so_the_log_can_tell(example: MakeExample) -> None:
    quickstart = example("quickstart")
    worker = quickstart.worker("--redlock-disable")
    quickstart.main()
    assert together(worker.output()) == {("books", "books")}


def test_a_periodic_task_that_is_too_slow_never_overlaps_itself(example: MakeExample) -> None:
    periodic = example("beat_never_overlaps")
    worker = periodic.worker()
    periodic.beat()
    log = wait_until_ended(worker, bodies=3)
    assert together(log) == set()
    assert "'redlock': 'skipped'" in log


def test_accounts_take_turns_each_and_run_side_by_side(example: MakeExample) -> None:
    accounts = example("one_per_account")
    worker = accounts.worker()
    assert accounts.main() == "synced accounts 1 2 1 2\n"
    assert count_ended(worker.output()) == 4
    assert together(worker.output()) == {("account:1", "account:2")}


def test_a_script_and_the_tasks_take_turns(example: MakeExample) -> None:
    accounts = example("lock_in_a_script")
    worker = accounts.worker(concurrency=2)
    printed = accounts.main()
    assert count_ended(worker.output()) == 2
    closed, synced = map(int, re.findall(r"fence (\d+)", printed))
    assert closed < synced
    assert printed.endswith("account 1 is closed: 0 synced beside it\n")


def test_a_stale_holder_cannot_write(example: MakeExample) -> None:
    _needs_sqlalchemy()
    prices = example("fenced_write")
    worker = prices.worker(concurrency=2)
    client = prices.client()

    stale = client.send_task("examples.fenced_write.set_price", (7, 995, 2.0))
    stopped = _pid_of_holder(worker, 1)
    os.kill(stopped, signal.SIGSTOP)
    try:
        rival = client.send_task("examples.fenced_write.set_price", (7, 1095))
        fence = rival.get(timeout=SOON)
        assert _pid_of_holder(worker, 2) != stopped
        assert _row(prices.database) == (1095, fence)
    finally:
        os.kill(stopped, signal.SIGCONT)

    error = stale.get(timeout=SOON, propagate=False)
    assert type(error).__name__ == "StaleWrite", error
    assert _row(prices.database) == (1095, fence)


def test_later_holders_write_over_earlier_ones(example: MakeExample) -> None:
    _needs_sqlalchemy()
    prices = example("fenced_write")
    prices.worker(concurrency=2)
    printed = prices.main()
    first, second = map(int, re.findall(r"\d+", printed))
    cents, fence = _row(prices.database)
    assert fence == max(first, second)
    assert cents in (995, 1095)


def _needs_sqlalchemy() -> None:
    if find_spec("sqlalchemy") is None:
        missing("SQLAlchemy 2")


def _pid_of_holder(worker: WorkerProcess, number: int) -> int:
    """The process of the body that was the ``number``-th to hold the lock."""
    deadline = time.monotonic() + SOON
    while True:
        found = re.findall(r"holding product:7 in process (\d+)$", worker.output(), re.MULTILINE)
        if len(found) >= number:
            return int(found[number - 1])
        assert time.monotonic() < deadline, worker.output()
        time.sleep(0.02)


def _row(database: Path) -> Tuple[int, int]:
    with closing(sqlite3.connect(str(database))) as connection:
        (row,) = connection.execute("SELECT cents, fence FROM price WHERE product_id = 7")
    return row
