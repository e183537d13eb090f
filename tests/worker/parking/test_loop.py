"""From any thread into kombu's own loop, which forgets things, and into a greenlet."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from typing import Callable, Iterator, List, Tuple

import pytest
from kombu.asynchronous import Hub

from celery_redlock.integration.parking.loop import HubLoop, Loop
from tests.harness.pools import GREEN
from tests.harness.worker import ROOT
from tests.worker.parking.conftest import needed

WITHIN = 10.0


class Running:
    """A hub that runs in a thread, as in a worker; ``reconnect`` is what a lost connection does."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.loop = HubLoop()
        self._is_over = False
        self._reconnects = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        # As any worker's, it has something to poll.
        self.loop.register(self.hub)
        while not self._is_over:
            if self._reconnects.is_set():
                self.hub.reset()
                self.hub.timer.clear()
                self.loop.register(self.hub)
                self._reconnects.clear()
            self.hub.run_once()

    def reconnect(self) -> None:
        self._reconnects.set()
        deadline = time.monotonic() + WITHIN
        while self._reconnects.is_set():
            self.loop.call(lambda: None)
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        self._is_over = True
        self.loop.call(lambda: None)
        self._thread.join(WITHIN)
        self.loop.close()
        self.hub.close()


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def _done(loop: Loop) -> None:
    """Wait until all is done that was called before."""
    done = threading.Event()
    loop.call(done.set)
    assert done.wait(WITHIN)


def test_calls_come_in_order_and_in_the_loop(running: Running) -> None:
    came: List[Tuple[int, int]] = []
    for number in range(2000):
        running.loop.call(lambda number=number: came.append((number, threading.get_ident())))
    _done(running.loop)
    assert [number for number, _ in came] == list(range(2000))
    assert len({thread for _, thread in came}) == 1
    assert came[0][1] != threading.get_ident()


def test_a_call_wakes_an_idle_loop(running: Running) -> None:
    """Unwoken it sleeps for a second: of 20 calls some would come as late as that."""
    began = time.monotonic()
    for _ in range(20):
        _done(running.loop)
    assert time.monotonic() - began < 5


def test_what_the_loop_calls_for_itself_runs_before_it_polls_again(running: Running) -> None:
    """Unwoken: a second of sleep would show."""
    done = threading.Event()
    ear, bell = socket.socketpair()

    def heard() -> None:
        ear.recv(1)
        running.loop.call_next(done.set)

    running.loop.call(lambda: running.hub.add_reader(ear, heard))
    _done(running.loop)
    began = time.monotonic()
    for _ in range(10):
        done.clear()
        bell.send(b"!")
        assert done.wait(WITHIN)
    assert time.monotonic() - began < 5
    running.loop.call(lambda: running.hub.remove_reader(ear))
    _done(running.loop)
    ear.close()
    bell.close()


def test_what_is_to_be_hurried_runs_at_once_and_not_within_another_call() -> None:
    loop, came = HubLoop(), []  # type: ignore[var-annotated]

    def outer() -> None:
        loop.call(came.append, "inner")
        loop.hurry()
        came.append("outer")

    hub = Hub()
    loop.register(hub)
    loop.call(outer)
    loop.hurry()
    assert came == ["outer", "inner"]
    loop.call(lambda: loop.later(60.0, lambda: None))
    loop.hurry()
    assert [entry for _, _, entry in hub.timer.queue], "an alarm that it set has a timer"
    loop.close()
    hub.close()


def test_the_hub_turns_again_before_it_sleeps_for_what_is_called_right_before() -> None:
    hub, loop = Hub(), HubLoop()
    turns: List[float] = []
    try:
        loop.register(hub)
        loop.call_next(loop.turn_again)
        hub.on_tick.add(lambda: turns.append(time.monotonic()))
        hub.run_once()
        hub.run_once()
    finally:
        loop.close()
        hub.close()
    # Without a timer it sleeps for a second.
    assert turns[1] - turns[0] < 0.5


def test_what_a_call_calls_for_follows_in_its_turn_and_others_have_theirs() -> None:
    loop, came = Loop(), []  # type: ignore[var-annotated]
    wakes: List[int] = []
    loop._wake = lambda: wakes.append(len(came))  # type: ignore[method-assign]

    def call_on() -> None:
        came.append(len(came))
        loop.call(call_on)

    loop.call(call_on)
    loop.drain()
    # One wake-up for the first; one for what is left when the hub has others to serve.
    assert wakes == [0, len(came)]
    assert len(came) > 100


def test_a_call_that_raises_harms_no_other(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        running.loop.call(lambda: 1 / 0)
        _done(running.loop)
    assert "ZeroDivisionError" in caplog.text


def test_alarms_ring_in_time_and_not_when_cancelled(running: Running) -> None:
    rang: List[str] = []
    over = threading.Event()
    cancelled = running.loop.later(0.1, lambda: rang.append("cancelled"))
    running.loop.later(0.3, over.set)
    running.loop.later(0.2, lambda: rang.append("second"))
    running.loop.later(0.1, lambda: rang.append("first"))
    running.loop.call(cancelled.cancel)
    assert over.wait(WITHIN)
    assert rang == ["first", "second"]


def test_calls_and_alarms_survive_a_lost_connection(running: Running) -> None:
    rang = threading.Event()
    running.loop.later(0.2, rang.set)
    _done(running.loop)
    running.reconnect()
    _done(running.loop)
    assert rang.wait(WITHIN)


def test_a_closed_loop_hears_nothing_and_harms_nobody() -> None:
    running = Running()
    running.close()
    heard: List[Callable[[], None]] = []
    running.loop.call(lambda: heard.append(heard.clear))
    assert heard == []


def test_a_closed_loop_leaves_neither_files_nor_timers_to_its_hub() -> None:
    """The hub of a worker in somebody's process goes on, with the worker after it."""
    hub, loop = Hub(), HubLoop()
    loop.register(hub)
    loop.later(60.0, lambda: None)
    loop._hear()
    timers = [entry for _, _, entry in hub.timer.queue]
    assert timers
    loop.close()
    assert not hub.readers
    assert all(timer.canceled for timer in timers)
    assert loop._ear.fileno() == loop._bell.fileno() == -1
    hub.close()


PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

GREENLET = """
import threading, time
from celery_redlock.integration.parking.loop import GreenLoop
from celery_redlock.locking import native

loop, came = GreenLoop(), []
loop.later(0.2, lambda: came.append("alarm"))
loop.call(came.append, "own")
native.start_thread(lambda: loop.call(came.append, "thread's"))
deadline = time.monotonic() + 10
while len(came) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
assert sorted(came[:2]) == ["own", "thread's"], came
assert came[2:] == ["alarm"], came
loop.close()
print("heard")
"""


@pytest.mark.parametrize("pool", GREEN)
def test_a_greenlet_hears_greenlets_and_threads(pool: str) -> None:
    program = PATCH[needed(pool)] + GREENLET
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "heard", ended.stderr
