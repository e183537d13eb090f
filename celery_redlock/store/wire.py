"""One connection to one of several servers, on which requests go out before answers are read.

redis-py connects (address, TLS, authentication); from then on the socket is ours. It blocks only
where there is less room left than a request needs, and no longer than the patience with its server.
A server answers in the order that it was asked in, so a connection may go to its next user with
answers still to come: whoever reads them tells those that they belong to. What runs on one
connection runs in its order as well: a release sent after its ask, on the same one, never overtakes
it.

Used by one caller at a time.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from typing import Any, Callable, Deque, NamedTuple, Optional, Tuple, Union

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from celery_redlock.store.answers import STRANGE, UNREADABLE
from celery_redlock.store.replies import ErrorReply, replies
from celery_redlock.store.scripts import Script, command

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# By its own name: up to Python 3.9 it is no TimeoutError.
_TIMED_OUT = (socket.timeout, *_WOULD_BLOCK)


class TakesNoMore(ConnectionError):
    """The server has not read for so long that there is no room for another request."""


class Silence(NamedTuple):
    """No answer will come; ``may_run``: the request may have run, or may run later."""

    why: str
    may_run: bool = True


#: Told once, with the connection: the answer, or that there will be none.
Tell = Callable[[Any, Union[Any, Silence]], None]


class Call(NamedTuple):
    """A request, the same for all servers that it goes to.

    ``script`` is what it calls, which a server may have forgotten.
    """

    frame: bytes
    tell: Tell
    script: Optional[Script] = None


class Wire:
    """One connected connection to the server of this number.

    ``owed``: requests whose answers are still to come. ``since``: when the first of them was sent,
    or the one before it answered; of one that owes nothing, when it was last asked. ``patience``:
    seconds for which room for a request is waited for.
    """

    __slots__ = (
        *("_connection", "_patience", "_pending", "_replies", "_socket"),
        *("fd", "is_open", "owed", "server", "since"),
    )

    def __init__(self, connection: AbstractConnection, server: int, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        socket: Any = connection._sock
        # Not a timeout of 0: with eventlet's TLS each read would time out at once.
        socket.setblocking(False)
        self._socket = socket
        # TLS may have read more than the operating system knows of.
        self._pending: Callable[[], int] = getattr(socket, "pending", _nothing)
        self._replies = replies()
        self.server = server
        self.fd: int = socket.fileno()
        self.is_open = True
        self.owed: Deque[Call] = deque()
        self.since = time.monotonic()

    def ask(self, call: Call) -> None:
        """Send a request; raises OSError, and then whoever asked is told by ``close``."""
        if not self.owed:
            self.since = time.monotonic()
        self.owed.append(call)
        self._send(call.frame)

    def read(self) -> None:
        """Take what has come and tell whom it belongs to; OSError or ValueError: it is broken."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except _WOULD_BLOCK:
                return
            if not data:
                raise ConnectionError("the server closed the connection")
            for answer in self._replies.feed(data):
                if not self.owed:
                    return  # closed by whom the last answer was told
                self._tell(self.owed.popleft(), answer)
                if self.owed:
                    self.since = time.monotonic()
            if not self._pending():
                return

    def close(self, why: str) -> None:
        """Close it; whoever waits for an answer is told that there will be none."""
        self.is_open = False
        self._connection.disconnect()
        while self.owed:
            self.owed.popleft().tell(self, Silence(why))

    def forget(self) -> None:
        """In a forked child: nobody is told, and the parent's socket is not shut down."""
        self.owed.clear()

    def _tell(self, call: Call, answer: Any) -> None:
        if not isinstance(answer, ErrorReply):
            try:
                call.tell(self, answer)
            except UNREADABLE as error:
                call.tell(self, Silence(STRANGE))
                raise ValueError(STRANGE) from error
        elif answer.text.startswith("NOSCRIPT") and call.script is not None:
            # It did not run: as asked for anew, behind whatever was asked for meanwhile.
            self.owed.append(Call(b"", nobody))
            self._send(command("SCRIPT", "LOAD", call.script.text))
            self.owed.append(call)
            self._send(call.frame)
        else:
            call.tell(self, Silence(answer.text))

    def _send(self, frame: bytes) -> None:
        try:
            sent = self._socket.send(frame)
        except _WOULD_BLOCK:
            sent = 0
        if sent < len(frame):
            self._send_slowly(frame[sent:])

    def _send_slowly(self, rest: bytes) -> None:
        """A batch may be longer than the operating system takes at a time."""
        self._socket.setblocking(True)
        self._socket.settimeout(self._patience)
        try:
            self._socket.sendall(rest)
        except _TIMED_OUT as error:
            raise TakesNoMore from error
        finally:
            self._socket.setblocking(False)


def nobody(_wire: Any, _answer: Any) -> None:
    """Nobody is interested."""


def _nothing() -> int:
    return 0


def learn(connection: AbstractConnection, *commands: Tuple[str, ...]) -> Any:
    """The answers to some commands, before the connection is a Wire; errors come as ErrorReply."""
    connection.send_packed_command([b"".join(command(*each) for each in commands)])
    answers = []
    for _ in commands:
        try:
            answers.append(connection.read_response())
        except ResponseError as refusal:
            answers.append(ErrorReply(str(refusal)))
    return answers
