"""A lock server inside one process: for tests, with the same contract as the real ones.

One mutex around each operation, which is pure computation; waiters are told outside of it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from fnmatch import fnmatchcase
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

from celery_redlock.core import ports
from celery_redlock.store.batches import acquire_each, leave_each
from celery_redlock.store.ledger import Ledger, Message

Answer = TypeVar("Answer")

#: Below this many resources nobody looks for forgotten ones.
_FEW = 1024


def _server_time_ms() -> int:
    return int(time.time() * 1000)


class MemoryStore:
    """Locks shared by the threads of one process; a forked child goes on with a copy.

    ``clock_ms`` is the server's clock. For ``grace_ms`` from now on it behaves as a server that
    restarted empty. ``fence_ttl`` is in seconds.
    """

    def __init__(
        self,
        *,
        clock_ms: Callable[[], int] = _server_time_ms,
        fence_ttl: float = 86_400,
        grace_ms: int = 0,
    ) -> None:
        self._clock_ms = clock_ms
        self._fence_ttl_ms = int(fence_ttl * 1000)
        self._grace_until = clock_ms() + grace_ms if grace_ms else 0
        self._ledgers: Dict[str, Ledger] = {}
        self._sweep_above = _FEW
        self._messages: List[Message] = []
        self._inboxes: Dict[str, List[MemorySubscription]] = {}
        self._lock = threading.Lock()
        _stores.add(self)

    def acquire(self, request: ports.Acquire) -> ports.AcquireAnswer:
        return self._at_once(lambda now: self._acquire(request, now))

    def acquire_all(self, requests: Sequence[ports.Acquire]) -> List[ports.AcquireAnswer]:
        return self._at_once(lambda now: self._acquire_all(requests, now))

    def acquire_batch(self, asks: Sequence[Sequence[ports.Acquire]]) -> List[ports.AskAnswer]:
        return acquire_each(self, asks)

    def leave(self, request: ports.Leave) -> ports.Left:
        return self._at_once(lambda now: self._leave(request, now))

    def leave_batch(self, requests: Sequence[ports.Leave]) -> List[ports.LeaveAnswer]:
        return leave_each(self, requests)

    def renew(self, requests: Sequence[ports.Renew]) -> Sequence[ports.RenewAnswer]:
        return [self._renew(request) for request in requests]

    def secure(self, request: ports.Renew) -> None:
        self._renew(request)

    def heartbeat(self, requests: Sequence[ports.Beat]) -> Sequence[ports.BeatAnswer]:
        firsts = {request.resource: request for request in reversed(requests)}
        return [self._heartbeat(each, is_first=firsts[each.resource] is each) for each in requests]

    def reestablish(self, request: ports.Reestablish) -> ports.ReestablishAnswer:
        return self._run(request.resource, lambda ledger, now: ledger.reestablish(request, now))

    def inspect(self, resource: str) -> ports.ResourceView:
        return self._run(resource, Ledger.view)

    def survey(self, pattern: str = "*") -> Iterator[Sequence[Tuple[str, ports.ResourceView]]]:
        with self._lock:
            names = [name for name in self._ledgers if fnmatchcase(name, pattern)]
        yield [(name, self.inspect(name)) for name in names]

    def subscribe(self, inbox: str) -> MemorySubscription:
        subscription = MemorySubscription(self, inbox)
        with self._lock:
            self._inboxes.setdefault(inbox, []).append(subscription)
        return subscription

    def has_broken(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""

    def _renew(self, request: ports.Renew) -> ports.RenewAnswer:
        return self._run(request.resource, lambda ledger, now: ledger.renew(request, now))

    def _heartbeat(self, request: ports.Beat, *, is_first: bool) -> ports.BeatAnswer:
        return self._run(
            request.resource,
            lambda ledger, now: ledger.heartbeat(request, now, is_first=is_first),
        )

    def _acquire_all(
        self, requests: Sequence[ports.Acquire], now: int
    ) -> List[ports.AcquireAnswer]:
        answers: List[ports.AcquireAnswer] = []
        for request in requests:
            answers.append(self._acquire(request, now))
            if not isinstance(answers[-1], ports.Granted):
                break
        if not isinstance(answers[-1], (ports.Granted, ports.Queued)):
            # Also what an earlier copy was granted: whoever reads this answer has nothing.
            for request in requests[: len(answers) - 1]:
                self._leave(ports.Leave(request.resource, (request.token,)), now)
        return answers

    def _acquire(self, request: ports.Acquire, now: int) -> ports.AcquireAnswer:
        return self._on(request.resource, lambda ledger: ledger.acquire(request, now))

    def _leave(self, request: ports.Leave, now: int) -> ports.Left:
        return self._on(request.resource, lambda ledger: ledger.leave(request, now))

    def _run(self, resource: str, operation: Callable[[Ledger, int], Answer]) -> Answer:
        return self._at_once(lambda now: self._on(resource, lambda ledger: operation(ledger, now)))

    def _on(self, resource: str, operation: Callable[[Ledger], Answer]) -> Answer:
        ledger = self._ledgers.get(resource)
        if ledger is None:
            ledger = Ledger(self._grace_until, self._fence_ttl_ms, self._messages)
            self._ledgers[resource] = ledger
        answer = operation(ledger)
        if ledger.is_blank:
            del self._ledgers[resource]
        return answer

    def _at_once(self, operation: Callable[[int], Answer]) -> Answer:
        with self._lock:
            now = self._clock_ms()
            answer = operation(now)
            self._sweep(now)
            told = [
                (subscription, text)
                for inbox, text in self._messages
                for subscription in self._inboxes.get(inbox, ())
            ]
            self._messages.clear()
        for subscription, text in told:
            subscription.put(text)
        return answer

    def _sweep(self, now: int) -> None:
        if len(self._ledgers) <= self._sweep_above:
            return
        for resource, ledger in list(self._ledgers.items()):
            ledger.view(now)
            if ledger.is_blank:
                del self._ledgers[resource]
        self._sweep_above = max(_FEW, 2 * len(self._ledgers))

    def _unsubscribe(self, inbox: str, subscription: MemorySubscription) -> None:
        with self._lock:
            listeners = self._inboxes.get(inbox, [])
            if subscription in listeners:
                listeners.remove(subscription)
            if not listeners:
                self._inboxes.pop(inbox, None)

    def _start_in_child(self) -> None:
        # Another thread of the parent may have held it, and listens to nothing here.
        self._lock = threading.Lock()
        self._inboxes = {}
        self._messages.clear()


class MemorySubscription:
    """Wake-ups of one inbox; messages sent before it was opened are not its own."""

    def __init__(self, store: MemoryStore, inbox: str) -> None:
        self._store = store
        self._inbox = inbox
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def get(self, timeout: float) -> Optional[str]:
        try:
            return self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None

    def put(self, text: str) -> None:
        self._queue.put(text)

    def close(self) -> None:
        self._store._unsubscribe(self._inbox, self)


_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _start_all_in_child() -> None:
    for store in list(_stores):
        store._start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_in_child)
