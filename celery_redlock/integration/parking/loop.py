"""From any thread into the worker's own loop, the only place where its consumer may be touched.

Prefork and threads run under kombu's hub: one thread polls files and runs timers. A byte in a
socket wakes it within a millisecond; ``hub.call_soon`` does so only since kombu 5.7. What is called
in the hub's own thread needs no waking: it runs before the hub polls again. A hub forgets its files
and, up to Celery 5.5, its timers whenever the broker's connection is lost: both are put in again
with ``register``, at every start of the consumer.

gevent and eventlet have no hub. There a greenlet of ours is the loop: Celery touches the consumer
from any greenlet itself.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, List, Optional, Tuple

from celery_redlock.locking import native, process
from celery_redlock.observe.logs import logger

#: Seconds that a loop without alarms sleeps at most.
_IDLE = 3600.0

#: Calls in one turn of the worker's loop, which has others to serve: a thousandth of a second or so
#: each hundred.
_TURN = 1000


class Alarm:
    """One call in the future; ``cancel`` from the loop."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring: Optional[Callable[[], None]] = ring

    def cancel(self) -> None:
        """Not to ring any more, and to keep nothing alive; harmless after it rang."""
        self._ring = None

    def ring(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            ring()

    @property
    def is_set(self) -> bool:
        return self._ring is not None


class Loop:
    """Calls in the order in which they came; one that raises is logged and disturbs no other."""

    def __init__(self) -> None:
        self._calls: Deque[Tuple[Callable[..., Any], Tuple[Any, ...]]] = deque()
        self._alarms: List[Tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        #: The thread, or greenlet, that runs the calls at this moment.
        self._draining: Optional[int] = None

    @staticmethod
    def for_consumer(consumer: Any) -> Optional[Loop]:
        """The loop of this worker; None where it has none to park under.

        That is a broker without asynchronous reads under threads of the system: Celery then blocks
        in the consumer for seconds, and nobody else may touch its channel.
        """
        if consumer.hub is not None:
            return HubLoop()
        return GreenLoop() if getattr(consumer.pool, "is_green", False) else None

    def call(self, call: Callable[..., Any], *args: Any) -> None:
        """Have it called soon, in the loop and never in here. From any thread, never blocks."""
        self._calls.append((call, args))
        # What the loop's own calls call for follows them in the same turn.
        if self._draining != threading.get_ident():
            self._wake()

    def call_next(self, call: Callable[..., Any], *args: Any) -> None:
        """As ``call``, from what the worker's loop itself runs: it need not be woken for that.

        Not from a signal's handler: the loop may be asleep by then.
        """
        self.call(call, *args)

    def wake(self) -> None:
        """Have the worker's loop turn, from any thread and from a signal's handler."""
        self._wake()

    def later(self, seconds: float, call: Callable[[], Any]) -> Alarm:
        """Have it called in the loop after some seconds, also over a loss of the connection."""
        alarm = Alarm(call)
        self.call(self._set, time.monotonic() + seconds, alarm)
        return alarm

    def hurry(self) -> None:
        """Run what was called now, where the worker's loop is what calls this."""

    def turn_again(self) -> None:
        """Have the worker's loop turn once more before it sleeps, should it be about to.

        Others do something before it sleeps as well, and may have done it already.
        """

    def drain(self) -> None:
        """Run what is called by now, and what that calls for, as far as a turn of the loop goes.

        In the loop's thread, for instance before it ends.
        """
        self._draining = threading.get_ident()
        try:
            for _ in range(_TURN):
                if not self._calls:
                    break
                call, args = self._calls.popleft()
                self._run(call, *args)
        finally:
            self._draining = None
        # Too many for one turn, or a signal's handler has just called for one more.
        if self._calls:
            self._wake()

    def register(self, hub: Any) -> None:
        """Listen again: for the consumer step's ``register_with_event_loop``."""

    def close(self) -> None:
        """Hear nothing any more; a later call is lost and does no harm."""

    def _wake(self) -> None:
        raise NotImplementedError

    def _set(self, due: float, alarm: Alarm) -> None:
        if alarm.is_set:
            heapq.heappush(self._alarms, (due, next(self._numbers), alarm))

    def _ring(self) -> None:
        now = time.monotonic()
        while self._alarms and (self._alarms[0][0] <= now or not self._alarms[0][2].is_set):
            alarm = heapq.heappop(self._alarms)[2]
            self._run(alarm.ring)

    def _next_in(self) -> Optional[float]:
        """Seconds until the next alarm, None where there is none."""
        return max(0.0, self._alarms[0][0] - time.monotonic()) if self._alarms else None

    @staticmethod
    def _run(call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except Exception:  # noqa: BLE001 - it would end the worker's event loop
            logger.exception("a call in the worker's loop failed")


class HubLoop(Loop):
    """Under kombu's hub; deaf between a lost connection and the next ``register``."""

    def __init__(self) -> None:
        super().__init__()
        self._hub: Any = None
        self._timer: Any = None
        self._timer_due: Optional[float] = None
        # Not a pipe: its number could be another file's as soon as it is closed.
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._is_open = True
        self._is_ticking = False
        process.join(self)

    def after_fork(self) -> None:
        # The bell is the parent's: a child that rang it would wake the parent.
        self._is_open = False
        self._calls.clear()

    def register(self, hub: Any) -> None:
        self._hub = hub
        self._forget_timer()
        hub.add_reader(self._ear, self._hear)
        hub.on_tick.add(self._tick)
        self._hear()

    def call_next(self, call: Callable[..., Any], *args: Any) -> None:
        self._calls.append((call, args))

    def hurry(self) -> None:
        if self._draining is None and self._hub is not None:
            self._turn()

    def turn_again(self) -> None:
        if self._is_ticking:
            self._wake()

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._forget_timer()
        if self._hub is not None:
            self._hub.remove_reader(self._ear)
            self._hub.on_tick.discard(self._tick)
        self._ear.close()
        self._bell.close()

    def _wake(self) -> None:
        if not self._is_open:
            return
        # Full: the loop will wake. Closed meanwhile: it has ended.
        with suppress(OSError):
            self._bell.send(b"!")

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._ear.recv(65536)
        self._turn()

    def _tick(self) -> None:
        """The hub is about to poll."""
        if self._calls:
            self._is_ticking = True
            try:
                self._turn()
            finally:
                self._is_ticking = False

    def _turn(self) -> None:
        self.drain()
        self._ring()
        self._set_timer()

    def _set_timer(self) -> None:
        """One timer for all alarms: what a lost connection may take away is one thing."""
        due = self._alarms[0][0] if self._alarms else None
        if due == self._timer_due:
            return
        self._forget_timer()
        if due is not None:
            self._timer_due = due
            self._timer = self._hub.call_later(max(0.0, due - time.monotonic()), self._alarmed)

    def _alarmed(self) -> None:
        self._forget_timer()
        self._turn()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_due = None


class GreenLoop(Loop):
    """A greenlet of the worker's only thread."""

    def __init__(self) -> None:
        super().__init__()
        self._signal = native.waiters_signal()
        self._is_open = True
        # A greenlet: ``threading`` is patched.
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._is_open = False
        self._signal.set()

    def _wake(self) -> None:
        self._signal.set()

    def _listen(self) -> None:
        while self._is_open:
            wait = self._next_in()
            self._signal.wait(_IDLE if wait is None else wait)
            self.drain()
            self._ring()
