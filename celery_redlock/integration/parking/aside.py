"""What may take long in the worker's parent, users' own code for one: in a thread of its own.

A greenlet, where threads are patched.
"""

from __future__ import annotations

import threading
from queue import Queue
from typing import Callable, Optional

from celery_redlock.integration import django
from celery_redlock.observe.logs import logger


class Aside:
    """One call after the other, in the order in which they came. The thread ends with ``stop``."""

    def __init__(self) -> None:
        self._calls: Queue[Optional[Callable[[], None]]] = Queue()
        self._thread: Optional[threading.Thread] = None

    def call(self, fn: Callable[[], None]) -> None:
        self._calls.put(fn)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="redlock-aside", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while True:
            fn = self._calls.get()
            if fn is None:
                return
            try:
                fn()
            except Exception:  # noqa: BLE001 - the next one must have its turn
                logger.exception("a call aside of the worker's loop failed")
            finally:
                # Celery closes what a task leaves open in its child, and nothing in this process.
                django.close_connections()
