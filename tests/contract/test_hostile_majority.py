"""Independent servers that answer anything where a vote, a release or a renewal is asked for."""

from __future__ import annotations

import socket
import time
from typing import Any, Iterator, List

import pytest

from celery_redlock.core.ports import (
    Acquire,
    Beat,
    Leave,
    Line,
    Renew,
    Store,
    Terms,
)
from celery_redlock.store.several import open_several
from tests.contract.test_hostile_answers import Babbler, assert_of_the_contract, call, resp

INFO = b"# Server\r\nuptime_in_seconds:86400\r\n"
SHA = b"0" * 40


class Counterfeit(Babbler):
    """It says of itself what a server does, and to each script the same bytes."""

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                while True:
                    connection.sendall(self._reply(_request(lines)))
        except (OSError, ValueError):
            return

    def _reply(self, request: List[bytes]) -> bytes:
        what = request[0].upper()
        if what == b"INFO":
            return resp(INFO)
        if what == b"TIME":
            return resp([str(int(time.time())).encode(), b"0"])
        if what == b"CONFIG":
            return resp([request[2], b"no"])
        if what in (b"SCRIPT", b"CLIENT", b"SELECT"):
            return resp(SHA)
        return self.answer


def _request(lines: Any) -> List[bytes]:
    """The next command of a client; ValueError at the end."""
    count = int(lines.readline()[1:])
    return [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(count)]


@pytest.fixture(scope="module")
def counterfeits() -> Iterator[List[Counterfeit]]:
    servers = [Counterfeit() for _ in range(3)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def store(counterfeits: List[Counterfeit]) -> Iterator[Store]:
    urls = [server.url for server in counterfeits]
    store = open_several(urls, prefix="test:1:", options={"socket_timeout": 0.05})
    yield store
    store.close()


LINE = Line("in", 1000, 1000)


@pytest.mark.parametrize(
    "answer",
    [
        *(resp(each) for each in (0, 1, 7, -1, None, b"", b"x", [], [0], [1], [2], [3], [-1])),
        *(resp([1, each]) for each in (b"x", None, [], -1)),
        *(resp([2, 5, each]) for each in (b"x", None, [])),
        *(resp([[each]]) for each in (0, 1, None, b"\xff")),
        *(resp(each) for each in ([1, 2, 3], [None], [b"\xff"], [-1, None], [-1, 7], "ERR no")),
        b"?\r\n",
    ],
    ids=repr,
)
def test_whatever_scripts_answer_is_of_the_contract_or_none(
    counterfeits: List[Counterfeit], store: Store, answer: bytes
) -> None:
    for server in counterfeits:
        server.answer = answer
    for line in (None, LINE):
        ask = Acquire("r", "t", Terms(), "{}", line)
        assert_of_the_contract(call(store, lambda store, ask=ask: store.acquire(ask)))
    assert_of_the_contract(call(store, lambda store: store.leave(Leave("r", ("t",)))))
    for told in store.renew([Renew("r", "t", 7, 1000)]):
        assert_of_the_contract(told)
    for told in store.heartbeat([Beat("r", "t", 1000)]):
        assert_of_the_contract(told)
