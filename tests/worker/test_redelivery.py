"""A second copy of a task: redelivered by a broker, or published twice under one id."""

from __future__ import annotations

import time
import uuid
from typing import Any, Callable

import pytest
from celery import VERSION, chain, chord
from celery.result import AsyncResult

from celery_redlock import is_skipped
from tests.harness.broker import RabbitMQ
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.proxy import Proxy
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0

#: A message that is not acknowledged for so long may be delivered once more; other shops' are not
#: looked at.
VISIBILITY = {
    "visibility_timeout": 1,
    "unacked_key": "forgetful-unacked",
    "unacked_index_key": "forgetful-unacked-index",
    "unacked_mutex_key": "forgetful-unacked-mutex",
}

#: Much less than the lease of 30 s after which anybody may have the lock.
AT_ONCE = 10.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    shop = make_locked_shop()
    shop.worker(concurrency=3)
    return shop


@pytest.fixture(scope="module")
def forgetful(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    """A shop whose broker soon forgets that it has delivered a message."""
    return make_locked_shop(broker_transport_options=VISIBILITY)


@pytest.fixture(scope="module")
def forgetful_worker(forgetful: LockedShop) -> WorkerProcess:
    return forgetful.worker(concurrency=4)


def wait_for_body(shop: LockedShop, account: str, count: int = 1) -> None:
    shop.bodies.wait_for(count_started=count, resource=resource_of(account), timeout=SOON)


def send_as(shop: LockedShop, task_id: str, name: str, *args: Any, **options: Any) -> AsyncResult:
    return shop.task(name).apply_async(args, task_id=task_id, **options)


def twice(shop: LockedShop, account: str, name: str, *args: Any) -> AsyncResult:
    """The result of a task of which a second copy waits for the first one's body."""
    task_id = str(uuid.uuid4())
    send_as(shop, task_id, name, account, *args)
    wait_for_body(shop, account)
    result = send_as(shop, task_id, name, account, *args)
    assert shop.locks.wait_for_line(account, 1) == [task_id]
    return result


def redeliver(shop: LockedShop, result: AsyncResult, account: str) -> None:
    """Have the broker deliver it once more, as any of its clients does now and then."""
    with shop.app.connection_for_write() as connection:
        qos = connection.default_channel.qos

        def is_back() -> bool:
            qos.restore_visible(interval=1)
            return result.id in shop.locks.waiting_tasks(account)

        assert eventually(is_back, SOON)


def recorded(shop: LockedShop, result: AsyncResult) -> str:
    """Its state now: a result object remembers the first one that is final."""
    return str(shop.app.backend.get_state(result.id))


def wait_until_over(shop: LockedShop, account: str) -> None:
    """Nobody holds it, nobody waits for it: the second copy has ended as well."""
    assert eventually(
        lambda: shop.locks.is_free(account) and not shop.locks.waiting_tasks(account), SOON
    )


# --- redelivered


def test_a_redelivered_copy_waits_for_the_first_delivery_and_leaves_its_success_alone(
    forgetful: LockedShop, forgetful_worker: WorkerProcess, account: str
) -> None:
    gate = forgetful.gate()
    result = forgetful.send("work_acked_late", account, gate.path)
    wait_for_body(forgetful, account)
    redeliver(forgetful, result, account)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    wait_until_over(forgetful, account)
    forgetful_worker.wait_for_output(f"{resource_of(account)} has succeeded", SOON)
    (body,) = forgetful.bodies_of(account)
    assert body.task_id == result.id


def test_a_redelivered_copy_does_not_give_up_on_its_first_delivery(
    forgetful: LockedShop, forgetful_worker: WorkerProcess, account: str
) -> None:
    gate = forgetful.gate()
    result = forgetful.send("work_acked_late_and_soon", account, gate.path)
    wait_for_body(forgetful, account)
    redeliver(forgetful, result, account)
    asked = time.monotonic()
    # Longer than any rival of its own would wait.
    assert eventually(lambda: time.monotonic() > asked + 1.0)
    assert result.state == "PENDING"
    gate.open()
    assert result.get(timeout=SOON) == "done"
    wait_until_over(forgetful, account)
    assert len(forgetful.bodies_of(account)) == 1
    assert f"gave up {resource_of(account)}" not in forgetful_worker.output()


@pytest.mark.needs("processes")
def test_a_redelivered_copy_takes_over_at_once_from_a_first_delivery_that_dies(
    forgetful: LockedShop, forgetful_worker: WorkerProcess, account: str
) -> None:
    gate = forgetful.gate()
    result = forgetful.send("work_acked_late", account, gate.path)
    wait_for_body(forgetful, account)
    redeliver(forgetful, result, account)
    (first,) = forgetful.bodies_of(account)
    died = time.monotonic()
    forgetful_worker.send(9, first.pid)
    wait_for_body(forgetful, account, 2)
    assert time.monotonic() - died < AT_ONCE
    gate.open()
    # Celery records a WorkerLostError first: the first delivery's.
    assert eventually(lambda: recorded(forgetful, result) == "SUCCESS", SOON)
    wait_until_over(forgetful, account)
    assert len(forgetful.bodies_of(account)) == 2


@pytest.mark.xfail(
    VERSION[:2] < (5, 7), reason="this Celery was not seen to take the copy while the first runs"
)
def test_a_copy_after_a_lost_connection_to_rabbitmq_leaves_the_first_success_alone(
    make_locked_shop: Callable[..., LockedShop], rabbitmq: RabbitMQ, account: str
) -> None:
    with Proxy(rabbitmq.url) as line:
        shop = make_locked_shop(broker_url=line.url.replace("redis://", "amqp://guest:guest@"))
        worker, gate = shop.worker(concurrency=2), shop.gate()
        result = shop.send("work_acked_late", account, gate.path)
        wait_for_body(shop, account)
        line.drop()
        assert eventually(lambda: shop.locks.waiting_tasks(account) == [result.id], SOON)
        gate.open()
        assert result.get(timeout=SOON) == "done"
        wait_until_over(shop, account)
        worker.wait_for_output(f"{resource_of(account)} has succeeded", SOON)
        assert len(shop.bodies_of(account)) == 1
        rabbitmq.delete_queue(shop.queue)


def test_a_redelivered_copy_that_goes_round_by_the_queue_is_still_one(
    make_locked_shop: Callable[..., LockedShop], account: str
) -> None:
    shop = make_locked_shop(broker_transport_options=VISIBILITY, redlock_max_park=0.2)
    worker, gate = shop.worker(concurrency=2), shop.gate()
    result = shop.send("work_acked_late", account, gate.path)
    wait_for_body(shop, account)
    redeliver(shop, result, account)
    assert eventually(lambda: not shop.locks.waiting_tasks(account), SOON)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    # The first delivery, the copy, and the copy that comes back from the queue.
    assert eventually(lambda: worker.output().count(f"[{result.id}] received") == 3, SOON)
    worker.wait_for_output(f"{resource_of(account)} has succeeded", SOON)
    assert len(shop.bodies_of(account)) == 1


def test_a_copy_of_a_task_that_has_succeeded_records_no_conflict_over_it(
    shop: LockedShop, account: str
) -> None:
    """Its first delivery is over, its acknowledgement was lost, and a rival holds the lock."""
    task_id = str(uuid.uuid4())
    assert send_as(shop, task_id, "work_or_fail", account).get(timeout=SOON) == "done"
    with shop.locks.held(account):
        for name in ("work_or_fail", "work_or_skip", "work_soon"):
            send_as(shop, task_id, name, account, delivery_info={"redelivered": True})
        # Served after them, on as many slots.
        for _ in range(3):
            assert is_skipped(shop.send("work_or_skip", account).get(timeout=SOON))
        assert shop.locks.waiting_tasks(account) == []
    again = AsyncResult(task_id, app=shop.app)
    assert (again.state, again.result) == ("SUCCESS", "done")
    assert len(shop.bodies_of(account)) == 1


@pytest.mark.skipif(
    VERSION < (5, 5), reason="before 5.5 a worker does not note what has succeeded in it"
)
def test_a_copy_that_celery_drops_before_its_body_leaves_no_lock(
    make_locked_shop: Callable[..., LockedShop], account: str
) -> None:
    """Celery's own deduplication knows what this process has done, also where no result is kept."""
    shop = make_locked_shop(task_acks_late=True, worker_deduplicate_successful_tasks=True)
    arguments = ["--loglevel=DEBUG"]
    worker = shop.worker(pool="threads", concurrency=2, arguments=arguments)
    task_id, granted = str(uuid.uuid4()), f"acquired {resource_of(account)}, "
    send_as(shop, task_id, "work_unrecorded", account)
    worker.wait_for_output(f"[{task_id}] succeeded", SOON)
    send_as(shop, task_id, "work_unrecorded", account, delivery_info={"redelivered": True})
    assert eventually(lambda: worker.output().count(granted) == 2, SOON)
    assert eventually(lambda: shop.locks.is_free(account), AT_ONCE)
    assert len(shop.bodies_of(account)) == 1


# --- any second copy


def test_a_second_copy_does_not_run_after_the_first_ones_success(
    shop: LockedShop, account: str
) -> None:
    gate = shop.gate()
    result = twice(shop, account, "work", gate.path)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    wait_until_over(shop, account)
    assert len(shop.bodies_of(account)) == 1


def test_a_second_copy_does_not_give_up_on_the_first_one(shop: LockedShop, account: str) -> None:
    gate = shop.gate()
    result = twice(shop, account, "work_soon", gate.path)
    asked = time.monotonic()
    assert eventually(lambda: time.monotonic() > asked + 0.6)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    wait_until_over(shop, account)
    assert recorded(shop, result) == "SUCCESS"
    assert len(shop.bodies_of(account)) == 1


def test_a_second_copy_runs_after_the_first_ones_failure(
    shop: LockedShop, account: str, tmp_path: Any
) -> None:
    gate = shop.gate()
    result = twice(shop, account, "fail_first", gate.path, str(tmp_path / "failed"))
    gate.open()
    assert eventually(lambda: recorded(shop, result) == "SUCCESS", SOON)
    assert len(shop.bodies_of(account)) == 2
    assert shop.overlaps_of(account) == []


def test_a_second_copy_runs_where_no_result_is_kept(shop: LockedShop, account: str) -> None:
    gate = shop.gate()
    twice(shop, account, "work_unrecorded", gate.path)
    gate.open()
    wait_for_body(shop, account, 2)
    wait_until_over(shop, account)
    assert shop.overlaps_of(account) == []


def test_a_task_id_that_is_used_again_later_runs_again(shop: LockedShop, account: str) -> None:
    task_id = str(uuid.uuid4())
    assert send_as(shop, task_id, "work", account).get(timeout=SOON) == "done"
    with shop.locks.held(account):
        send_as(shop, task_id, "work", account)
        shop.locks.wait_for_line(account, 1)
    wait_for_body(shop, account, 2)


def test_what_follows_a_task_is_published_once(shop: LockedShop, account: str) -> None:
    gate, task_id = shop.gate(), str(uuid.uuid4())
    first = shop.task("work").si(account, gate.path).set(task_id=task_id)
    followed = chain(first, shop.task("work").si(f"{account}-next").set(task_id=f"{task_id}-next"))
    followed.apply_async()
    wait_for_body(shop, account)
    result = followed.apply_async()
    shop.locks.wait_for_line(account, 1)
    gate.open()
    assert result.get(timeout=SOON) == "done"
    wait_until_over(shop, account)
    assert len(shop.bodies_of(account)) == len(shop.bodies_of(f"{account}-next")) == 1


def test_a_chord_counts_a_task_once(shop: LockedShop, account: str) -> None:
    gate, task_id = shop.gate(), str(uuid.uuid4())
    member = shop.task("work").si(account, gate.path).set(task_id=task_id)
    beside = shop.task("note").si("beside")
    result = chord([member, beside], shop.task("collect").s()).apply_async()
    wait_for_body(shop, account)
    (header,) = result.parent.children[:1]
    assert header.id == task_id
    group_id = result.parent.id
    send_as(shop, task_id, "work", account, gate.path, group_id=group_id)
    shop.locks.wait_for_line(account, 1)
    gate.open()
    assert result.get(timeout=SOON) == ["done", "beside"]
    wait_until_over(shop, account)
    assert len(shop.bodies_of(account)) == 1
