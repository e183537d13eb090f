"""Threads, mutexes and signals of the operating system, also where gevent or eventlet patched them.

The watchdog must run while a body computes without yielding, so it and all that it shares with
others is made from the unpatched modules. Only who waits for a lock in a greenlet waits as a
greenlet does: the others of its thread go on meanwhile, the lock's holder perhaps among them.
"""

from __future__ import annotations

import os
import select
from typing import Any, Callable, Optional, Set, Union

from celery_redlock.core import unpatched

#: A mutex, used with ``with`` around a few assignments and never around I/O or a wait.
mutex: Callable[[], Any] = unpatched.original("_thread", "allocate_lock")

#: Sleeps the thread that calls it, and all of its greenlets.
sleep: Callable[[float], None] = unpatched.original("time", "sleep")

#: The thread of the operating system that runs here, whatever greenlet it runs.
ident: Callable[[], int] = unpatched.original("_thread", "get_ident")

_start: Callable[..., Any] = unpatched.original("_thread", "start_new_thread")
_write: Callable[[int, bytes], int] = unpatched.original("os", "write")

_background: Set[int] = set()

#: Seconds that a thread may take to begin.
_BEGINS = 1.0

#: The longest single wait in seconds.
_LONGEST = 86400.0

#: Seconds until an interruption is noticed that has not ended a wait.
_NAP = 0.5


def start_thread(run: Callable[[], None]) -> None:
    """Start a daemon thread; it is not known to ``threading`` and never joined at exit.

    Returns when it runs. Up to Python 3.11 one that does not run yet bears the number of its
    starter: what interrupts a body just then would end the thread instead.
    """
    runs = mutex()
    runs.acquire()

    def in_background() -> None:
        runs.release()
        _background.add(ident())
        run()
        _background.discard(ident())

    _start(in_background, ())
    runs.acquire(timeout=_BEGINS)


def is_background() -> bool:
    """Whether this runs in a thread that ``start_thread`` has started."""
    return ident() in _background


class Signal:
    """Wakes one thread. Setting it never blocks; waiting consumes it.

    A set that comes before the wait is not lost: the next wait returns at once.
    """

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = mutex()
        self._closed.acquire()

    def set(self) -> None:
        try:
            self._closed.release()
        except RuntimeError:
            return  # set already

    def wait(self, timeout: float) -> bool:
        """Whether it was set within ``timeout`` seconds; clears it."""
        taken: bool = self._closed.acquire(timeout=min(max(timeout, 0.0), _LONGEST))
        return taken


class NappingSignal(Signal):
    """Wakes a thread that may be interrupted; otherwise as Signal.

    Python runs a handler, and raises what another thread throws in, when the thread concerned is
    at a bytecode. A signal that comes after its last look and before the operating system's wait,
    or that another thread was given, ends no wait: a task revoked just then would stand in line
    until it asks by itself. So it sleeps in naps.
    """

    __slots__ = ()

    def wait(self, timeout: float) -> bool:
        while timeout > _NAP:
            if super().wait(_NAP):
                return True
            timeout -= _NAP
        return super().wait(timeout)


class GreenSignal:
    """Wakes one greenlet, from any thread; otherwise as Signal.

    The waiter sleeps in the patched ``select``, on a pipe that exists while it waits.
    """

    __slots__ = ("_bell", "_is_set", "_mutex")

    def __init__(self) -> None:
        self._mutex = mutex()
        self._is_set = False
        self._bell: Optional[int] = None

    def set(self) -> None:
        with self._mutex:
            if not self._is_set and self._bell is not None:
                _write(self._bell, b"!")
            self._is_set = True

    def wait(self, timeout: float) -> bool:
        """Whether it was set within ``timeout`` seconds; clears it."""
        if not self._is_set:
            self._listen(min(max(timeout, 0.0), _LONGEST))
        with self._mutex:
            was_set, self._is_set = self._is_set, False
        return was_set

    def _listen(self, timeout: float) -> None:
        ear, bell = os.pipe()
        try:
            with self._mutex:
                self._bell = bell
                is_set = self._is_set
            if not is_set:
                _await_readable(ear, timeout)
        finally:
            with self._mutex:
                self._bell = None
            os.close(ear)
            os.close(bell)


def _await_readable(descriptor: int, timeout: float) -> None:
    """Sleep as a greenlet does. Not in ``select`` if it can be helped: it takes no number from 1024
    on, which a worker of many greenlets soon has. Eventlet takes ``poll`` away and has none such.
    """
    if not hasattr(select, "poll"):
        select.select([descriptor], (), (), timeout)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(timeout * 1000)


AnySignal = Union[Signal, GreenSignal]


def waiters_signal() -> AnySignal:
    """What wakes the waiter of a lock: its greenlet where those are in use, else its thread."""
    return GreenSignal() if unpatched.is_patched("select") else NappingSignal()
