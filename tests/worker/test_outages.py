"""What becomes of a task whose lock server does not answer; a server of these tests' own."""

from __future__ import annotations

import re
import socket
import time
from contextlib import ExitStack
from typing import Any, Callable, Iterator

import pytest

from celery_redlock import LockUnavailable
from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker.locked_app import resource_of

SOON = 20.0

#: Nobody listens at the server's address: that is known without waiting.
QUICKLY = 5.0

#: A connection is waited for one second and an answer two, with a second try in between.
IN_TIME = 10.0

OUTAGES = {"killed": LockServer.kill, "frozen": LockServer.pause}


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop], server: LockServer) -> LockedShop:
    return make_locked_shop(lock_url=server.url)


@pytest.fixture(scope="module", autouse=True)
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=2)


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest, server: LockServer) -> Iterator[None]:
    OUTAGES[request.param](server)
    yield
    server.restart()


@pytest.fixture
def empty_hole() -> Iterator[str]:
    """The URL of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        yield f"redis://127.0.0.1:{hole.getsockname()[1]}/0"


@pytest.fixture
def full_hole() -> Iterator[str]:
    """The URL of a server that does not even take connections."""
    with ExitStack() as sockets:
        hole = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            visitor = sockets.enter_context(socket.socket())
            visitor.setblocking(False)
            visitor.connect_ex(hole.getsockname())
        yield f"redis://127.0.0.1:{hole.getsockname()[1]}/0"


@pytest.fixture(params=["empty_hole", "full_hole"])
def nowhere(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.usefixtures("outage")
def test_a_task_that_may_not_run_without_its_lock_fails(shop: LockedShop, account: str) -> None:
    began = time.monotonic()
    with pytest.raises(LockUnavailable) as caught:
        shop.send("report_or_fail", account).get(timeout=SOON)
    assert time.monotonic() - began < IN_TIME
    assert shop.settings.lock_url.split("/")[2] in caught.value.servers


@pytest.mark.usefixtures("outage")
def test_a_task_that_may_runs_without_its_lock_and_knows_it(shop: LockedShop, account: str) -> None:
    began = time.monotonic()
    report = shop.send("report_anyway", account).get(timeout=SOON)
    assert report == {"fence": None, "is_held": False, "reason": "outage"}
    assert time.monotonic() - began < IN_TIME


def test_a_server_that_is_nowhere_holds_nobody_up(
    make_locked_shop: Callable[..., LockedShop], nowhere: str, account: str
) -> None:
    shop = make_locked_shop(lock_url=nowhere)
    began = time.monotonic()
    with pytest.raises(LockUnavailable):
        shop.task("report_or_fail")(account)
    assert shop.task("report_anyway")(account)["reason"] == "outage"
    assert time.monotonic() - began < IN_TIME


def test_a_server_whose_name_nobody_knows_is_away(
    make_locked_shop: Callable[..., LockedShop], account: str
) -> None:
    """How long that takes to find out is up to the machine's resolver."""
    shop = make_locked_shop(lock_url="redis://lock-server.invalid:6379/0")
    with pytest.raises(LockUnavailable):
        shop.task("report_or_fail")(account)
    assert shop.task("report_anyway")(account)["reason"] == "outage"


@pytest.mark.parametrize("kind", OUTAGES)
def test_a_task_asks_again_until_the_server_is_back(
    shop: LockedShop, worker: WorkerProcess, server: LockServer, account: str, kind: str
) -> None:
    """It stays in the worker's parent, which says so once, and takes no slot meanwhile."""
    told = re.compile(rf"shop\.report\[(\S+)\] .*: wait, no answer about {resource_of(account)}\b")
    OUTAGES[kind](server)
    results = [shop.send("report", account) for _ in range(3)]
    ids = {result.id for result in results}
    try:
        assert eventually(lambda: set(told.findall(worker.output())) == ids, SOON)
        assert shop.send("report_anyway", account).get(timeout=SOON)["reason"] == "outage"
        assert [result.state for result in results] == ["PENDING"] * 3
    finally:
        server.restart()
    for result in results:
        report = result.get(timeout=SOON)
        assert (report["is_held"], report["reason"]) == (True, None)
    assert sorted(told.findall(worker.output())) == sorted(ids)


