"""Held connections to one server.

redis-py makes the connection (address, TLS, authentication) and reads the answers; everything that
could send a request twice without our knowing is off. A connection is used by one caller at a time
and given back only after a whole answer: one with an answer outstanding is closed, so that a late
answer is never taken for another request's.

Thread-safe without a mutex: idle connections live in a deque, whose append and pop are atomic.
Fork-safe: a child finds no connection of its parent's.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Sequence
from weakref import WeakSet

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

from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.answers import STRANGE, UNREADABLE
from celery_redlock.store.refusals import is_deposed, is_refusal
from celery_redlock.store.scripts import Script

#: What redis-py raises for bytes that no server sends, and we for the values that they make.
_GARBLED = (*UNREADABLE, MemoryError, RecursionError)

#: A connection idle for longer is looked at before it is used: servers close idle ones.
_LOOK_AFTER = 1.0

#: One that was not needed for so long, while others were, is closed.
_SURPLUS = 10.0

#: A request, made from the grace argument of its script.
Frame = Callable[[str], bytes]


class Link:
    """One connected connection and what was learnt of its server when it connected."""

    __slots__ = ("connection", "grace_over", "grace_until_ms", "used_at")

    def __init__(
        self, connection: AbstractConnection, grace: float, in_office: float = math.inf
    ) -> None:
        self.connection = connection
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
        uptime = max(0.0, _uptime(info) - 1 + micros / 1_000_000)
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
        try:
            return self.connection.read_response()
        except _GARBLED as error:
            raise InvalidResponse(STRANGE) from error

    def is_stale(self) -> bool:
        """Whether the server has closed it, or sent what nobody asked for."""
        return time.monotonic() - self.used_at >= _LOOK_AFTER and self.has_broken()

    def has_broken(self) -> bool:
        """As ``is_stale``, and looks at once."""
        try:
            return bool(self.connection.can_read(0))
        except (RedisError, OSError):
            return True

    def close(self) -> None:
        self.connection.disconnect()


class Call(NamedTuple):
    """One call of a script; ``frame`` makes the request from the grace argument."""

    script: Script
    frame: Frame


class Posted(NamedTuple):
    """Requests that were sent, so many, and are not answered yet."""

    link: Link
    many: int


class Connections:
    """The held connections of this process to one server; ``name`` is its address for people."""

    def __init__(
        self, make: Callable[[], AbstractConnection], name: str, restart_grace: float = 0.0
    ) -> None:
        self._make = make
        self.name = name
        self._restart_grace = restart_grace
        self._idle: Deque[Link] = deque()
        _every.add(self)

    def run(self, script: Script, frame: Frame, asking: bool = False) -> Any:
        """Call a script once; ``frame`` makes the request from the grace argument.

        Raises NoAnswer, which says whether a copy may run. A script that the server does not know
        did not run: it is loaded and called again. ``asking``: where a slot is moving to.
        """
        link = self._take()
        call = _asking_call if asking else _call
        try:
            try:
                answer = call(link, frame)
            except NoScriptError:
                link.send(_load(script))
                link.receive()
                answer = call(link, frame)
        except BaseException as error:
            self._fail(link, error)
            raise
        self._give_back(link)
        return answer

    def run_all(self, calls: Sequence[Call]) -> List[Any]:
        """Call scripts once each, all sent at once; the answers in their order.

        NoAnswer is in the place of what was not answered, and of what the server refused: one that
        fails never skips the others.
        """
        if not calls:
            return []
        try:
            link = self._take()
        except NoAnswer as silence:
            return [silence] * len(calls)
        try:
            answers = _call_all(link, calls)
        except BaseException as error:
            self._broken(link, error)
            raise
        broken = next((each for each in answers if _breaks(each)), None)
        if broken is not None:
            self._broken(link, broken)
        else:
            self._give_back(link)
        return [
            self._no_answer(each, not is_refusal(each)) if isinstance(each, Exception) else each
            for each in answers
        ]

    def read(self, frames: Sequence[bytes], script: Optional[Script] = None) -> List[Any]:
        """Send requests that write nothing, all at once; the answers in their order.

        What the server refuses is an answer: its error. ``script`` is what the requests call.
        """
        link = self._take()
        try:
            answers = _exchange(link, frames)
            if script and any(isinstance(answer, NoScriptError) for answer in answers):
                _exchange(link, [_load(script)])
                answers = _exchange(link, frames)
        except BaseException as error:
            self._fail(link, error, may_run=False)
            raise
        self._give_back(link)
        return answers

    def post(self, frames: Sequence[Frame]) -> Posted:
        """Send requests, all at once, whose answers ``collect`` reads; raises NoAnswer."""
        link = self._take()
        try:
            link.send(b"".join([frame(link.grace) for frame in frames]))
        except BaseException as error:
            self._fail(link, error)
            raise
        return Posted(link, len(frames))

    def collect(self, posted: Posted) -> List[Any]:
        """The answers in their order; what the server refuses is an answer: its error."""
        link, many = posted
        try:
            answers = _answers(link, many)
        except BaseException as error:
            self._fail(link, error)
            raise
        self._give_back(link)
        return answers

    def dedicated(self) -> Link:
        """A connection for one long use, never given back; raises NoAnswer."""
        try:
            return self._connect()
        except (*_GARBLED, RedisError, OSError) as error:
            if isinstance(error, _GARBLED):
                error = InvalidResponse(STRANGE)
            raise self._no_answer(error, may_run=False) from error

    def apart(self) -> Connections:
        """Others to the same server, which learn nothing of it when they connect."""
        return Connections(self._make, self.name)

    def unconnected(self) -> AbstractConnection:
        """One more connection, not connected: it says what they are made with."""
        return self._make()

    def has_broken(self) -> bool:
        """See ``Store.has_broken``."""
        try:
            link = self._idle.pop()
        except IndexError:
            link = self.dedicated()
        if link.has_broken():
            link.close()
            return True
        self._idle.append(link)
        return False

    def close(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def forget(self) -> None:
        """In a forked child: the parent's sockets are dropped, never shut down."""
        self._idle = deque()

    def _connect(self) -> Link:
        return Link(self._make(), self._restart_grace)

    def _fail(self, link: Link, error: BaseException, may_run: bool = True) -> None:
        """Raise NoAnswer for what went wrong on a connection; an interruption is not that."""
        self._broken(link, error)
        if isinstance(error, (RedisError, OSError)):
            raise self._no_answer(error, may_run and not is_refusal(error)) from error

    def _broken(self, link: Link, error: BaseException) -> None:
        if isinstance(error, ResponseError) and not is_deposed(error):
            if is_refusal(error):
                self._give_back(link)
                return
        elif isinstance(error, (RedisError, OSError)):
            # Its server has gone, or is no longer the master: so it is for the others.
            self.close()
        # Interrupted, too: an answer may be under way.
        link.close()

    def _take(self) -> Link:
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return self.dedicated()
            if not link.is_stale():
                return link
            link.close()

    def _give_back(self, link: Link) -> None:
        link.used_at = time.monotonic()
        self._idle.append(link)
        if self._idle_since() > _SURPLUS:
            self._drop_oldest()

    def _idle_since(self) -> float:
        """Seconds since the oldest was used: the latest is taken first, so it may be surplus."""
        try:
            return time.monotonic() - self._idle[0].used_at
        except IndexError:  # taken by others meanwhile
            return 0.0

    def _drop_oldest(self) -> None:
        with suppress(IndexError):
            oldest = self._idle.popleft()
            if time.monotonic() - oldest.used_at > _SURPLUS:
                oldest.close()
            else:
                self._idle.appendleft(oldest)

    def _no_answer(self, error: Exception, may_run: bool) -> NoAnswer:
        return NoAnswer(f"{self.name} ({reason(error)})", may_run)


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


