"""Connections are kept for as long as they are of use."""

from __future__ import annotations

from typing import Iterator

import pytest
from redis import Connection

from celery_redlock.store import connections as module
from celery_redlock.store import link as link_module
from celery_redlock.store.connections import Connections
from celery_redlock.store.scripts import Script, command
from tests.contract.desk import until
from tests.harness.servers import LockServer

AT_ONCE = 5


#: It adds one to a number.
COUNT = command("INCR", "count")


@pytest.fixture
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture
def connections(server: LockServer) -> Iterator[Connections]:
    connections = Connections(lambda: Connection(port=server.port), "the server")
    yield connections
    connections.close()


def use(connections: Connections, at_once: int) -> int:
    """Ask so many things at the same time; how many connections are kept."""
    posted = [connections.post([lambda _grace: b"*1\r\n$4\r\nPING\r\n"]) for _ in range(at_once)]
    for each in posted:
        assert connections.collect(each) == [b"PONG"]
    return len(connections._idle)


def test_those_that_many_needed_at_once_are_closed_when_fewer_do(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SURPLUS", 0.1)
    assert use(connections, AT_ONCE) == AT_ONCE
    until(lambda: use(connections, 2) == 2, "those that nobody needs are closed")


def test_the_answers_that_nobody_waits_for_are_nobody_elses(connections: Connections) -> None:
    (which,) = connections.read([command("CLIENT", "ID")])
    for _ in range(3):
        connections.tell(Script("renew"), lambda _grace: COUNT)
    assert connections.read([COUNT, command("CLIENT", "ID")]) == [4, which]


def test_a_connection_with_such_answers_is_used_again_when_it_has_been_idle(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LOOK_AFTER", 0.0)
    (which,) = connections.read([command("CLIENT", "ID")])
    connections.tell(Script("renew"), lambda _grace: COUNT)
    until(lambda: connections._idle[0].connection.can_read(0), "the answers are there")
    assert connections.read([COUNT, command("CLIENT", "ID")]) == [2, which]


def test_nobody_hears_of_what_could_not_be_told(
    server: LockServer, connections: Connections
) -> None:
    assert connections.read([COUNT]) == [1]
    server.kill()
    for _ in range(3):
        connections.tell(Script("renew"), lambda _grace: COUNT)
