"""What goes on behind the callers of several servers: servers that are out are looked for, and what
a server may have granted although nobody read its answer is taken back.

One thread, of the operating system also where there are greenlets. It runs while there is something
to do. What it takes back it buries: a late copy of the ask then does nothing.
"""

from __future__ import annotations

import select
import time
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple

from celery_redlock.core.unpatched import original
from celery_redlock.store.scripts import Script
from celery_redlock.store.voter import Voter
from celery_redlock.store.wire import Call, Silence, Wire

#: Seconds between two looks for a server, from the first to the longest.
_LOOK = (0.1, 1.0)

#: So much is taken back at once.
_BATCH = 50

Key = Tuple[str, ...]

_sleep: Callable[[float], None] = original("time", "sleep")


class Undo(NamedTuple):
    """What to say to a server until it has acknowledged it."""

    frame: bytes
    script: Script
    done: Callable[[], None] = lambda: None


class Mender:
    """Thread-safe; for a fork see ``after_fork``."""

    def __init__(self) -> None:
        self._voters: Sequence[Voter] = ()
        self.after_fork()

    def after_fork(self) -> None:
        self._running: Any = original("_thread", "allocate_lock")()
        self._undo: Dict[Voter, Dict[Key, Undo]] = {voter: {} for voter in self._voters}
        self._pause: Dict[Voter, float] = {}
        self._due: Dict[Voter, float] = {}

    def attend(self, voters: Sequence[Voter]) -> None:
        self._voters = voters
        self.after_fork()

    def take_back(self, voter: Voter, key: Key, undo: Undo) -> None:
        """Say it to this server; ``key`` names what it is about: the latest of one name counts."""
        self._undo[voter][key] = undo
        self.wake()

    def wake(self) -> None:
        if not self._running.locked():
            original("_thread", "start_new_thread")(self._run, ())

    @property
    def is_idle(self) -> bool:
        return not any(voter.out or self._undo[voter] for voter in self._voters)

    def _run(self) -> None:
        # Of several threads started at once one stays.
        running = self._running
        if not running.acquire(False):
            return
        try:
            while running is self._running and not self.is_idle:
                for voter in self._voters:
                    if voter.out or self._undo[voter]:
                        self._mend(voter)
                _sleep(_LOOK[0])
        finally:
            running.release()
        if not self.is_idle and running is self._running:
            self.wake()  # something came while it ended

    def _mend(self, voter: Voter) -> None:
        now = time.monotonic()
        if now < self._due.get(voter, 0.0):
            return
        wire = voter.look()
        if wire is not None:
            try:
                self._take_back(voter, wire)
            finally:
                wire.close("mended")
        if voter.out or self._undo[voter]:
            pause = self._pause[voter] = min(2 * self._pause.get(voter, _LOOK[0] / 2), _LOOK[1])
            self._due[voter] = now + pause
        else:
            self._pause.pop(voter, None)

    def _take_back(self, voter: Voter, wire: Wire) -> None:
        undo = self._undo[voter]
        while undo and not voter.out:
            before = len(undo)
            for key, each in list(undo.items())[:_BATCH]:
                tell = partial(_acknowledged, undo, key, each)
                voter.ask(wire, Call(each.frame, tell, each.script))
            _await(voter, wire)
            if len(undo) >= before:
                return


def _acknowledged(undo: Dict[Key, Undo], key: Key, each: Undo, _wire: Wire, answer: Any) -> None:
    if isinstance(answer, Silence):
        return
    if undo.get(key) is each:
        del undo[key]
    each.done()


def _await(voter: Voter, wire: Wire) -> None:
    """Read all that is owed; a server that takes too long is out again."""
    poll = original("select", "poll")()
    if wire.owed:
        poll.register(wire.fd, select.POLLIN)
    while wire.owed:
        if not poll.poll(voter.patience * 1000):
            voter.hangs(wire)
            return
        voter.read(wire)
