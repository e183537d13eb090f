"""A lock server that answers anything is met with NoAnswer, and with nothing else."""

from __future__ import annotations

import ast
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import celery_redlock
from celery_redlock.core import events
from celery_redlock.core.ports import (
    Acquire,
    Beat,
    Busy,
    Closed,
    Confirm,
    Extended,
    Gone,
    Granted,
    HolderView,
    Leave,
    Left,
    Line,
    NoAnswer,
    Queued,
    Reestablish,
    Refused,
    Renew,
    ResourceView,
    Seen,
    Store,
    Terms,
    Unknown,
    WaiterView,
)
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.store.urls import open_store

PREFIX = "test:1:"


class Babbler:
    """A server that answers each request with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                while connection.recv(1 << 16):
                    connection.sendall(self.answer)
        except OSError:
            return


@pytest.fixture(scope="module")
def babbler() -> Iterator[Babbler]:
    babbler = Babbler()
    yield babbler
    babbler.close()


@pytest.fixture
def store(babbler: Babbler) -> Iterator[Store]:
    store = open_store(
        babbler.url, prefix=PREFIX, restart_grace=0, options={"socket_timeout": 0.05}
    )
    yield store
    store.close()


def resp(value: Any) -> bytes:
    """A value as the server writes it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, str):
        return b"-%b\r\n" % value.encode()
    return b"*%d\r\n" % len(value) + b"".join(resp(each) for each in value)


#: Integers as they may come, texts of ours and of others, refusals.
SINGLE = st.one_of(
    st.none(),
    st.integers(-3, 4),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=12),
    st.sampled_from([b"c", b"k", b"f", b"h:x", b"x:x", b"9|1|x|1|c||{}", b"left", b"replaced"]),
    st.sampled_from(
        ["ERR no", "NOSCRIPT no", "NOPERM no", "READONLY no", "MOVED 1 a:1", "WRONGPASS"]
    ),
)
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=6), max_leaves=20)
ANSWERS = st.one_of(VALUES.map(resp), st.lists(SINGLE, max_size=8).map(resp))

#: What no server writes. An answer that never ends costs a timeout each time: a few of them.
BROKEN = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b":x\r\n",
    b"*x\r\n",
    b"$x\r\nabc\r\n",
    b"$99999999999\r\n",
    b"*1\r\n" * 5000,
    b"*2\r\n:1\r\n",
    b"\x00\xff\r\n",
    b"%1\r\n:1\r\n:2\r\n",
    b"cos\nsystem\n(S'exit'\ntR.\r\n",
    b"\x80\x04K\x01.\r\n",
]

ASK = Acquire("a", "token", Terms(), "{}")
WAIT = ASK._replace(line=Line("inbox", 1000, 1000))
CALLS: List[Callable[[Store], Any]] = [
    lambda store: store.acquire(ASK),
    lambda store: store.acquire(WAIT),
    lambda store: store.acquire_all([ASK, WAIT._replace(resource="b")]),
    lambda store: store.leave(Leave("a", ("token",))),
    lambda store: store.renew([Renew("a", "token", 1, 1000), Renew("b", "other", 2, 1000)]),
    lambda store: store.heartbeat([Beat("a", "token", 1000), Beat("b", "other", 1000)]),
    lambda store: store.reestablish(Reestablish("a", "token", 1, Terms(), "{}", True)),
    lambda store: store.inspect("a"),
    lambda store: [part for _, part in zip(range(3), store.survey())],
]


KINDS = (
    *(Granted, Queued, Busy, Closed, Left, Seen, HolderView, WaiterView, ResourceView),
    *(Extended, Gone, Refused, Unknown, Confirm, NoAnswer),
)


def assert_of_the_contract(answer: Any) -> None:
    """An answer of the ports, all of its fields of their types."""
    if isinstance(answer, (list, tuple)) and not hasattr(answer, "_fields"):
        for each in answer:
            assert_of_the_contract(each)
        return
    if isinstance(answer, str):
        return
    assert isinstance(answer, KINDS), answer
    for name, value in getattr(answer, "_asdict", dict)().items():
        if name in ("fence", "seq", "rank", "next_ms", "waiting", "limit", "remaining_ms"):
            assert type(value) is int, (answer, name)
        elif name in ("why", "token", "record", "mode", "state", "what"):
            assert type(value) is str, (answer, name)
        elif name in ("holders", "waiters"):
            assert_of_the_contract(value)


def call(store: Store, what: Callable[[Store], Any]) -> Any:
    try:
        return what(store)
    except NoAnswer as silence:
        return silence


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
def test_an_answer_is_of_the_contract_or_none(
    babbler: Babbler, store: Store, answer: bytes
) -> None:
    babbler.answer = answer
    for what in CALLS:
        assert_of_the_contract(call(store, what))


@pytest.mark.parametrize("answer", BROKEN)
def test_what_is_no_answer_at_all_is_none(babbler: Babbler, store: Store, answer: bytes) -> None:
    babbler.answer = answer
    for what in CALLS:
        told = call(store, what)
        parts = told if isinstance(told, list) else [told]
        assert {type(part) for part in parts} == {NoAnswer}, parts


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_with_another_number_of_answers_answers_nobody(
    babbler: Babbler, store: Store, count: int
) -> None:
    babbler.answer = resp([1] * count)
    assert all(isinstance(each, NoAnswer) for each in call(store, CALLS[4]))
    babbler.answer = resp([[1]] * count)
    assert all(isinstance(each, NoAnswer) for each in call(store, CALLS[5]))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
def test_a_connection_that_learns_of_its_server_learns_from_any_answer(
    babbler: Babbler, answer: bytes
) -> None:
    babbler.answer = answer
    options = {"socket_timeout": 0.05}
    store = open_store(babbler.url, prefix=PREFIX, restart_grace=2.0, options=options)
    assert_of_the_contract(call(store, CALLS[0]))
    store.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
def test_an_inbox_hears_a_text_nothing_or_no_answer(
    babbler: Babbler, store: Store, answer: bytes
) -> None:
    babbler.answer = answer
    try:
        subscription = store.subscribe("inbox")
    except NoAnswer:
        return
    try:
        heard = subscription.get(0.001)
    except NoAnswer:
        heard = None
    finally:
        subscription.close()
    assert heard is None or isinstance(heard, str)


@pytest.mark.parametrize("answer", [*BROKEN[:4], resp([]), resp([7, b"x"]), resp([1, b"\xff"])])
def test_a_manager_ends_its_hold_whatever_it_is_told(
    babbler: Babbler, store: Store, answer: bytes
) -> None:
    told: List[Any] = []
    manager = Manager(store, told.append)
    hold = Hold("a", Terms(), Record("here", 1, 0.0))
    babbler.answer = answer
    with pytest.raises(NoAnswer):
        manager.acquire(hold)
    manager.release(hold)
    manager.watchdog.round()
    manager.stop()
    assert not [event for event in told if isinstance(event, events.WatchdogFailed)]


def test_nothing_is_unpickled_or_evaluated() -> None:
    """By the source: whatever a server says is data."""
    forbidden_modules = {"pickle", "marshal", "shelve", "dill", "yaml", "code", "runpy"}
    for path in Path(celery_redlock.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert forbidden_modules.isdisjoint(name.name for name in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in forbidden_modules, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path
