"""What happens to a task whose resource is held: every policy, on a real worker."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from celery.result import AsyncResult

from celery_redlock import ConfigurationError, LockConflict, LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=4)


pytestmark = pytest.mark.usefixtures("worker")


def marker(account: str, holder: Any = "rival", **more: Any) -> Any:
    return {"redlock": "skipped", "resource": resource_of(account), "holder": holder, **more}


def wait_for_body(shop: LockedShop, account: str, count: int = 1) -> None:
    shop.bodies.wait_for(count_started=count, resource=resource_of(account), timeout=SOON)


def wait_until_tried(worker: WorkerProcess, account: str, decision: str) -> None:
    worker.wait_for_output(f"{decision}, {resource_of(account)} is held by", SOON)


# --- wait


def test_a_wait_that_takes_too_long_is_a_timeout_that_names_the_holder(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        with pytest.raises(LockTimeout) as caught:
            shop.send("work_soon", account).get(timeout=SOON)
        assert eventually(lambda: not shop.locks.waiting_tasks(account))
    assert caught.value.resource == resource_of(account)
    assert caught.value.holder == "rival"
    assert 0.2 <= caught.value.waited < SOON
    assert shop.bodies_of(account) == []


# --- retry


def test_a_task_that_retries_keeps_its_id_and_its_own_retries(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("work_later_hooked", account)
        wait_until_tried(worker, account, "retry")
        assert eventually(lambda: result.state == "RETRY")
        assert isinstance(result.info, LockConflict)
        assert result.info.holder == "rival"
    # Its max_retries is 0: a retry of its own would be refused.
    assert result.get(timeout=SOON) == {"id": result.id, "retries": 0}
    assert eventually(lambda: shop.said(task_id=result.id, hook="on_success"))
    hooks = {told["hook"] for told in shop.said(task_id=result.id)}
    assert hooks == {"before_start", "on_success"}


def test_a_wait_is_counted_over_all_tries(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account), pytest.raises(LockTimeout) as caught:
        shop.send("work_later_but_soon", account).get(timeout=SOON)
    assert worker.output().count(f"retry, {resource_of(account)} is held by") >= 1
    assert caught.value.holder == "rival"
    assert 0.6 <= caught.value.waited < 3.0
    assert shop.bodies_of(account) == []


# --- skip and fail


def test_a_skipped_task_says_so(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        result = shop.send("work_or_skip", account)
        assert result.get(timeout=SOON) == marker(account)
    assert is_skipped(result.result)
    assert result.state == "SUCCESS"
    assert shop.bodies_of(account) == []


def test_a_failed_task_names_the_holders_task(shop: LockedShop, account: str) -> None:
    gate, before = shop.gate(), time.time()
    holder = shop.send("work", account, gate.path)
    wait_for_body(shop, account)
    with pytest.raises(LockConflict) as caught:
        shop.send("work_or_fail", account).get(timeout=SOON)
    assert caught.value.args == (resource_of(account), holder.id, caught.value.since)
    assert before <= caught.value.since <= time.time()
    gate.open()
    assert holder.get(timeout=SOON) == "done"


@pytest.mark.parametrize(
    ("task", "error"),
    [("work_or_fail_with_autoretry", LockConflict), ("work_soon_with_autoretry", LockTimeout)],
)
def test_autoretry_never_retries_what_the_lock_raises(
    shop: LockedShop, task: str, error: Any, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send(task, account)
        with pytest.raises(error):
            result.get(timeout=SOON)
    assert result.state == "FAILURE"
    assert not shop.said(hook="task_retry", task_id=result.id)


# --- a callable


@pytest.mark.parametrize("word", ["wait", "retry", "skip", "fail"])
def test_a_policy_may_be_chosen_for_each_conflict(
    shop: LockedShop, worker: WorkerProcess, word: str, account: str
) -> None:
    account = f"{word}-{account}"
    with shop.locks.held(account):
        result = shop.send("work_as_it_says", account)
        if word == "wait":
            shop.locks.wait_for_line(account, 1)
        else:
            wait_until_tried(worker, account, word)
    if word == "fail":
        with pytest.raises(LockConflict):
            result.get(timeout=SOON)
    else:
        assert result.get(timeout=SOON) == (marker(account) if word == "skip" else "done")


def test_a_policy_is_told_all_about_the_conflict(shop: LockedShop, account: str) -> None:
    account, before = f"raise-{account}", time.time()
    with shop.locks.held(account):
        result = shop.send("work_as_it_says", account)
        with pytest.raises(KeyError) as caught:
            result.get(timeout=SOON)
    told = json.loads(caught.value.args[0])
    assert before <= told.pop("since") <= time.time()
    assert 0 <= told.pop("waited") < SOON
    assert told == {
        "task": "shop.work_as_it_says",
        "task_id": result.id,
        "resource": resource_of(account),
        "holder": "rival",
        "waiting": 0,
    }
    assert shop.bodies_of(account) == []


@pytest.mark.parametrize("word", ["nonsense", "none"])
def test_a_policy_that_names_no_policy_fails_the_task(
    shop: LockedShop, word: str, account: str
) -> None:
    account = f"{word}-{account}"
    with shop.locks.held(account), pytest.raises(ConfigurationError, match="lock_on_conflict"):
        shop.send("work_as_it_says", account).get(timeout=SOON)


# --- the same task twice


@pytest.mark.parametrize("task", ["work_or_skip", "work_or_fail", "work_later"])
def test_a_task_that_is_delivered_twice_waits_for_itself(
    shop: LockedShop, task: str, account: str
) -> None:
    gate, task_id = shop.gate(), str(uuid.uuid4())
    for _ in range(2):
        shop.task(task).apply_async((account, gate.path), task_id=task_id)
        wait_for_body(shop, account)
    shop.locks.wait_for_line(account, 1)
    assert shop.locks.waiting_tasks(account) == shop.locks.holding_tasks(account) == [task_id]
    gate.open()
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert AsyncResult(task_id, app=shop.app).get(timeout=SOON) == "done"
    assert shop.overlaps_of(account) == []