def test_a_task_waits_where_it_is_while_the_broker_is_away_as_well(
    make_locked_shop: Callable[..., LockedShop], server: LockServer, account: str
) -> None:
    """It can neither be locked nor published again; it runs as soon as it can be locked.

    A solo pool has no parent that could keep it.
    """
    with LockServer.start() as broker:
        shop = make_locked_shop(lock_url=server.url, broker_url=broker.url)
        worker, gate = shop.worker(pool="solo"), shop.gate()
        result = shop.send("report_when_open", account, gate.path)
        assert eventually(lambda: bool(shop.said(began=account)), SOON)
        broker.kill()
        server.kill()
        try:
            gate.open()
            # Twice: it asked, could not be published, and asked again.
            told = "retry, no answer about"
            assert eventually(lambda: worker.output().count(told) >= 2, SOON)
        finally:
            server.restart()
        assert result.get(timeout=SOON)["is_held"] is True
        broker.restart()


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("report_or_fail", "LockUnavailable"), ("report_anyway", "outage"), ("report", None)],
)
def test_an_outage_during_a_wait_is_as_one_before_it(
    shop: LockedShop, server: LockServer, account: str, name: str, outcome: Any
) -> None:
    """A task that asks again later waits it out where it stands."""
    with shop.locks.held(account):
        result = shop.send(name, account)
        shop.locks.wait_for_line(account, 1)
        server.pause()
        try:
            if outcome == "LockUnavailable":
                with pytest.raises(LockUnavailable):
                    result.get(timeout=SOON)
            elif outcome:
                assert result.get(timeout=SOON)["reason"] == outcome
        finally:
            server.resume()
    if outcome is None:
        assert result.get(timeout=SOON)["is_held"] is True
    assert eventually(lambda: shop.locks.is_free(account), SOON)


@pytest.mark.parametrize("kind", OUTAGES)
def test_a_task_waits_where_it_is_while_one_server_that_is_everything_is_away(
    make_locked_shop: Callable[..., LockedShop], account: str, kind: str
) -> None:
    """Broker, result backend and lock server are one: nothing can be recorded either.

    On a solo pool, as above.
    """
    with LockServer.start() as server:
        shop = make_locked_shop(
            lock_url=server.url, broker_url=server.url, result_backend=server.url
        )
        worker, gate = shop.worker(pool="solo"), shop.gate()
        result = shop.send("report_when_open", account, gate.path)
        assert eventually(lambda: bool(shop.said(began=account)), SOON)
        OUTAGES[kind](server)
        gate.open()
        # Killed: it asked, could not be published, and asked again. A frozen one Celery waits for.
        asked, told = {"killed": 2, "frozen": 1}[kind], "retry, no answer about"
        assert eventually(lambda: worker.output().count(told) >= asked, 2 * SOON)
        server.restart()
        assert eventually(lambda: state_of(shop, result.id) == "SUCCESS", 2 * SOON)
        assert shop.app.backend.get_result(result.id)["is_held"] is True


def test_a_server_that_comes_back_empty_needs_no_new_worker(
    shop: LockedShop, server: LockServer, account: str
) -> None:
    gate = shop.gate()
    during = shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    (body,) = shop.bodies_of(account)
    server.restart()
    gate.open()
    assert during.get(timeout=SOON) == "done"
    for _ in range(4):
        assert shop.send("work", account).get(timeout=SOON) == "done"
    later = shop.bodies_of(account)[1:]
    assert len(later) == 4
    # The same child among them: each of the two has its own connections.
    assert body.pid in {each.pid for each in later}
    assert all((each.fence or 0) > (body.fence or 0) for each in later)


def test_a_body_is_not_disturbed_by_an_outage_and_frees_its_resource_after_it(
    shop: LockedShop, server: LockServer, account: str
) -> None:
    gate = shop.gate()
    result = shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    server.pause()
    try:
        gate.open()
        # The release is not waited for: it goes on in the background.
        assert result.get(timeout=SOON) == "done"
    finally:
        server.resume()
    assert eventually(lambda: shop.locks.is_free(account))


def test_a_release_from_a_server_that_was_killed_is_not_waited_for(
    shop: LockedShop, server: LockServer, account: str
) -> None:
    gate = shop.gate()
    result = shop.send("work", account, gate.path)
    shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    server.kill()
    try:
        gate.open()
        began = time.monotonic()
        assert result.get(timeout=SOON) == "done"
        assert time.monotonic() - began < QUICKLY
    finally:
        server.restart()
    assert shop.send("report", account).get(timeout=SOON)["is_held"] is True


def test_several_releases_in_an_outage_cost_the_wait_of_one(
    shop: LockedShop, server: LockServer, account: str
) -> None:
    gate = shop.gate()
    result = shop.send("work_on_many", account, gate.path)
    assert eventually(lambda: bool(shop.said(began=account)), SOON)
    server.pause()
    try:
        gate.open()
        assert result.get(timeout=SOON) == "done"
        (told,) = shop.said(ended=account)
        # Eight at two seconds each would be sixteen.
        assert time.time() - told["at"] < IN_TIME
    finally:
        server.resume()
    assert eventually(lambda: shop.locks.is_free(f"{account}-0"), SOON)


def state_of(shop: LockedShop, task_id: str) -> str:
    """The recorded state, or what keeps it from being read."""
    try:
        return str(shop.app.backend.get_state(task_id))
    except Exception as error:  # noqa: BLE001 - the server has just been away
        return repr(error)
