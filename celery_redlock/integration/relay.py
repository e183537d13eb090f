"""What the background threads tell, passed on by a greenlet where there are greenlets.

A sink may wait for a mutex that gevent or eventlet has patched, as every log handler does. A
thread that is none of theirs would wait for it in a hub of its own, where nobody may ever wake it;
and with the watchdog every renewal of the process would stop.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque, Generic, TypeVar

from celery_redlock.core.unpatched import has_greenlets
from celery_redlock.locking import native

Told = TypeVar("Told")


def relayed(tell: Callable[[Told], None]) -> Callable[[Told], None]:
    """``tell`` for what any thread tells; itself where nothing is patched."""
    return Relay(tell) if has_greenlets() else tell


class Relay(Generic[Told]):
    """Tells what a greenlet tells at once, and in a greenlet of its own what a thread does."""

    def __init__(self, tell: Callable[[Told], None]) -> None:
        self._tell = tell
        self._told: Deque[Told] = deque()
        self._signal = native.waiters_signal()
        # A greenlet of this thread: ``threading`` is patched.
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self, told: Told) -> None:
        if native.is_background():
            self._told.append(told)
            self._signal.set()
        else:
            self._tell(told)

    def _run(self) -> None:
        while True:
            self._signal.wait(3600.0)
            while self._told:
                self._tell(self._told.popleft())
