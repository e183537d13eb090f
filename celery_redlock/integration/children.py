"""The children of a prefork pool: which task each of them runs, and what it held when it dies.

A child is known from the first task that it accepts: replacements, ``pool_grow``, autoscale and
restarts of the pool need no following. It runs one task at a time, so there is one request to
remember for each; the next one that it accepts, or the result, is the end of the one before.

Nothing here trusts what Celery says of a task's end: a hard time limit and a revoke are told while
the child still runs. What it held is freed when it is dead, and not before; what no child has taken
was handed over in vain, and is freed when Celery says that none will. The names of that come
from users' code and the release asks the lock server: both in a thread of their own, never in the
worker's event loop.

The parent knows the tokens of the task alone. A ``Lock`` and a direct call of the child's have
others: they are taken over, with the same proof, by whoever asks next on this host.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Optional, Set

from celery_redlock.locking import native, process
from celery_redlock.locking.deaths import Deaths, Watched
from celery_redlock.observe.logs import logger

#: Seconds for which an ending worker waits until what its dead children held is free.
_AT_EXIT = 1.0

#: Celery's request of a task that a child has accepted.
Request = Any

#: Frees what a dead child, by its pid, held for a request; in a thread of its own, raises nothing.
Free = Callable[[Request, int], None]


class Children:
    """The tables are plain dicts changed by single atomic operations. Nothing here blocks."""

    def __init__(self, free: Free) -> None:
        self._free = free
        self._deaths = Deaths(self._died, self._is_busy)
        self.after_fork()
        process.join(self)

    def after_fork(self) -> None:
        self._children: Dict[int, Watched] = {}
        self._running: Dict[Watched, Request] = {}
        self._workers: Set[str] = set()
        self._freeing: Set[object] = set()

    def follow(self, worker: str) -> None:
        """This worker, by its node name, has children. Other pools call greenlets by a pid."""
        self._workers.add(worker)

    def accepted(self, pid: int, request: Request) -> None:
        """A child took this request; maybe it has died since."""
        if request.hostname not in self._workers or pid == os.getpid():
            return
        child = self._children.get(pid)
        # Alive now, it is the one that has accepted it: nobody else can have its pid. A pidfd tells
        # of its end by itself; and whoever is told of it, looks afterwards what the child runs.
        if child is None or (child.fd is None and child.has_ended()):
            child = self._children[pid] = self._deaths.watch(pid)
        self._running[child] = request
        if child.is_known_to_have_ended:
            self._died(child)
        elif child.fd is None:
            self._deaths.look()

    def settled(self, pid: int, request: Request) -> None:
        """The child has told how its body ended: by then it had released everything itself."""
        child = self._children.get(pid)
        if child is not None and self._running.get(child) is request:
            self._running.pop(child, None)

    def failed(self, pid: Optional[int], request: Request) -> None:
        """Celery holds this request for over, whatever its child does: the second path."""
        if request.was_freed or request.hostname not in self._workers:
            return
        if pid is None or pid == os.getpid():
            # Its child died before it took it, and it was revoked: no other is given it, and the
            # parent takes it in the child's stead.
            self._free_aside(request, request, os.getpid())
            return
        child = self._children.get(pid)
        if child is None or child.has_ended():
            self.accepted(pid, request)

    def _is_busy(self, child: Watched) -> bool:
        return child in self._running

    def _died(self, child: Watched) -> None:
        if self._children.get(child.pid) is child:
            self._children.pop(child.pid, None)
        self._freeing.add(child)
        # Told by two threads at once, one of them has it.
        request = self._running.pop(child, None)
        if request is None or request.was_freed:
            self._freeing.discard(child)
            return
        self._free_aside(request, child, child.pid)

    def _free_aside(self, request: Request, reason: object, pid: int) -> None:
        """Free what ``pid`` held for it; ``finish`` waits for the ``reason`` meanwhile."""
        self._freeing.add(reason)
        request.was_freed = True
        try:
            native.start_thread(lambda: self._end(request, reason, pid))
        except RuntimeError:  # as many threads as may be: the lease ends it
            self._freeing.discard(reason)
            logger.warning(
                "could not start a thread to free what the dead task %s held: whoever asks next on "
                "this host takes it over, else its lease ends it",
                request.id,
            )

    def _end(self, request: Request, reason: object, pid: int) -> None:
        try:
            self._free(request, pid)
        finally:
            self._freeing.discard(reason)

    def finish(self, within: float = _AT_EXIT) -> None:
        """Wait until what dead and dying children held is free: what follows would hold it up."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            if not self._freeing and not any(child.is_ending() for child in list(self._running)):
                return
            native.sleep(0.001)
