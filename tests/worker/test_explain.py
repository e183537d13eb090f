"""``celery redlock explain``, as an operator uses it; and what a worker says that it has parked."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from celery.worker.control import Panel

from celery_redlock.core.lifecycle import Move
from celery_redlock.core.options import LockOptions
from celery_redlock.core.ports import Queued, Seen, Terms
from celery_redlock.core.record import Record
from celery_redlock.integration import inquiring
from celery_redlock.integration.parking import inspecting, monitoring, step
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.integration.steps import Pause
from celery_redlock.locking.hold import Hold
from tests.harness.process import free_port
from tests.harness.servers import LockServer
from tests.worker.test_cli import HOSTILE, Office, opened

NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    """A lock server of this module's own: a task is looked for in all that is on it."""
    with LockServer.start() as server:
        yield server


@pytest.fixture
def office(server: LockServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(inquiring, "_REPLIES", 0.05)  # there are no workers
    with opened(server) as office:
        yield office


# --- explain


def test_a_task_in_line_is_explained_by_its_id(office: Office) -> None:
    office.hold("account:1", "holder")
    office.hold("account:1", "first", wait=True)
    office.hold("account:1", "second", wait=True)
    told = office.said("explain", "second").splitlines()
    assert told[0].startswith("shop.work[second] waits for account:1 for ")
    assert told[0].endswith("2nd of 2 in line")
    assert "held by shop.work[holder] on w1@elsewhere (pid 7)" in told[1]
    (wait,) = office.json("explain", "second")["waits"]
    assert (wait["place"], wait["of"], wait["is_copy"]) == (2, 2, False)
    assert wait["resource"]["holders"][0]["task_id"] == "holder"


def test_a_task_that_holds_is_explained_by_its_id(office: Office) -> None:
    office.hold("account:1", "holder")
    office.hold("account:1", "waiter", wait=True)
    told = office.said("explain", "holder")
    assert told.startswith("shop.work[holder] holds account:1\n")
    assert "1 in line behind it" in told


def test_a_resource_is_explained_by_its_name(office: Office) -> None:
    office.hold("account:1", "holder")
    office.hold("account:1", "waiter", wait=True)
    told = office.said("explain", "account:1")
    assert told.startswith("account:1  (last fence ")
    assert "the lease of holder ends in " in told
    assert office.json("explain", "account:1")["kind"] == "resource"


def test_a_holder_of_this_host_that_is_dead_is_called_dead(office: Office) -> None:
    record = runtime_of(office.app).record("shop.work", "dead")
    hold = Hold("account:1", Terms(), record._replace(started=1))
    office.manager.acquire(hold)
    try:
        assert "the process of dead is dead" in office.said("explain", "account:1")
        (fence,) = office.json("explain", "account:1")["dead"]
        assert fence == hold.fence
    finally:
        office.manager.release(hold)


def test_of_a_task_that_waits_for_nothing_the_result_backend_is_asked(office: Office) -> None:
    office.app.backend.store_result("ended", 7, "SUCCESS")
    told = office.said("explain", "ended")
    assert told.startswith("ended neither holds a lock nor waits for one")
    assert "the result backend says SUCCESS: it has ended" in told
    assert "says PENDING" in office.said("explain", "never seen")


def test_what_workers_keep_is_told_with_what_the_server_says(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"parked": [{"task_id": "waits", "resources": ["account:1"], "state": "asking"}]}
    monkeypatch.setattr(
        office.app.control, "broadcast", lambda *words, **more: [{"w1@web": answer}, {"w2@web": {}}]
    )
    office.hold("account:1", "holder")
    told = office.said("explain", "waits")
    assert told.startswith("waits is parked on w1@web: asking for account:1")
    assert "held by shop.work[holder]" in told
    assert "parked on w1@web: waits, asking" in office.said("explain", "account:1")
    office.leave("account:1")


def test_hostile_names_do_nothing_to_the_terminal(office: Office) -> None:
    office.hold(HOSTILE, HOSTILE)
    office.hold(HOSTILE, HOSTILE + "2", wait=True)
    for asked in (HOSTILE, HOSTILE + "2", HOSTILE + "3"):
        told = office.said("explain", asked)
        assert all(line.isprintable() for line in told.split("\n"))
        assert office.run("explain", asked, "--json").output.isascii()


# --- who does not answer


def test_a_lock_server_that_is_away_is_named_and_the_workers_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = Office(f"redis://:secret@127.0.0.1:{free_port()}/0", allow_release=False)
    entry = {"task_id": "waits", "resources": ["account:1"], "state": "waits for the lock server"}
    monkeypatch.setattr(
        nowhere.app.control, "broadcast", lambda *words, **more: [{"w@x": {"parked": [entry]}}]
    )
    for asked, begin in (
        ("waits", "waits is parked on w@x: waits for the lock server"),
        ("account:1", "account:1  (who holds it is not known)"),
        ("other", "other: those who answered know nothing of it"),
    ):
        result = nowhere.run("explain", asked)
        assert result.exit_code == 1
        assert result.output.startswith(begin)
        assert "no answer from the lock server: redis://" in result.output
        assert "secret" not in result.output


def test_a_broker_that_is_away_is_said_and_the_lock_server_is_heard(office: Office) -> None:
    office.app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    office.hold("account:1", "holder")
    result = office.run("explain", "holder")
    assert result.exit_code == 1
    assert "shop.work[holder] holds account:1" in result.output
    assert "no answer from the broker" in result.output


def test_a_broker_that_hangs_is_not_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(inquiring, "SILENT", 0.1)
    monkeypatch.setattr(office.app.control, "broadcast", lambda *words, **more: never.wait(30))
    office.hold("account:1", "holder")
    began = time.monotonic()
    assert "no answer from the broker" in office.run("explain", "holder").output
    assert time.monotonic() - began < 20
    never.set()


# --- what is parked


class Request(SimpleNamespace):
    """As much of Celery's request as is told of one that is parked."""

    def info(self) -> Dict[str, Any]:
        return {"id": self.id, "name": self.name}

    def send_event(self, type: str, **fields: Any) -> None:
        self.sent.append((type, {"uuid": self.id, **fields}))


def parked(task_id: str, *names: str, **given: Any) -> Any:
    """A request that is parked, as ``Parked`` is seen from outside."""
    task = SimpleNamespace(redlock_options=lambda: LockOptions(wait_timeout=60.0))
    request = Request(name="shop.work", id=task_id, task=task, expires=None, sent=[])
    fields: Dict[str, Any] = {
        "request": request,
        "names": names,
        "execution": SimpleNamespace(holds={name: new_hold(name) for name in names}),
        "waited": 5.0,
        "step": None,
        "awaited": None,
        "has_slot": False,
        "is_in_line": False,
    }
    return SimpleNamespace(**{**fields, **given})


def new_hold(name: str) -> Hold:
    hold = Hold(name, Terms(), Record("here", os.getpid(), time.time(), "waits"))
    hold.move(Move.ASKED)
    return hold


def stand_in_line(each: Any, name: str, rank: int, holder: str = "holder") -> None:
    record = Record("elsewhere", 7, time.time(), holder).encode()
    seen = (Seen("secret token", 41, "confirmed", record),)
    each.execution.holds[name].place(Queued(77, rank, 1000, seen), 0.0)
    each.is_in_line = True


@pytest.fixture
def lot(monkeypatch: pytest.MonkeyPatch) -> Tuple[Any, List[Any]]:
    """A worker's state as its commands see it, and what it keeps."""

    class Consumer:
        pass

    kept: List[Any] = []
    consumer = Consumer()
    monkeypatch.setitem(step._places, consumer, SimpleNamespace(parked=kept))
    return SimpleNamespace(consumer=consumer, tset=set), kept


def test_a_worker_tells_what_it_keeps_and_how_far_that_has_come(lot: Any) -> None:
    worker, kept = lot
    kept += [
        parked("asks", "account:1", has_slot=True, waited=4.0),
        parked("waits", "account:1", "account:2", waited=3.0),
        parked("granted", "account:1", waited=2.0, is_in_line=True, awaited=object()),
        parked("away", "account:1", waited=1.0, step=Pause(1.0), awaited=object()),
    ]
    first, second = kept[1].execution.holds.values()
    first.granted(1, time.monotonic() + 9, time.monotonic())
    stand_in_line(kept[1], "account:2", rank=1)
    told = inspecting.redlock_parked(worker)
    assert told["count"] == 4
    assert [(each["task_id"], each["state"]) for each in told["parked"]] == [
        ("asks", "asking"),
        ("waits", "in line"),
        ("granted", "waits for a slot"),
        ("away", "waits for the lock server"),
    ]
    assert told["parked"][1] == {
        "task": "shop.work",
        "task_id": "waits",
        "resources": ["account:1", "account:2"],
        "held": ["account:1"],
        "awaited": "account:2",
        "place": 2,
        "holder": "holder",
        "waited": 3.0,
        "wait_left": 57.0,
        "expires_in": None,
        "state": "in line",
    }
    assert second.token not in json.dumps(told)
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("expires", [NOW + timedelta(hours=1), datetime.now() + timedelta(hours=1)])
def test_when_a_parked_task_expires_is_told(lot: Any, expires: datetime) -> None:
    worker, kept = lot
    kept.append(parked("waits"))
    kept[0].request.expires = expires
    (told,) = inspecting.redlock_parked(worker)["parked"]
    assert 3000 < told["expires_in"] <= 3600


def test_one_answer_has_a_bounded_number_of_tasks_the_longest_wait_first(lot: Any) -> None:
    worker, kept = lot
    kept += [parked(str(number), waited=float(number)) for number in range(inspecting._MOST + 5)]
    told = inspecting.redlock_parked(worker)
    assert told["count"] == inspecting._MOST + 5
    assert len(told["parked"]) == inspecting._MOST
    assert told["parked"][0]["task_id"] == str(inspecting._MOST + 4)


def test_a_worker_without_a_parking_place_keeps_nothing() -> None:
    class Consumer:
        pass

    worker = SimpleNamespace(consumer=Consumer(), tset=set)
    assert inspecting.redlock_parked(worker) == {"parked": [], "count": 0}
    assert Panel.data["reserved"](worker) == []


@pytest.mark.parametrize("name", ["reserved", "dump_reserved"])
def test_what_is_parked_is_reserved(lot: Any, name: str) -> None:
    worker, kept = lot
    kept += [parked("one"), parked("two")]
    assert Panel.data[name](worker) == [
        {"id": "one", "name": "shop.work"},
        {"id": "two", "name": "shop.work"},
    ]
    assert Panel.meta["reserved"].type == "inspect"


# --- events for monitors


def test_monitors_are_told_who_waits_for_what_behind_whom_and_when_it_ended() -> None:
    waits = parked("waits", "account:1", "account:2")
    first, _second = waits.execution.holds.values()
    first.granted(1, time.monotonic() + 9, time.monotonic())
    stand_in_line(waits, "account:2", rank=2)
    monitoring.waiting(waits)
    monitoring.granted(waits)
    common = {"uuid": "waits", "name": "shop.work", "resource": "account:2"}
    assert waits.request.sent == [
        ("task-redlock-waiting", {**common, "holder": "holder", "place": 3}),
        ("task-redlock-granted", {**common, "waited": 5.0}),
    ]


def test_of_several_that_it_waited_for_monitors_hear_the_last() -> None:
    waits = parked("waits", "account:1", "account:2")
    for name, hold in waits.execution.holds.items():
        stand_in_line(waits, name, rank=0)
        hold.granted(1, time.monotonic() + 9, time.monotonic())
    monitoring.granted(waits)
    ((_type, told),) = waits.request.sent
    assert told["resource"] == "account:2"


def test_of_a_task_that_was_granted_at_once_monitors_hear_nothing() -> None:
    at_once = parked("at once", "account:1")
    monitoring.waiting(at_once)
    monitoring.granted(at_once)
    assert at_once.request.sent == []
