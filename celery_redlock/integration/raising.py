"""Raising an error in a body from outside of it: by a signal, in a thread, or in a greenlet.

The main thread is reached by a signal, which breaks a sleep, a wait for a socket and a computation
alike. Any other thread is told by the interpreter once the call into C that it is in returns, a
greenlet when it yields.

Every way has a moment between the decision to raise and the raising. What may still be raised is
known by the target: the two ways that come back into Python look at ``is_running`` once more right
before they raise, the third is withdrawn by whoever ends the body.

The signal is SIGURG: nobody else uses it, and whoever gets one and has no handler ignores it. One
that comes late, to an idle child, does nothing, and soft time limits (SIGUSR1) stay what they are.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from functools import lru_cache
from importlib import import_module
from typing import Any, Callable, Deque, Optional, Type

from celery_redlock.core.unpatched import has_greenlets
from celery_redlock.exceptions import LockLost
from celery_redlock.locking import native, process

_SIGNAL: Optional[int] = getattr(signal, "SIGURG", None)


class Target:
    """A body as it is found from outside: where it runs, whether it still does, what to raise."""

    __slots__ = ("error", "greenlet", "is_running", "number", "raises", "thread")

    def __init__(self, number: int, in_worker: bool) -> None:
        """To be made where the body runs. The numbers of bodies grow: outer ones have lower."""
        self.number = number
        self.thread = native.ident()
        self.greenlet: Any = None
        self.is_running = True
        self.error: Optional[LockLost] = None
        self.raises: Callable[[Target], None] = _in_thread
        if has_greenlets():
            self.greenlet = import_module("greenlet").getcurrent()
            self.raises = _in_greenlet
        elif self.thread == threading.main_thread().ident and _has_handler(in_worker):
            self.raises = _by_signal

    def raise_error(self) -> None:
        """Raise ``error`` in it, as soon as that is possible; does not wait for it."""
        self.raises(self)

    def withdraw(self) -> None:
        """It has ended, in this thread: what was not raised yet never is."""
        self.is_running = False
        if self.error is not None and self.raises is not _in_greenlet:
            _withdraw(self.thread)


# --- the main thread

_due: Deque[Target] = deque()


def _has_handler(may_install: bool) -> bool:
    """Whether the signal is ours; it is taken in a worker alone, and never from another."""
    if _SIGNAL is None:
        return False
    handler = signal.getsignal(_SIGNAL)
    if handler is _on_signal:
        return True
    if not may_install or handler is not signal.SIG_DFL:
        return False
    signal.signal(_SIGNAL, _on_signal)
    return True


def _by_signal(target: Target) -> None:
    if _SIGNAL is None or signal.getsignal(_SIGNAL) is not _on_signal:
        _in_thread(target)  # the body has a handler of its own there
        return
    _due.append(target)
    # To the thread itself: another one would not break its sleep.
    signal.pthread_kill(target.thread, _SIGNAL)


def _on_signal(_number: int, _frame: Any) -> None:
    """Runs in the main thread, between any two instructions: takes no mutex."""
    targets = [_due.popleft() for _ in range(len(_due))]
    running = [target for target in targets if target.is_running]
    if running:
        # One signal may stand for several. What ends the outermost ends those within it.
        error = min(running, key=lambda target: target.number).error
        assert error is not None
        raise error


class _Due:
    def after_fork(self) -> None:
        _due.clear()


_forgets = _Due()
process.join(_forgets)


# --- other threads


def _in_thread(target: Target) -> None:
    assert target.error is not None
    _set_async_exc()(target.thread, _class_of(target.error))


def _withdraw(thread: int) -> None:
    import ctypes

    _set_async_exc()(thread, ctypes.py_object())


@lru_cache(maxsize=None)
def _set_async_exc() -> Any:
    # Not every Python has ctypes.
    import ctypes

    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)
    return prototype(("PyThreadState_SetAsyncExc", ctypes.pythonapi))


def _class_of(error: LockLost) -> Type[LockLost]:
    """A class whose only instance is this error: the interpreter takes nothing but a class."""
    kind, fields = type(error), error.args

    class Raised(kind):  # type: ignore[valid-type, misc]
        redlock_plain = error

        def __init__(self) -> None:
            super().__init__(*fields)

        def __reduce__(self) -> Any:
            return kind, fields

    Raised.__name__, Raised.__qualname__, Raised.__module__ = (
        kind.__name__,
        kind.__qualname__,
        kind.__module__,
    )
    return Raised


def plain(error: LockLost) -> LockLost:
    """The error itself, or of its own class where it was raised as one made for it."""
    meant: LockLost = getattr(error, "redlock_plain", error)
    return meant


# --- greenlets


def _in_greenlet(target: Target) -> None:
    """To be called in the greenlets' thread, which has the relay for that."""
    if native.ident() == target.thread:
        # In the hub: nothing can end between the look and the raising, and the hub goes on when
        # the greenlet yields or ends.
        _call_in_hub(lambda: _throw(target))


def _throw(target: Target) -> None:
    if target.is_running:
        target.greenlet.throw(target.error)


def _call_in_hub(call: Callable[[], None]) -> None:
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].saved:
        import_module("gevent").get_hub().loop.run_callback(call)
    else:
        import_module("eventlet.hubs").get_hub().schedule_call_global(0, call)
