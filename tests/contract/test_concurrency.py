"""Many at once: threads, forked children, servers that pause, die and forget their scripts."""

from __future__ import annotations

import os
import threading
from typing import Callable, Iterator, List

import pytest

from celery_redlock.core.ports import Granted, NoAnswer, Store
from celery_redlock.store.urls import open_store
from tests.contract.conftest import PREFIX, SERVERS, Backend
from tests.contract.desk import Desk, said, until
from tests.harness.servers import LockServer


def test_of_many_threads_one_is_granted(store: Store) -> None:
    start, answers = threading.Barrier(16), []

    def ask(number: int) -> None:
        start.wait(10)
        answers.append(Desk(store).ask(f"t{number}", wait=False))

    _in_threads(ask, 16)
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert len(answers) == 16


def test_of_many_threads_as_many_as_the_limit_are_granted(store: Store) -> None:
    answers = []
    _in_threads(lambda n: answers.append(Desk(store).ask(f"t{n}", limit=3)), 16)
    assert sum(isinstance(answer, Granted) for answer in answers) == 3
    assert sorted(waiter.token for waiter in Desk(store).view().waiters) == sorted(
        {f"t{number}" for number in range(16)} - set(Desk(store).live())
    )


def test_a_line_of_many_threads_is_served_to_the_last_by_releases_alone(store: Store) -> None:
    inside: List[int] = []
    most_inside: List[int] = []

    def work(number: int) -> None:
        desk, token = Desk(store), f"t{number}"
        inbox = store.subscribe(token)
        if not isinstance(desk.ask(token, inbox=token), Granted):
            heard = said(inbox.get(10))
            assert heard in (f"H {token}", f"G {token}")
            if heard == f"H {token}":
                assert said(inbox.get(10)) == f"G {token}"
            desk.granted(token, inbox=token)
        inside.append(number)
        most_inside.append(len(inside))
        inside.remove(number)
        desk.leave(token)
        inbox.close()

    _in_threads(work, 12)
    assert most_inside == [1] * 12
    assert Desk(store).view().holders == Desk(store).view().waiters == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_both_sides_go_on(store: Store) -> None:
    desk = Desk(store)
    desk.granted("parent")
    pid = os.fork()
    if pid == 0:
        failed = 1
        try:
            before = desk.live()
            Desk(store, "child's").granted("child")
            failed = 0 if before == ["parent"] else 1
        finally:
            os._exit(failed)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert desk.leave("parent") == "holder"


# --- servers only -------------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[LockServer]:
    """A server of its own: these tests hurt it."""
    with LockServer.start(request.param) as server:
        yield server


@pytest.fixture
def impatient(server: LockServer) -> Iterator[Store]:
    """A store that waits 0.3 s for an answer."""
    options = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    store = open_store(server.url, prefix=PREFIX, options=options, restart_grace=0)
    yield store
    store.close()


def test_a_server_over_a_unix_socket_is_the_same() -> None:
    with LockServer.start("redis", unix=True) as server:
        store = open_store(server.url, prefix=PREFIX, restart_grace=0)
        desk = Desk(store)
        desk.granted("a")
        desk.queued("b")
        desk.leave("a")
        assert desk.live() == ["b"]
        store.close()


def test_without_an_answer_a_copy_may_run_and_does_no_harm(
    server: LockServer, impatient: Store
) -> None:
    desk = Desk(impatient)
    desk.granted("warm up")
    desk.leave("warm up")
    server.pause()
    with pytest.raises(NoAnswer) as failure:
        desk.ask("a")
    assert failure.value.may_run
    server.resume()
    until(lambda: desk.live() == ["a"], "the copy runs")
    assert desk.granted("a") == desk.holder("a").fence
    assert desk.leave("a", tomb_ms=10_000) == "holder"


def test_an_answer_that_came_too_late_is_never_anothers(
    server: LockServer, impatient: Store
) -> None:
    desk = Desk(impatient)
    fence = desk.granted("a")
    server.pause()
    for _ in range(3):
        with pytest.raises(NoAnswer):
            desk.view()
    server.resume()
    for _ in range(20):
        assert desk.granted("a") == fence


def test_a_server_that_is_not_there_ran_nothing(server: LockServer, impatient: Store) -> None:
    server.kill()
    with pytest.raises(NoAnswer) as failure:
        Desk(impatient).ask("a")
    assert not failure.value.may_run
    server.restart()
    Desk(impatient).granted("a")


def test_a_connection_that_broke_is_replaced(server: LockServer, impatient: Store) -> None:
    desk = Desk(impatient)
    desk.granted("a")
    server.restart()
    with pytest.raises(NoAnswer):
        desk.view()
    assert desk.view().holders == ()


def test_scripts_that_a_server_forgot_are_loaded_again(
    server: LockServer, impatient: Store
) -> None:
    desk = Desk(impatient)
    desk.granted("a")
    desk.queued("b")
    with server.client() as client:
        client.script_flush()
    desk.leave("a")
    desk.granted("b")


def test_a_batch_without_an_answer_says_so_in_its_places(
    server: LockServer, impatient: Store
) -> None:
    desk = Desk(impatient)
    fence = desk.granted("a")
    server.pause()
    renewed, beaten = desk.renew("a", fence), desk.beat("b")
    server.resume()
    assert isinstance(renewed, NoAnswer)
    assert isinstance(beaten, NoAnswer)


def test_a_listener_learns_that_its_connection_broke(server: LockServer, impatient: Store) -> None:
    inbox = impatient.subscribe("in")
    assert inbox.get(0.01) is None
    assert server.cut_pubsub() == 1
    with pytest.raises(NoAnswer):
        inbox.get(5)
    inbox.close()
    again = impatient.subscribe("in")
    desk = Desk(impatient)
    desk.granted("a")
    desk.queued("b")
    desk.leave("a")
    assert said(again.get(5)) == "G b"
    again.close()


def test_a_cycle_without_rivals_is_two_calls(real: Backend) -> None:
    desk = Desk(real.open())
    desk.granted("warm up")
    desk.leave("warm up")
    assert real.server is not None
    real.server.reset_stats()
    desk.granted("a")
    desk.leave("a")
    assert real.server.calls("evalsha") == 2


def _in_threads(work: Callable[[int], object], count: int) -> None:
    failures: List[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
