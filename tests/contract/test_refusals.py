"""What a server refuses for the moment has not run, and is asked again: nobody sees an error."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Beat, Extended, NoAnswer, Queued, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Outcome, Patience, Taken
from celery_redlock.store.urls import open_store
from tests.contract.desk import LONG, PATIENCE, Desk, until
from tests.harness.refusing import RefusingServer
from tests.harness.servers import LockServer

#: What servers say while they load, fail over, are moved, stall or must not write.
REFUSALS = {
    "loading": "LOADING Redis is loading the dataset in memory",
    "replica": "READONLY You can't write against a read only replica.",
    "link down": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "cluster down": "CLUSTERDOWN The cluster is down",
    "busy": "BUSY Redis is busy running a script. You can only call SCRIPT KILL.",
    "try again": "TRYAGAIN Multiple keys request during rehashing of slot",
    "disk full": "MISCONF Redis is configured to save RDB snapshots, but cannot persist on disk.",
    "no replicas": "NOREPLICAS Not enough good replicas to write.",
    "forgetful": "NOSCRIPT No matching script. Please use EVAL.",
}


@pytest.fixture(scope="module")
def server(servers: Callable[[str], LockServer]) -> Iterator[RefusingServer]:
    with RefusingServer(servers("redis").port) as refusing:
        yield refusing
    servers("redis").flush()


@pytest.fixture
def store(server: RefusingServer) -> Iterator[Store]:
    store = open_store(server.url, prefix="test:1:", restart_grace=0.0)
    yield store
    server.refusals, server.always = [], ""
    store.close()


@pytest.fixture
def direct(servers: Callable[[str], LockServer]) -> Iterator[Store]:
    """Past what refuses."""
    store = open_store(servers("redis").url, prefix="test:1:", restart_grace=0.0)
    yield store
    store.close()


@pytest.fixture
def manager_of() -> Iterator[Callable[[Store], Manager]]:
    made: List[Manager] = []

    def make(store: Store) -> Manager:
        made.append(Manager(store, lambda event: None))
        return made[-1]

    yield make
    for manager in made:
        for hold in manager.watchdog.renewing:
            manager.release(hold)
    until(lambda: all(manager.is_idle for manager in made), "nothing is left to do")


@pytest.fixture
def manager(store: Store, manager_of: Callable[[Store], Manager]) -> Manager:
    return manager_of(store)


def hold_of(name: str) -> Hold:
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
    return Hold(name, Terms(lease_ms=LONG), record)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_request_is_known_not_to_have_run(
    server: RefusingServer, store: Store, kind: str
) -> None:
    desk = Desk(store, f"known {kind}")
    server.always = REFUSALS[kind]
    with pytest.raises(NoAnswer) as caught:
        desk.ask("me")
    server.always = ""
    assert not caught.value.may_run
    assert desk.view().holders == ()
    desk.granted("me")


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_moments_refusal_is_not_noticed(
    server: RefusingServer, manager: Manager, kind: str
) -> None:
    hold = hold_of(f"moment {kind}")
    server.refusals = [REFUSALS[kind]]
    assert isinstance(manager.acquire(hold), Held)
    server.refusals = [REFUSALS[kind]]
    left = manager.release(hold)
    assert left is not None
    assert left.what == "holder"
    assert not hold.tainted
    assert server.refusals == []


def test_who_waits_waits_on_while_the_server_refuses(
    server: RefusingServer, manager: Manager, direct: Store
) -> None:
    rival = Desk(direct, "contended")
    rival.granted("rival", lease_ms=1000)
    came: List[Outcome] = []
    waiter = hold_of("contended")
    thread = threading.Thread(target=lambda: came.append(manager.acquire(waiter, Patience())))
    thread.start()
    until(lambda: rival.line() != [], "it stands in line")
    server.always = REFUSALS["loading"]
    rival.lapse("rival")
    server.always = ""
    thread.join(PATIENCE)
    assert isinstance(came[0], Held)


def test_a_hold_outlives_refused_renewals(server: RefusingServer, manager: Manager) -> None:
    hold = hold_of("renewed")
    hold.terms = Terms(lease_ms=1500)
    assert isinstance(manager.acquire(hold), Held)
    server.always = REFUSALS["replica"]
    until(lambda: hold.state is State.AT_RISK, "a renewal is refused")
    server.always = ""
    until(lambda: hold.state is State.HELD, "it is renewed")


def test_an_end_that_is_refused_comes_later(server: RefusingServer, manager: Manager) -> None:
    hold = hold_of("ended")
    assert isinstance(manager.acquire(hold), Held)
    server.always = REFUSALS["cluster down"]
    assert manager.release(hold) is None
    server.always = ""
    until(lambda: manager.inspect("ended").holders == (), "it is released")


def test_a_cut_connection_costs_one_answer_and_not_one_for_each(
    real: Any, manager_of: Callable[[Store], Manager]
) -> None:
    """A server that restarts or fails over cuts them all."""
    store = real.open()
    real.server.pause()
    threads = [threading.Thread(target=store.inspect, args=("r",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    real.server.resume()
    for thread in threads:
        thread.join()
    with real.server.client() as client:
        assert client.client_kill_filter(_type="normal", skipme=True) >= len(threads)
    assert isinstance(manager_of(store).acquire(hold_of("cut")), Held)


# --- a server that forgets its scripts


Call = Callable[[Desk], Any]

CALLS: List[Call] = [
    lambda desk: desk.granted("me"),
    lambda desk: desk.queued("next"),
    lambda desk: desk.renew("me", desk.holder("me").fence) == Extended(),
    lambda desk: isinstance(desk.beat("next"), Queued),
    lambda desk: desk.store.heartbeat([Beat(desk.resource, "next", LONG)] * 3),
    lambda desk: desk.bring_back("me", desk.holder("me").fence) == Extended(),
    lambda desk: desk.leave("next") == "waiter",
    lambda desk: desk.leave("me") == "holder",
]


def test_a_server_that_forgets_its_scripts_is_told_them_again(real: Any) -> None:
    desk = Desk(real.open(), "forgotten")
    for call in CALLS:
        with real.server.client() as client:
            client.script_flush()
        assert call(desk)


def test_a_busy_answer_is_no_refusal(server: RefusingServer, manager: Manager) -> None:
    Desk(manager.store, "taken").granted("rival")
    assert isinstance(manager.acquire(hold_of("taken")), Taken)
