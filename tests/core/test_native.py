"""The signals that wake a thread or a greenlet; here nothing is patched."""

from __future__ import annotations

import ctypes
import os
import signal as signals_of_system
import sys
import threading
import time
from typing import Any, Callable, Iterator

import pytest

from celery_redlock.core import unpatched
from celery_redlock.locking import native

SOON = 10.0

signals = pytest.mark.parametrize("make", [native.Signal, native.NappingSignal, native.GreenSignal])
Make = Callable[[], Any]


@signals
def test_a_set_before_the_wait_is_not_lost_and_counts_once(make: Make) -> None:
    signal = make()
    signal.set()
    signal.set()
    assert signal.wait(SOON)
    assert not signal.wait(0.0)


@signals
def test_a_wait_ends_by_itself(make: Make) -> None:
    began = time.monotonic()
    assert not make().wait(0.05)
    assert not make().wait(-1.0)
    assert time.monotonic() - began < SOON


@signals
def test_every_set_of_another_thread_ends_the_wait(make: Make) -> None:
    """Thousands of sets, at any moment of the wait: each is heard, and no wait ends without one."""
    rounds = 2000
    there, back = make(), make()
    unheard = []

    def answer() -> None:
        for number in range(rounds):
            if not there.wait(SOON):
                unheard.append(number)
                return
            back.set()

    answering = threading.Thread(target=answer)
    answering.start()
    for number in range(rounds):
        there.set()
        if not back.wait(SOON):
            unheard.append(number)
            break
    answering.join()
    assert not unheard


class Interrupt(Exception):
    """What ends a body in the middle: a time limit, a revoke."""


@pytest.fixture
def _usr1_interrupts() -> Iterator[None]:
    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupt

    before = signals_of_system.signal(signals_of_system.SIGUSR1, interrupt)
    yield
    signals_of_system.signal(signals_of_system.SIGUSR1, before)


def _give_another_thread_the_signal(_waiting: int) -> None:
    """To Python it is the same as one that comes right before the operating system's wait."""
    signals_of_system.pthread_kill(threading.get_ident(), signals_of_system.SIGUSR1)


def _throw_in(waiting: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(waiting), ctypes.py_object(Interrupt))


@pytest.mark.usefixtures("_usr1_interrupts")
@pytest.mark.parametrize("interrupt", [_give_another_thread_the_signal, _throw_in])
def test_an_interruption_that_wakes_nobody_ends_a_wait_soon(
    interrupt: Callable[[int], None],
) -> None:
    waiting = threading.get_ident()

    def when_it_waits() -> None:
        while sys._current_frames()[waiting].f_code is not native.Signal.wait.__code__:
            time.sleep(0.001)
        interrupt(waiting)

    interrupting = threading.Thread(target=when_it_waits)
    began = time.monotonic()
    interrupting.start()
    with pytest.raises(Interrupt):
        native.waiters_signal().wait(30.0)
    assert time.monotonic() - began < SOON
    interrupting.join()


def test_a_set_at_the_end_of_a_wait_touches_no_file_that_has_taken_its_number() -> None:
    signal = native.GreenSignal()
    done = threading.Event()

    def ring() -> None:
        while not done.is_set():
            signal.set()

    ringing = threading.Thread(target=ring)
    ringing.start()
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            signal.wait(0.0001)
            ear, bell = os.pipe()
            os.set_blocking(ear, False)
            with pytest.raises(BlockingIOError):
                os.read(ear, 1)
            os.close(ear)
            os.close(bell)
    finally:
        done.set()
        ringing.join()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
def test_a_wait_leaves_no_file_open() -> None:
    signal = native.GreenSignal()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        signal.wait(0.0)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_where_nothing_is_patched_the_originals_are_the_standard_librarys() -> None:
    assert not unpatched.is_patched("socket")
    assert unpatched.original("time", "sleep") is time.sleep
    assert isinstance(native.waiters_signal(), native.Signal)


def test_what_interrupts_the_starter_of_a_thread_does_not_hit_the_thread_instead() -> None:
    """Up to Python 3.11 one that does not run yet bears the number of its starter."""
    interval, ran = sys.getswitchinterval(), threading.Event()
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
    sys.setswitchinterval(SOON)  # it does not run before this thread lets it
    try:
        with pytest.raises(InterruptedError):
            start_and_interrupt(ran.set, interrupt)
    finally:
        sys.setswitchinterval(interval)
    assert ran.wait(SOON)


def start_and_interrupt(run: Callable[[], None], interrupt: Any) -> None:
    native.start_thread(run)
    interrupt(ctypes.c_ulong(native.ident()), ctypes.py_object(InterruptedError))
    for _ in range(100_000):
        pass
