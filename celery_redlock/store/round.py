"""One round: several servers are asked at once, and their answers read as they come.

By the thread that asks, which waits for all of them together. It waits no longer than until the
answer of the majority is certain: the others' answers are read by whoever uses their connection
next. So a server that hangs delays nobody while the others are a majority.
"""

from __future__ import annotations

import os
import select
import time
from types import TracebackType
from typing import Any, Callable, Dict, Optional, Tuple, Type

from celery_redlock.core.unpatched import original
from celery_redlock.store.voter import Voter
from celery_redlock.store.wire import Call, Wire

#: Seconds in which near servers answer. A good part of them goes into falling asleep and being
#: woken, on both sides. So where the last answers came as soon, the next ones are looked for again
#: and again for so long; that needs hardly more of the processor. Servers further away are not.
_NEAR = 0.0001

#: To a server that waits for this very processor, for instance. Not every system has it.
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Pace:
    """How soon the servers answered last. Thread-safe: whoever waited last is right.

    ``may_stay_awake``: not where other greenlets are to run meanwhile.
    """

    __slots__ = ("_are_near", "_may_stay_awake")

    def __init__(self, *, may_stay_awake: bool) -> None:
        self._may_stay_awake = may_stay_awake
        self._are_near = False

    @property
    def awake(self) -> float:
        """Seconds for which to wait without falling asleep."""
        return _NEAR if self._are_near and self._may_stay_awake else 0.0

    def took(self, seconds: float) -> None:
        self._are_near = seconds < _NEAR


class Round:
    """Used by one thread, as a context manager: connections are given back at its end."""

    def __init__(self, pace: Pace, *, is_native: bool) -> None:
        self._pace = pace
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
        began = time.monotonic()
        while waiting:
            # Also when it is late: this process may have been held up, and not the servers.
            waited = time.monotonic() - began
            left = patience - waited
            ready = poll.poll(0.0 if waited < self._pace.awake else max(0.0, left * 1000))
            if not ready:
                if left <= 0:
                    for voter, wire in waiting.values():
                        voter.hangs(wire)
                    return
                _let_others_run()
            for number, _event in ready:
                voter, wire = waiting[number]
                voter.read(wire)
                if is_decided():
                    self._pace.took(time.monotonic() - began)
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
    """``poll`` where eventlet has taken it away.

    Eventlet may also say that of a number which an earlier ``select`` of the greenlet was to wait
    for, and that had become readable together with the one that it told of then.
    """

    def __init__(self) -> None:
        self._numbers: Dict[int, int] = {}

    def register(self, number: int, event: int) -> None:
        self._numbers[number] = event

    def unregister(self, number: int) -> None:
        del self._numbers[number]

    def poll(self, timeout_ms: float) -> Any:
        ready, _, _ = select.select(list(self._numbers), (), (), timeout_ms / 1000)
        return [(number, self._numbers[number]) for number in ready if number in self._numbers]
