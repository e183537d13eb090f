"""Two locks as they should not be: the founding bugs, kept alive so that their tests can fail.

``GatedLocks`` is a process-wide gate before the server: who releases sends wake-ups into a channel
while it holds the mutex that every receiver needs before it can leave. ``ThreadOwnedLocks`` knows
its owner by thread id, counts entries locally and stops its watchdog only after a release that
succeeded.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Dict, Optional

from redis import Redis


class GatedLocks:
    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._channel: queue.Queue[None] = queue.Queue(maxsize=1)
        self._waiters = 0
        self._held = False

    def acquire(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            self._waiters += 1
        try:
            while True:
                try:
                    self._channel.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    return False
                with self._mutex:
                    if not self._held:
                        self._held = True
                        return True
        finally:
            with self._mutex:
                self._waiters -= 1

    def release(self) -> None:
        with self._mutex:
            self._held = False
            for _ in range(self._waiters):
                self._channel.put(None)  # blocks while full, with the mutex in hand


class ThreadOwnedLocks:
    """``client`` may raise; ``lease`` in seconds."""

    def __init__(self, client: Redis, lease: float) -> None:
        self._client: Any = client
        self._lease_ms = int(lease * 1000)
        self._counts: Dict[str, int] = {}
        self._watchdogs: Dict[str, threading.Event] = {}

    def acquire(self, name: str, timeout: float) -> Optional[int]:
        """The count of entries, None if it is another's."""
        owner = str(threading.get_ident())
        deadline = time.monotonic() + timeout
        while True:
            if self._counts.get(name):
                self._counts[name] += 1
                return self._counts[name]
            if self._client.set(name, owner, nx=True, px=self._lease_ms):
                self._counts[name] = 1
                self._watch(name)
                return 1
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)

    def release(self, name: str) -> None:
        if self._counts[name] > 1:
            self._counts[name] -= 1
            return
        self._client.delete(name)  # may raise: the count stays and the watchdog goes on
        del self._counts[name]
        self._watchdogs.pop(name).set()

    def close(self) -> None:
        for stop in self._watchdogs.values():
            stop.set()

    def _watch(self, name: str) -> None:
        stop = self._watchdogs[name] = threading.Event()
        pause = self._lease_ms / 3000

        def renew() -> None:
            while not stop.wait(pause):
                self._client.pexpire(name, self._lease_ms)

        threading.Thread(target=renew, daemon=True).start()
