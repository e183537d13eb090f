"""Whom an interruption reaches, decided moment by moment in this process."""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from celery_redlock import LockLost, LockUnsure
from celery_redlock.core.lifecycle import Move
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.integration import raising
from celery_redlock.integration.interruption import Body, interrupter, interruptible
from celery_redlock.locking.hold import Hold

SOON = 20.0

#: Bodies whose ends race their interruptions.
RACES = 1000


def held(resource: str = "r", *moves: Move) -> Hold:
    hold = Hold(resource, Terms(), Record("here", os.getpid(), 0.0))
    hold.move(Move.ASKED)
    hold.granted(7, 0.0, 0.0)
    for move in moves:
        hold.move(move)
    return hold


def lose(hold: Hold) -> None:
    """As the watchdog does."""
    hold.watched(Move.GRANTED_TO_ANOTHER)
    interrupter.interrupt(hold)


def run(hold: Hold, body: Callable[[], Any], on_lost: str = "cancel") -> Any:
    return interruptible([hold], on_lost, in_worker=True, run=body)


def work(seconds: float = SOON) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.0001)
    return "done"


def in_thread(job: Callable[[], Any]) -> Any:
    """What it returns or raises in a thread of its own."""
    outcome: List[Any] = []

    def catch() -> None:
        try:
            outcome.append(job())
        except BaseException as error:  # noqa: BLE001 - handed over as it is
            outcome.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    thread.join(SOON)
    return outcome[0]


@pytest.fixture(params=["main thread", "other thread"])
def somewhere(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Runs a job where bodies run, and gives what it returned or raised."""
    before = signal.getsignal(signal.SIGURG)

    def here(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except BaseException as error:  # noqa: BLE001 - handed over as it is
            return error

    yield here if request.param == "main thread" else in_thread
    signal.signal(signal.SIGURG, before)


Somewhere = Callable[[Callable[[], Any]], Any]


def test_what_is_raised_is_the_error_itself(somewhere: Somewhere) -> None:
    hold, seen = held(), []

    def body() -> None:
        try:
            work()
        except LockLost as error:
            seen.append((error.resource, error.fence, type(error).__name__))
            raise

    timer = threading.Timer(0.05, lose, [hold])
    timer.start()
    error = somewhere(lambda: run(hold, body))
    timer.join()
    assert seen == [("r", 7, "LockLost")]
    assert type(error) is LockLost
    assert error.args == ("r", 7)
    assert error.__cause__ is None
    assert type(pickle.loads(pickle.dumps(error))) is LockLost


def test_what_a_body_finds_can_be_sent_elsewhere_from_within_it(somewhere: Somewhere) -> None:
    """By an eager task in it for instance, which stores its error."""
    hold = held()

    def body() -> Any:
        try:
            return work()
        except LockLost as error:
            return pickle.loads(pickle.dumps(error))

    timer = threading.Timer(0.05, lose, [hold])
    timer.start()
    copy = somewhere(lambda: run(hold, body))
    timer.join()
    assert type(copy) is LockLost
    assert copy.args == ("r", 7)


def test_a_sleep_of_the_main_thread_is_broken() -> None:
    hold = held()
    timer = threading.Timer(0.05, lose, [hold])
    timer.start()
    began = time.monotonic()
    with pytest.raises(LockLost):
        run(hold, lambda: time.sleep(SOON))
    assert time.monotonic() - began < SOON / 2
    timer.join()


def test_a_loss_that_is_told_after_the_body_reaches_nobody(somewhere: Somewhere) -> None:
    def job() -> str:
        hold = held()
        body = Body([hold], "cancel", in_worker=True)
        interrupter.begin(body)
        interrupter.end(body)
        teller = threading.Thread(target=lose, args=[hold])
        teller.start()
        teller.join()
        return work(0.05)

    assert somewhere(job) == "done"


def test_a_body_is_interrupted_once(somewhere: Somewhere) -> None:
    hold, other = held("r"), held("other")

    def body() -> str:
        try:
            work()
        except LockLost:
            teller = threading.Thread(target=lose, args=[other])
            teller.start()
            teller.join()
        return work(0.05)

    timer = threading.Timer(0.05, lose, [hold])
    timer.start()
    outcome = somewhere(lambda: interruptible([hold, other], "cancel", True, body))
    timer.join()
    assert outcome == "done"


def test_a_body_whose_lock_was_lost_before_it_began_does_not_begin() -> None:
    began: List[bool] = []
    with pytest.raises(LockLost):
        run(held("r", Move.GRANTED_TO_ANOTHER), lambda: began.append(True))
    assert began == []


@pytest.mark.parametrize(
    ("on_lost", "expected"), [("cancel", "done"), ("cancel_unsure", LockUnsure)]
)
def test_a_doubt_interrupts_only_who_asked_for_that(
    somewhere: Somewhere, on_lost: str, expected: Any
) -> None:
    hold = held("r", Move.RENEWAL_FAILED, Move.TRUST_OVER)
    timer = threading.Timer(0.02, interrupter.interrupt, [hold])
    timer.start()
    outcome = somewhere(lambda: run(hold, lambda: work(0.2), on_lost))
    timer.join()
    assert outcome == expected or type(outcome) is expected


def test_bodies_whose_ends_race_their_losses_leave_nothing_behind(somewhere: Somewhere) -> None:
    """What comes after a body is never interrupted, however close the two are."""
    ended, interrupted = [], []

    def lose_soon(hold: Hold) -> None:
        time.sleep(0.0004 * random.random())
        lose(hold)

    def job() -> None:
        for _ in range(RACES):
            hold = held()
            teller = threading.Thread(target=lose_soon, args=[hold])
            teller.start()
            try:
                ended.append(run(hold, lambda: work(0.0002)))
            except LockLost as error:
                interrupted.append(error)
            teller.join()

    assert somewhere(job) is None
    assert len(ended) + len(interrupted) == RACES
    assert ended
    assert interrupted
    assert interrupter._bodies == {}
    assert not raising._due


def test_the_signal_of_nobody_is_ignored() -> None:
    before = signal.getsignal(signal.SIGURG)
    try:
        Body([held()], "cancel", in_worker=True)
        assert signal.getsignal(signal.SIGURG) is raising._on_signal
        os.kill(os.getpid(), signal.SIGURG)
        assert work(0.02) == "done"
    finally:
        signal.signal(signal.SIGURG, before)


def test_a_handler_of_the_projects_own_is_left_alone() -> None:
    """A body is interrupted all the same, once the call into C that it is in returns."""
    caught: List[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: caught.append(number))
    try:
        hold = held()
        timer = threading.Timer(0.05, lose, [hold])
        timer.start()
        with pytest.raises(LockLost):
            run(hold, work)
        timer.join()
        assert caught == []
    finally:
        signal.signal(signal.SIGURG, before)


def test_a_program_that_is_no_worker_keeps_its_signals() -> None:
    before = signal.getsignal(signal.SIGURG)
    Body([held()], "cancel", in_worker=False)
    assert signal.getsignal(signal.SIGURG) is before


def test_a_forked_child_has_nothing_to_interrupt() -> None:
    hold = held()
    body = Body([hold], "cancel", in_worker=False)
    interrupter.begin(body)
    child = os.fork()
    if child == 0:
        os._exit(len(interrupter._bodies))
    assert os.waitpid(child, 0)[1] == 0
    assert interrupter._bodies
    interrupter.end(body)
