"""Somebody who does not stand in line: asks again and again, and takes what he is given."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

from celery_redlock import Lock
from examples.demo.bodylog import now_ns
from tests.stress.faults.app import held, resources_of

if TYPE_CHECKING:
    from tests.stress.faults.arena import Arena

#: Seconds between two tries, and for which he has what he was given.
PAUSE = 0.002
HOLDS = 0.02


class Pusher:
    """A thread of the test's process; its bodies are in the log like all others."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.start = self._thread.start

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        names = itertools.cycle(resources_of(range(self._arena.plan.resources)))
        while not self._is_over.is_set():
            lock, asked = Lock(next(names), app=self._arena.shop.app), now_ns()
            if lock.acquire(blocking=False):
                with held(self._arena.shop.bodies, lock, asked):
                    time.sleep(HOLDS)
                lock.release()
            time.sleep(PAUSE)
