"""A store on a bad network: requests and answers are lost, copies run late.

An answered request leaves no copy behind: the store sends each once, and so does TCP.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Callable, Dict, List, Sequence, Tuple, TypeVar

from celery_redlock.core import ports
from celery_redlock.core.ports import NoAnswer, Store, Subscription
from celery_redlock.store.batches import acquire_each, leave_each

Answer = TypeVar("Answer")

DELAYS = (0.005, 0.05, 0.3, 1.0, 2.0)


class BadNetwork:
    """Brings one request in five to grief. ``late_copies`` counts the copies that ran late."""

    def __init__(self, store: Store, seed: int, share: float = 0.05) -> None:
        self.late_copies = 0
        self._store = store
        self._share = share
        self._random = random.Random(seed)
        self._late: List[Tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._asking: Dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._changed = threading.Condition()
        self._open = True
        self._postman = threading.Thread(target=self._deliver, daemon=True)
        self._postman.start()

    def acquire(self, request: ports.Acquire) -> ports.AcquireAnswer:
        # Copies come early or late, but no process makes two tries at once for one of its tokens.
        def ask() -> ports.AcquireAnswer:
            with self._asking[request.token]:
                return self._store.acquire(request)

        return self._send(ask)

    def acquire_all(self, requests: Sequence[ports.Acquire]) -> Sequence[ports.AcquireAnswer]:
        return self._send(lambda: self._store.acquire_all(requests))

    def acquire_batch(self, asks: Sequence[Sequence[ports.Acquire]]) -> List[ports.AskAnswer]:
        return acquire_each(self, asks)  # type: ignore[arg-type]

    def leave(self, request: ports.Leave) -> ports.Left:
        return self._send(lambda: self._store.leave(request))

    def leave_batch(self, requests: Sequence[ports.Leave]) -> List[ports.LeaveAnswer]:
        return leave_each(self, requests)  # type: ignore[arg-type]

    def renew(self, requests: Sequence[ports.Renew]) -> Sequence[ports.RenewAnswer]:
        return self._send(lambda: self._store.renew(requests))

    def secure(self, request: ports.Renew) -> None:
        with suppress(ports.NoAnswer):
            self._send(lambda: self._store.secure(request))

    def has_broken(self) -> bool:
        return False

    def heartbeat(self, requests: Sequence[ports.Beat]) -> Sequence[ports.BeatAnswer]:
        return self._send(lambda: self._store.heartbeat(requests))

    def reestablish(self, request: ports.Reestablish) -> ports.ReestablishAnswer:
        return self._send(lambda: self._store.reestablish(request))

    def subscribe(self, inbox: str) -> Subscription:
        return self._store.subscribe(inbox)

    def settle(self) -> None:
        """Deliver every late copy, then stop."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._postman.join(30)
        assert not self._postman.is_alive()

    def _send(self, call: Callable[[], Answer]) -> Answer:
        fate = int(self._random.random() / self._share)
        if fate == 0:
            raise NoAnswer("lost")
        if fate == 1:
            self._later(call)
            raise NoAnswer("late")
        if fate == 2:
            call()
            raise NoAnswer("answer lost")
        if fate == 3:
            self._later(call)
            call()
            raise NoAnswer("answer lost, and one copy late")
        return call()

    def _later(self, call: Callable[[], object]) -> None:
        with self._changed:
            due = time.monotonic() + self._random.choice(DELAYS)
            heapq.heappush(self._late, (due, next(self._number), call))
            self._changed.notify()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while self._open and (not self._late or self._late[0][0] > time.monotonic()):
                    due = self._late[0][0] if self._late else time.monotonic() + 1
                    self._changed.wait(max(0.001, due - time.monotonic()))
                if not self._late:
                    return
                _, _, call = heapq.heappop(self._late)
            call()
            self.late_copies += 1
