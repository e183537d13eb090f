"""Held connections to one server.

A connection (``link``) is used by one caller at a time and given back only after a whole answer:
one with an answer outstanding is closed, so that a late answer is never taken for another
request's.

Thread-safe without a mutex: idle connections live in a deque, whose append and pop are atomic.
Fork-safe: a child finds no connection of its parent's.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Sequence
from weakref import WeakSet

from redis.connection import AbstractConnection
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.answers import STRANGE
from celery_redlock.store.link import GARBLED, Call, Frame, Link, breaks, reason
from celery_redlock.store.refusals import is_deposed, is_refusal
from celery_redlock.store.scripts import Script

#: One that was not needed for so long, while others were, is closed.
SURPLUS = 10.0


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
        call = link.call_asking if asking else link.call
        try:
            try:
                answer = call(frame)
            except NoScriptError:
                link.load(script)
                answer = call(frame)
        except BaseException as error:
            self._fail(link, error)
            raise
        self._give_back(link)
        return answer

    def tell(self, script: Script, frame: Frame) -> None:
        """Call a script whose answer nobody waits for. Never raises NoAnswer."""
        with suppress(NoAnswer):
            link = self._take()
            try:
                link.tell(script, frame)
            except BaseException as error:
                self._fail(link, error)
                raise
            self._give_back(link)

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
            answers = link.call_all(calls)
        except BaseException as error:
            self._broken(link, error)
            raise
        broken = next((each for each in answers if breaks(each)), None)
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
            answers = link.exchange(frames)
            if script and any(isinstance(answer, NoScriptError) for answer in answers):
                with suppress(ResponseError):  # it will be refused then, too
                    link.load(script)
                answers = link.exchange(frames)
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
            answers = link.answers(many)
        except BaseException as error:
            self._fail(link, error)
            raise
        self._give_back(link)
        return answers

    def dedicated(self) -> Link:
        """A connection for one long use, never given back; raises NoAnswer."""
        try:
            return self._connect()
        except (*GARBLED, RedisError, OSError) as error:
            if isinstance(error, GARBLED):
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
            if self._is_usable(link):
                return link
            link.close()

    def _is_usable(self, link: Link) -> bool:
        """Whether one that was idle may be used again."""
        return not link.is_stale()

    def _give_back(self, link: Link) -> None:
        link.used_at = time.monotonic()
        self._idle.append(link)
        if self._idle_since() > SURPLUS:
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
            if time.monotonic() - oldest.used_at > SURPLUS:
                oldest.close()
            else:
                self._idle.appendleft(oldest)

    def _no_answer(self, error: Exception, may_run: bool) -> NoAnswer:
        return NoAnswer(f"{self.name} ({reason(error)})", may_run)


def _after_fork_in_child() -> None:
    for connections in list(_every):
        connections.forget()


_every: WeakSet[Connections] = WeakSet()
os.register_at_fork(after_in_child=_after_fork_in_child)
