"""One held connection to a server: what is sent on it, and what comes back.

redis-py makes the connection (address, TLS, authentication) and reads the answers; everything that
could send a request twice without our knowing is off. Used by one caller at a time.
"""

from __future__ import annotations

import math
import time
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Set

from redis.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    InvalidResponse,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from celery_redlock.store.answers import STRANGE, UNREADABLE
from celery_redlock.store.refusals import is_deposed
from celery_redlock.store.scripts import Script

#: What redis-py raises for bytes that no server sends, and we for the values that they make.
GARBLED = (*UNREADABLE, MemoryError, RecursionError)

#: A connection idle for longer is looked at before it is used: servers close idle ones.
_LOOK_AFTER = 1.0

#: A request, made from the grace argument of its script.
Frame = Callable[[str], bytes]


class Call(NamedTuple):
    """One call of a script; ``frame`` makes the request from the grace argument."""

    script: Script
    frame: Frame


class Link:
    """One connected connection and what was learnt of its server when it connected.

    ``term`` is what whoever made it wants to know of it: see ``store.sentinel``.
    """

    __slots__ = (
        *("_told", "_unheard", "connection", "grace_over", "grace_until_ms", "term", "used_at"),
    )

    def __init__(
        self, connection: AbstractConnection, grace: float, in_office: float = math.inf
    ) -> None:
        self.connection = connection
        self.term: Optional[object] = None
        self._unheard = 0
        self._told: Set[Script] = set()
        self.grace_until_ms = 0
        self.grace_over = 0.0
        self.used_at = time.monotonic()
        try:
            connection.connect()
            if grace > 0:
                self._learn_grace(grace, in_office)
        except BaseException:
            connection.disconnect()
            raise

    def _learn_grace(self, grace: float, in_office: float) -> None:
        """A server up for less than ``grace`` seconds does not grant what it does not know.

        Nor does one that has been the master, ``in_office``, for less.
        """
        self.send(_INFO_AND_TIME)
        info = self.receive()
        seconds, micros = (int(part) for part in self.receive())
        now_ms = seconds * 1000 + micros // 1000
        # Its uptime is the difference of two whole seconds of its clock: a tenth of a second may be
        # called one. The latest start that fits counts.
        uptime = max(0.0, uptime_in(info) - 1 + micros / 1_000_000)
        left = grace - min(uptime, in_office)
        if left > 0:
            self.grace_until_ms = now_ms + int(left * 1000)
            self.grace_over = time.monotonic() + left + 1.0

    @property
    def grace(self) -> str:
        """The grace argument of a script: server time in ms, or "0" once it is over."""
        if self.grace_over and time.monotonic() < self.grace_over:
            return str(self.grace_until_ms)
        return "0"

    def send(self, frame: bytes) -> None:
        self.connection.send_packed_command([frame], check_health=False)

    def receive(self) -> Any:
        if self._unheard:
            self._skip()
        try:
            return self.connection.read_response()
        except GARBLED as error:
            raise InvalidResponse(STRANGE) from error

    def tell(self, script: Script, frame: Frame) -> None:
        """Call a script whose answer nobody waits for: whoever reads next passes over it.

        Nor would anybody hear that the server does not know it, so it is loaded the first time.
        """
        if script not in self._told:
            self.send(_load(script))
            self._told.add(script)
            self._unheard += 1
        self.send(frame(self.grace))
        self._unheard += 1

    def _skip(self) -> None:
        unheard, self._unheard = self._unheard, 0
        self.answers(unheard)

    def call(self, frame: Frame) -> Any:
        """The answer to one request; raises what redis-py raises."""
        self.send(frame(self.grace))
        return self.receive()

    def call_asking(self, frame: Frame) -> Any:
        """As ``call``, where a slot is moving to."""
        self.send(_ASKING + frame(self.grace))
        self.receive()
        return self.receive()

    def load(self, script: Script) -> None:
        self.send(_load(script))
        self.receive()

    def exchange(self, frames: Sequence[bytes]) -> List[Any]:
        """Send requests, all at once; the answers, a refusal being one, in their order."""
        self.send(b"".join(frames))
        return self.answers(len(frames))

    def answers(self, count: int) -> List[Any]:
        """The answers to what was sent; what the server refuses is an answer: its error."""
        answers: List[Any] = []
        for _ in range(count):
            try:
                answers.append(self.receive())
            except ResponseError as refusal:
                answers.append(refusal)
        return answers

    def call_all(self, calls: Sequence[Call]) -> List[Any]:
        """Call scripts, all at once; the answers as far as the connection goes, then what broke it.

        Those that the server does not know are loaded and called again.
        """
        answers = self._converse([call.frame(self.grace) for call in calls])
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown and not breaks(answers[-1]):
            scripts = {calls[at].script for at in unknown}
            again = [_load(script) for script in scripts]
            again += [calls[at].frame(self.grace) for at in unknown]
            for at, answer in zip(unknown, self._converse(again)[len(scripts) :]):
                answers[at] = answer
        return answers

    def _converse(self, frames: Sequence[bytes]) -> List[Any]:
        answers: List[Any] = []
        try:
            self.send(b"".join(frames))
            for _ in frames:
                try:
                    answers.append(self.receive())
                except ResponseError as refusal:
                    answers.append(refusal)
        except (RedisError, OSError) as broken:
            answers += [broken] * (len(frames) - len(answers))
        return answers

    def is_stale(self) -> bool:
        """Whether the server has closed it, or sent what nobody asked for."""
        return time.monotonic() - self.used_at >= _LOOK_AFTER and self.has_broken()

    def has_broken(self) -> bool:
        """As ``is_stale``, and looks at once."""
        try:
            has_come = self.connection.can_read(0)
            if has_come and self._unheard:
                self._skip()
                has_come = self.connection.can_read(0)
            return bool(has_come)
        except (RedisError, OSError):
            return True

    def close(self) -> None:
        self.connection.disconnect()


def reason(error: Exception) -> str:
    """What went wrong, for people."""
    text = str(error) or type(error).__name__
    if "unauthenticated" in text or "Authentication required" in text:
        return "the server wants a password"
    if isinstance(error, AuthenticationError):
        return "the server refused the user name or password"
    if isinstance(error, ReadOnlyError):
        return "the server is a read-only replica"
    if isinstance(error, (ResponseError, ConnectionError)):
        return text
    return f"{type(error).__name__}: {text}" if type(error).__name__ not in text else text


def breaks(answer: Any) -> bool:
    """Whether the connection cannot be used after this answer."""
    if isinstance(answer, ResponseError):
        return is_deposed(answer)
    return isinstance(answer, Exception)


def uptime_in(info: Any) -> int:
    """Whole seconds that a server says in INFO that it runs."""
    for line in info.splitlines():
        if line.startswith(b"uptime_in_seconds:"):
            return int(line.split(b":")[1])
    return 0


def _load(script: Script) -> bytes:
    text = script.text.encode()
    return b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(text), text)


_INFO_AND_TIME = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*1\r\n$4\r\nTIME\r\n"
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
