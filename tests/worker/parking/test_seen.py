"""What is parked can be seen: by remote control, by ``explain``, by monitors."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest

from celery_redlock.integration import inquiring
from celery_redlock.integration.reasons import reasons
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    """One that has more slots than bodies may run, and sends events."""
    return shop.worker(concurrency=2, arguments=["-E"])


def told_by(shop: LockedShop, worker: WorkerProcess, command: str) -> Any:
    inspect = shop.app.control.inspect(destination=[worker.nodename], timeout=SOON, limit=1)
    return inspect._request(command)[worker.nodename]


def parked_in(shop: LockedShop, worker: WorkerProcess) -> Dict[str, Dict[str, Any]]:
    told = told_by(shop, worker, "redlock_parked")
    assert told["count"] == len(told["parked"])
    return {each["task_id"]: each for each in told["parked"]}


def test_tasks_that_wait_in_line_are_seen_where_they_are_parked(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    resource = resource_of(account)
    with shop.locks.held(account):
        waiting = []
        for number in range(2):
            waiting.append(shop.send("work", account))
            shop.locks.wait_for_line(account, number + 1)
        first, second = (each.id for each in waiting)

        def stand_in_line() -> bool:
            parked = parked_in(shop, worker)
            states = [parked.get(each, {}).get("state") for each in (first, second)]
            return states == ["in line", "in line"]

        assert eventually(stand_in_line, SOON)
        parked = parked_in(shop, worker)
        assert {parked[each]["awaited"] for each in (first, second)} == {resource}
        assert parked[first]["place"] == 1
        assert parked[first]["holder"] == "rival"
        assert parked[first]["task"] == "shop.work"
        assert parked[second]["waited"] > 0
        assert {first, second} <= {each["id"] for each in told_by(shop, worker, "reserved")}
        told = reasons(inquiring.explain(shop.app, second))
        assert told[0].startswith(f"shop.work[{second}] waits for {resource} for ")
        assert told[0].endswith(": 2nd of 2 in line")
        assert any(
            line.startswith(f"shop.work[{second}] is parked on {worker.nodename}: in line")
            for line in told
        )
    assert [each.get(timeout=SOON) for each in waiting] == ["done"] * 2
    assert parked_in(shop, worker) == {}
    assert inquiring.explain(shop.app, first)["result"] == "SUCCESS"


def test_tasks_that_wait_for_a_slot_are_seen(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    gate = shop.gate()
    accounts = [f"{account}-{number}" for number in range(3)]
    results: List[Any] = [shop.send("work", each, gate.path) for each in accounts[:2]]
    for each in accounts[:2]:
        shop.bodies.wait_for(count_started=1, resource=resource_of(each), timeout=SOON)
    results.append(shop.send("work", accounts[2]))

    def waits_for_a_slot() -> bool:
        entry = parked_in(shop, worker).get(results[2].id)
        return entry is not None and entry["state"] == "waits for a slot"

    assert eventually(waits_for_a_slot, SOON)
    told = inquiring.explain(shop.app, resource_of(accounts[2]))
    assert [each["task_id"] for each in told["parked"]] == [results[2].id]
    gate.open()
    assert [each.get(timeout=SOON) for each in results] == ["done"] * 3


@contextmanager
def monitor(shop: LockedShop) -> Iterator[List[Dict[str, Any]]]:
    """What the workers tell from now on, as any monitor hears it."""
    heard: List[Dict[str, Any]] = []
    ended = threading.Event()
    with shop.app.connection_for_read() as connection:
        receiver = shop.app.events.Receiver(connection, handlers={"*": heard.append})
        with receiver.consumer_context() as (clone, _channel, _consumers):
            listens = threading.Thread(target=listen, args=(clone, ended))
            listens.start()
            try:
                hear_something(shop, heard)
                yield heard
            finally:
                ended.set()
                listens.join()


def hear_something(shop: LockedShop, heard: List[Dict[str, Any]]) -> None:
    """What is told before the monitor listens is heard by nobody."""
    with shop.app.events.default_dispatcher() as dispatcher:

        def is_heard() -> bool:
            dispatcher.send("test-listens")
            return bool(heard)

        assert eventually(is_heard, SOON)


def listen(connection: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            connection.drain_events(timeout=0.1)
        except OSError:  # nothing was told in time
            continue


def test_monitors_hear_that_a_task_waits_and_that_it_was_granted(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with monitor(shop) as heard:
        with shop.locks.held(account):
            result = shop.send("work", account)
            shop.locks.wait_for_line(account, 1)
        assert result.get(timeout=SOON) == "done"

        def told(kind: str) -> List[Dict[str, Any]]:
            return [e for e in heard if e["type"] == kind and e["uuid"] == result.id]

        assert eventually(lambda: told("task-succeeded"), SOON)
    (waiting,), (granted,) = told("task-redlock-waiting"), told("task-redlock-granted")
    assert waiting["resource"] == granted["resource"] == resource_of(account)
    assert (waiting["holder"], waiting["place"]) == ("rival", 1)
    assert waiting["name"] == granted["name"] == "shop.work"
    assert granted["waited"] > 0
    assert waiting["hostname"] == worker.nodename
    types = [each["type"] for each in heard if each.get("uuid") == result.id]
    order = ["task-received", "task-redlock-waiting", "task-redlock-granted", "task-started"]
    assert [kind for kind in types if kind in order] == order
