"""Connections are kept for as long as they are of use."""

from __future__ import annotations

from typing import Iterator

import pytest
from redis import Connection

from celery_redlock.store import connections as module
from celery_redlock.store.connections import Connections
from tests.contract.desk import until
from tests.harness.servers import LockServer

AT_ONCE = 5


@pytest.fixture
def connections() -> Iterator[Connections]:
    with LockServer.start() as server:
        port = server.client().connection_pool.connection_kwargs["port"]
        connections = Connections(lambda: Connection(port=port), "the server")
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
