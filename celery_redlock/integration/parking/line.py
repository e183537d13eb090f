"""Slots of threads and greenlets: a line of our own, for all that the worker runs.

Celery puts into these pools whatever comes, and stands still itself where a pool of greenlets is
full. So what is running is counted here, and who needs no lock stands in the same line. While
nobody waits and a slot is free, a request passes as if there were no line.

Greenlets go on while the worker ends: nobody is served from the signal on, neither until the
consumer's loop sees it, nor while the consumer is stopped, nor, at a cold shutdown, while Celery
waits for the pool to be empty, which it does first.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Union

from celery.signals import worker_shutting_down

from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.slots import Slots, Submit, Turn


class Passing:
    """A request in line that needs no lock."""

    __slots__ = ("request",)

    def __init__(self, request: Any) -> None:
        self.request = request


class LineSlots(Slots):
    """Subclasses count what is running."""

    def __init__(self, consumer: Any, loop: Loop, submit: Submit) -> None:
        super().__init__(consumer, loop, submit)
        self._line: Deque[Union[Turn, Passing]] = deque()
        self._pool = consumer.pool
        self._apply: Callable[..., Any] = self._pool.on_apply
        self._pool.on_apply = self._on_apply
        self._is_open = True
        self._stop: Callable[[], None] = self._pool.on_stop
        self._pool.on_stop = self._on_stop
        worker_shutting_down.connect(self._on_shutting_down, sender=consumer.hostname)

    def take(self, callback: Callable[[], None], first: bool = False) -> Turn:
        turn = Turn(self, callback)
        if first:
            self._line.appendleft(turn)
        else:
            self._line.append(turn)
        self._loop.call_next(self._look)
        return turn

    def pass_through(self, request: Any) -> None:
        if self._line or not self._is_open or self._free() <= 0:
            self._line.append(Passing(request))
            self._look_later()
        else:
            self._put(request)

    def give_back(self) -> None:
        self._reserved -= 1
        self._tell()

    def run(self, request: Any) -> None:
        self._reserved -= 1
        self._put(request)

    def clear(self) -> None:
        self._line.clear()

    def close(self) -> None:
        self._is_open = False

    def leave(self, turn: Turn) -> None:
        try:
            self._line.remove(turn)
        except ValueError:
            return
        self._tell()

    def _look(self) -> None:
        while self._line and self._is_open and self._free() > 0:
            head = self._line.popleft()
            if isinstance(head, Passing):
                self._put(head.request)
            else:
                self._serve(head)
        if self._line:
            self._look_later()

    def _put(self, request: Any) -> None:
        """Into the pool. The slot counts as taken meanwhile: greenlets may switch in here."""
        self._reserved += 1
        try:
            self._submit(request)
        finally:
            self._reserved -= 1
            # It may have been revoked: then nothing else tells that its slot is free.
            self._tell()

    def _tell(self) -> None:
        """A slot may be free: whoever waits for one shall look."""
        if self._line:
            self._loop.call(self._look)

    def _free(self) -> int:
        """Slots that nobody uses and nobody was promised."""
        return self._unused() - self._reserved

    def _unused(self) -> int:
        raise NotImplementedError

    def _on_apply(self, *args: Any, **kwargs: Any) -> Any:
        """Stands for the pool's ``on_apply``: through it goes all that the pool runs."""
        raise NotImplementedError

    def _on_shutting_down(self, **_told: Any) -> None:
        self.close()

    def _on_stop(self) -> None:
        """Stands for the pool's ``on_stop``, which waits until the pool is empty."""
        self.close()
        self._stop()


class ThreadSlots(LineSlots):
    """The executor would keep in a queue of its own what comes to busy threads."""

    def __init__(self, consumer: Any, loop: Loop, submit: Submit) -> None:
        super().__init__(consumer, loop, submit)
        self._running = 0

    def _unused(self) -> int:
        return int(self._pool.limit) - self._running

    def _on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = self._apply(*args, **kwargs)
        self._running += 1
        # Told in the thread of the body, or of who shuts the executor down.
        result.f.add_done_callback(lambda _: self._loop.call(self._ended))
        return result

    def _ended(self) -> None:
        self._running -= 1
        self._tell()


class GreenSlots(LineSlots):
    """gevent and eventlet know best how many greenlets they may still start."""

    def _unused(self) -> int:
        # Not there before the pool has started.
        pool = self._pool._pool
        if pool is None:
            return 0
        return int(pool.free() if hasattr(pool, "free") else pool.free_count())

    def _on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = self._apply(*args, **kwargs)
        greenlet = result
        if greenlet is None:
            # Eventlet's keeps to itself what it has started; it is the last in the map.
            running = self._pool._pool_map
            greenlet = running[next(reversed(running))] if running else None
        if greenlet is not None:
            greenlet.link(lambda _: self._tell())
        return result
