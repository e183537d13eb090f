"""One of several independent servers: its held connections, whether it answers, whether it votes.

A server that refuses connections or hangs is *out*: it is not asked, and counts as unanswered,
until a look in the background finds it back. So it costs one request its patience, and no other
anything.

A server that lost its data when it restarted would vote a second time. It is asked for its age
whenever a connection is made, and nothing of an older life can be asked: that connection is broken.

Thread-safe without a mutex, as ``connections`` is; in a forked child it has no connection.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, Iterator, NamedTuple, Optional, Sequence, Tuple

from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from celery_redlock.core.ports import NoAnswer, ResourceView
from celery_redlock.store.ballots import SCRIPTS
from celery_redlock.store.connections import SURPLUS, Connections
from celery_redlock.store.frames import Frames
from celery_redlock.store.inbox import Inbox
from celery_redlock.store.link import reason, uptime_in
from celery_redlock.store.looking import survey
from celery_redlock.store.replies import ErrorReply
from celery_redlock.store.wire import Call, TakesNoMore, Wire, learn

#: A connection idle for longer is looked at before it is used: servers close idle ones.
_LOOK_AFTER = 1.0

#: One that owes answers for longer is passed over: its server is behind the others.
_BEHIND = 0.05

Make = Callable[[], AbstractConnection]


class Life(NamedTuple):
    """What was learnt of a server: the latest monotonic time at which it can have started, whether
    it keeps every write over a restart, and how far its clock is ahead of that monotonic time."""

    started: float
    persists: bool
    offset: float


class Voter:
    """``make`` makes a connection for callers, ``make_native`` for threads of the background.

    ``patience``: seconds after which a server without an answer hangs. ``on_out`` is told of it.
    """

    def __init__(
        self,
        number: int,
        name: str,
        make: Make,
        make_native: Make,
        patience: float,
        on_out: Callable[[], None],
    ) -> None:
        self.number = number
        self.name = name
        self.patience = patience
        self._make = make
        self._make_native = make_native
        self._on_out = on_out
        self._idle: Deque[Wire] = deque()
        self._looks = Connections(make, name)
        self.life: Optional[Life] = None
        #: Why it is out; empty while it is asked.
        self.out = ""

    def take(self, even_behind: bool = True) -> Optional[Wire]:
        """A connection to ask on, None if it cannot be asked now: ``why_not`` says why.

        ``even_behind``: also one on which the server owes answers for long.
        """
        while not self.out:
            try:
                wire = self._idle.pop()
            except IndexError:
                return self._connected()
            silent = time.monotonic() - wire.since
            if silent > (_BEHIND if wire.owed else _LOOK_AFTER):
                if not self._has_caught_up(wire, even_behind):
                    return None
                if not wire.is_open:
                    continue
            return wire
        return None

    def give_back(self, wire: Wire) -> None:
        self._idle.append(wire)
        with suppress(IndexError):  # taken by others meanwhile
            if _is_surplus(self._idle[0]):
                self._drop_oldest()

    @property
    def why_not(self) -> str:
        """Why there was no connection to ask on."""
        return self.out or f"no answer in {_BEHIND:g} s"

    def abstains(self, quarantine: float) -> str:
        """Why it does not vote, in a quarantine of so many seconds; empty if it does."""
        life = self.life
        if life is None or life.persists:
            return ""
        age = time.monotonic() - life.started
        return f"restarted {age:.0f} s ago: does not vote" if age < quarantine else ""

    def ask(self, wire: Wire, call: Call) -> None:
        """Send a request on a connection that was taken; whatever happens, it will be told."""
        try:
            wire.ask(call)
        except TakesNoMore:
            self.hangs(wire)
        except OSError as error:
            self.broke(wire, error)

    def read(self, wire: Wire) -> None:
        try:
            wire.read()
        except (OSError, ValueError) as error:
            self.broke(wire, error)

    def broke(self, wire: Wire, error: Exception) -> None:
        """A connection is gone, and with it probably all of them."""
        why = "connection lost" if isinstance(error, OSError) else reason(error)
        wire.close(why)
        self._close_idle(why)

    def hangs(self, wire: Wire) -> None:
        """It has not answered for too long: ask it no more."""
        wire.close(self._no_answer)
        self.go_out(self._no_answer)

    def go_out(self, why: str) -> None:
        self.out = why
        self._close_idle(why)
        self._on_out()

    def look(self) -> Optional[Wire]:
        """For a thread of the background: a connection, if the server answers; it is in again."""
        try:
            wire = self._learnt(self._make_native())
        except (RedisError, OSError) as error:
            self.out = self._said(error)
            return None
        self.out = ""
        return wire

    def inbox(self, channel: str) -> Inbox:
        """Listen to a channel here; raises NoAnswer."""
        return Inbox(self._looks.dedicated(), channel, self.name)

    def survey(self, frames: Frames, pattern: str) -> Iterator[Sequence[Tuple[str, ResourceView]]]:
        """See ``core.ports.Store.survey``; of this server alone."""
        if self.out:
            raise NoAnswer(self.name, may_run=False)
        return survey(self._looks, frames, pattern)

    def close(self) -> None:
        self._close_idle("closed")
        self._looks.close()

    def forget(self) -> None:
        """In a forked child: the parent's sockets are dropped, never shut down."""
        for wire in self._idle:
            wire.forget()
        self._idle = deque()

    @property
    def _no_answer(self) -> str:
        return f"no answer in {self.patience:g} s"

    def _has_caught_up(self, wire: Wire, even_behind: bool) -> bool:
        """Look at a connection that has been silent for long; False: it owes, and was put back.

        What else has come is read with the next answer, which saves asking the system for it.
        """
        now = time.monotonic()
        self.read(wire)
        silent = now - wire.since if wire.owed else 0.0
        if silent > self.patience:
            self.hangs(wire)
            return False
        if silent > _BEHIND and not even_behind:
            self._idle.append(wire)
            return False
        return True

    def _connected(self) -> Optional[Wire]:
        try:
            return self._learnt(self._make())
        except (RedisError, OSError) as error:
            self.go_out(self._said(error))
            return None

    def _learnt(self, connection: AbstractConnection) -> Wire:
        try:
            connection.connect()
            asked_at = time.monotonic()
            # The scripts as well: an answer that one is not known may be read too late.
            info, clock, appends, syncs, *_loaded = learn(connection, *_QUESTIONS, *_SCRIPTS)
            self.life = _life(asked_at, info, clock, appends, syncs)
            return Wire(connection, self.number, self.patience)
        except BaseException:
            connection.disconnect()
            raise

    def _said(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
            return "refused"
        if isinstance(error, OSError) and "timed out" in str(error).lower():
            return self._no_answer
        if "timeout" in str(error).lower() or "timed out" in str(error).lower():
            return self._no_answer
        return reason(error)

    def _drop_oldest(self) -> None:
        oldest = self._idle.popleft()
        if _is_surplus(oldest) and oldest.owed:
            self.read(oldest)  # what came when nobody needed it any more
        if not oldest.is_open:
            return
        if _is_surplus(oldest) and not oldest.owed:
            oldest.close("not needed")
        else:
            self._idle.appendleft(oldest)

    def _close_idle(self, why: str) -> None:
        while True:
            try:
                self._idle.pop().close(why)
            except IndexError:
                return


def _is_surplus(wire: Wire) -> bool:
    return time.monotonic() - wire.since > SURPLUS


def _life(asked_at: float, info: Any, clock: Any, appends: Any, syncs: Any) -> Life:
    if isinstance(info, ErrorReply) or isinstance(clock, ErrorReply):
        # What it may have forgotten is unknown: it is taken for newly started.
        return Life(asked_at, False, 0.0)
    seconds, micros = (int(part) for part in clock)
    now = seconds + micros / 1_000_000
    # Its uptime is the difference of two whole seconds of its clock: the latest start that fits.
    uptime = max(0.0, uptime_in(info) - 1 + micros / 1_000_000)
    persists = _says(appends, b"yes") and _says(syncs, b"always")
    return Life(asked_at - uptime, persists, now - asked_at)


def _says(setting: Any, value: bytes) -> bool:
    return isinstance(setting, list) and setting[1:] == [value]


_QUESTIONS = (
    ("INFO", "server"),
    ("TIME",),
    ("CONFIG", "GET", "appendonly"),
    ("CONFIG", "GET", "appendfsync"),
)
_SCRIPTS = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]
