"""One round: several servers are asked at once, and their answers read as they come.

By the thread that asks, which waits for all of them together. It waits no longer than until the
answer of the majority is certain: the others' answers are read by whoever uses their connection
next. So a server that hangs delays nobody while the others are a majority.
"""

from __future__ import annotations

import select
import time
from types import TracebackType
from typing import Any, Callable, Dict, Optional, Tuple, Type

from celery_redlock.core.unpatched import original
from celery_redlock.store.voter import Voter
from celery_redlock.store.wire import Call, Wire


class Round:
    """Used by one thread, as a context manager: connections are given back at its end."""

    def __init__(self, is_native: bool) -> None:
        self._is_native = is_native
        self._taken: Dict[Voter, Wire] = {}

    def take(self, voter: Voter, *, even_behind: bool = True) -> Optional[Wire]:
        """A connection of the round's to this server, None if it cannot be asked now."""
        wire = self._taken.get(voter)
        if wire is not None:
            return wire if wire.is_open else None
        wire = voter.take(even_behind)
        if wire is not None:
            self._taken[voter] = wire
        return wire

    def ask(self, voter: Voter, call: Call) -> None:
        voter.ask(self._taken[voter], call)

    def wait(self, is_decided: Callable[[], bool]) -> None:
        """Read answers until it is decided; a server that keeps it open for too long hangs."""
        if is_decided():
            return
        waiting: Dict[int, Tuple[Voter, Wire]] = {}
        poll, patience = poller(self._is_native), 0.0
        for voter, wire in self._taken.items():
            if wire.owed:
                waiting[wire.fd] = voter, wire
                poll.register(wire.fd, select.POLLIN)
                patience = max(patience, voter.patience)
        deadline = time.monotonic() + patience
        while waiting:
            # Also when it is late: this process may have been held up, and not the servers.
            left = deadline - time.monotonic()
            ready = poll.poll(max(0.0, left * 1000))
            if not ready and left <= 0:
                for voter, wire in waiting.values():
                    voter.hangs(wire)
                return
            for number, _event in ready:
                voter, wire = waiting[number]
                voter.read(wire)
                if is_decided():
                    return  # another one's next answer is then read together with this one
                if not wire.owed:
                    poll.unregister(number)
                    del waiting[number]

    def __enter__(self) -> Round:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for voter, wire in self._taken.items():
            if error is not None:
                # Interrupted anywhere: what it owes, and to whom, is no longer certain.
                wire.close("interrupted")
            elif wire.is_open:
                voter.give_back(wire)


def poller(is_native: bool) -> Any:
    """``select.poll()``, of the operating system or as a greenlet waits."""
    if is_native:
        return original("select", "poll")()
    if hasattr(select, "poll"):
        return select.poll()
    return _Select()


class _Select:
    """``poll`` where eventlet has taken it away."""

    def __init__(self) -> None:
        self._numbers: Dict[int, int] = {}

    def register(self, number: int, event: int) -> None:
        self._numbers[number] = event

    def unregister(self, number: int) -> None:
        del self._numbers[number]

    def poll(self, timeout_ms: float) -> Any:
        ready, _, _ = select.select(list(self._numbers), (), (), timeout_ms / 1000)
        return [(number, self._numbers[number]) for number in ready]