def _call(link: Link, frame: Frame) -> Any:
    link.send(frame(link.grace))
    return link.receive()


def _asking_call(link: Link, frame: Frame) -> Any:
    link.send(_ASKING + frame(link.grace))
    link.receive()
    return link.receive()


def _exchange(link: Link, frames: Sequence[bytes]) -> List[Any]:
    link.send(b"".join(frames))
    return _answers(link, len(frames))


def _answers(link: Link, count: int) -> List[Any]:
    answers: List[Any] = []
    for _ in range(count):
        try:
            answers.append(link.receive())
        except ResponseError as refusal:
            answers.append(refusal)
    return answers


def _call_all(link: Link, calls: Sequence[Call]) -> List[Any]:
    answers = _converse(link, [call.frame(link.grace) for call in calls])
    unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown and not _breaks(answers[-1]):
        scripts = {calls[at].script for at in unknown}
        again = [_load(script) for script in scripts]
        again += [calls[at].frame(link.grace) for at in unknown]
        for at, answer in zip(unknown, _converse(link, again)[len(scripts) :]):
            answers[at] = answer
    return answers


def _converse(link: Link, frames: Sequence[bytes]) -> List[Any]:
    """The answers as far as the connection goes, then what broke it."""
    answers: List[Any] = []
    try:
        link.send(b"".join(frames))
        for _ in frames:
            try:
                answers.append(link.receive())
            except ResponseError as refusal:
                answers.append(refusal)
    except (RedisError, OSError) as broken:
        answers += [broken] * (len(frames) - len(answers))
    return answers


def _breaks(answer: Any) -> bool:
    """Whether the connection cannot be used after this answer."""
    if isinstance(answer, ResponseError):
        return is_deposed(answer)
    return isinstance(answer, Exception)


def _uptime(info: Any) -> int:
    for line in info.splitlines():
        if line.startswith(b"uptime_in_seconds:"):
            return int(line.split(b":")[1])
    return 0


def _load(script: Script) -> bytes:
    text = script.text.encode()
    return b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(text), text)


def _after_fork_in_child() -> None:
    for connections in list(_every):
        connections.forget()


_every: WeakSet[Connections] = WeakSet()
os.register_at_fork(after_in_child=_after_fork_in_child)

_INFO_AND_TIME = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*1\r\n$4\r\nTIME\r\n"
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
