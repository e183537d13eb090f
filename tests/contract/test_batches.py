"""Many asks, or many releases, in one batch: each is answered as if it were the only one."""

from __future__ import annotations

from typing import Any, List

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Busy,
    Granted,
    Leave,
    Left,
    NoAnswer,
    Store,
    Terms,
)
from celery_redlock.store.urls import open_store
from tests.contract.conftest import PREFIX, Backend
from tests.contract.desk import LONG
from tests.harness.proxy import Proxy


def _ask(resource: str, token: str) -> Acquire:
    return Acquire(resource, token, Terms(lease_ms=LONG), f"record of {token}")


def _kinds(answers: Any) -> List[Any]:
    return [
        type(each) if isinstance(each, NoAnswer) else [type(answer) for answer in each]
        for each in answers
    ]


def test_each_ask_of_a_batch_has_its_own_answer(store: Store) -> None:
    store.acquire(_ask("taken", "other"))
    answers = store.acquire_batch(
        [
            [_ask("a", "1")],
            [_ask("taken", "2")],
            [_ask("b", "3"), _ask("c", "3")],
            [_ask("d", "4"), _ask("taken", "4")],
        ]
    )
    assert _kinds(answers) == [[Granted], [Busy], [Granted, Granted], [Granted, Busy]]
    assert store.inspect("d").holders == ()


def test_each_release_of_a_batch_has_its_own_answer(store: Store) -> None:
    store.acquire(_ask("a", "1"))
    store.acquire(_ask("b", "1"))
    requests = [Leave("b", ("1",)), Leave("b", ("1",)), Leave("a", ("1",), tomb_ms=LONG)]
    assert store.leave_batch(requests) == [Left("holder"), Left("absent"), Left("holder")]
    assert store.acquire_batch([]) == []
    assert store.leave_batch([]) == []


def test_what_the_server_refuses_skips_nobody_else(real: Backend) -> None:
    store = real.open()
    assert real.server is not None
    real.server.client().set(f"{PREFIX}{{broken}}:h", "not a hash")
    asks = [[_ask(name, "1")] for name in ("a", "broken", "b")]
    assert _kinds(store.acquire_batch(asks)) == [[Granted], NoAnswer, [Granted]]
    requests = [Leave(name, ("1",)) for name in ("a", "broken", "b")]
    left = store.leave_batch(requests)
    assert [type(each) for each in left] == [Left, NoAnswer, Left]
    assert _first(store.acquire_batch([[_ask("a", "2")]])) == Granted


def test_a_server_that_forgot_its_scripts_answers_the_whole_batch(real: Backend) -> None:
    store = real.open()
    assert real.server is not None
    real.server.client().script_flush()
    asks = [[_ask("a", "1")], [_ask("b", "2"), _ask("c", "2")], [_ask("d", "3")]]
    assert _kinds(store.acquire_batch(asks)) == [[Granted], [Granted, Granted], [Granted]]


def test_what_a_broken_connection_did_not_answer_may_have_run(real: Backend) -> None:
    assert real.server is not None
    names = [f"r{number}" for number in range(5)]
    with Proxy(real.server.url) as proxy:
        store = open_store(proxy.url, prefix=PREFIX, restart_grace=0.0)
        store.acquire(_ask("warm", "up"))
        proxy.cut("acquire", "half")
        answers = store.acquire_batch([[_ask(name, "1")] for name in names])
        silent = [each for each in answers if isinstance(each, NoAnswer)]
        assert silent
        assert all(each.may_run for each in silent)
        assert len(answers) == len(names)
        again = store.acquire_batch([[_ask(name, "1")] for name in names])
        assert _kinds(again) == [[Granted]] * len(names)


def test_a_server_that_is_away_has_seen_nothing_of_the_batch(real: Backend) -> None:
    assert real.server is not None
    with Proxy(real.server.url) as proxy:
        url = proxy.url
    store = open_store(url, prefix=PREFIX, restart_grace=0.0)
    (answer,) = store.acquire_batch([[_ask("a", "1")]])
    assert isinstance(answer, NoAnswer)
    assert not answer.may_run


def _first(answers: Any) -> type:
    answer: AcquireAnswer = answers[0][0]
    return type(answer)
