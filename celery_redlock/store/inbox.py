"""The wake-ups of a process, as one server tells them.

From the subscription on the socket is ours: between a message and whoever it wakes stands one read.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from typing import Any, Deque, Optional

from redis.exceptions import RedisError, ResponseError

from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.answers import UNREADABLE
from celery_redlock.store.link import Link, reason
from celery_redlock.store.replies import ErrorReply, replies
from celery_redlock.store.scripts import command

# By its own name: up to Python 3.9 it is no TimeoutError.
_NOTHING_YET = (socket.timeout, BlockingIOError, ssl.SSLWantReadError)

#: Seconds without a message after which the server is asked whether it is there.
_SILENCE = 5.0

_PING = command("PING")


class Inbox:
    """A ``Subscription`` over one connection, with a ping when it has been silent for long.

    Raises NoAnswer, with the connection closed, where the server does not confirm it.
    """

    def __init__(self, link: Link, channel: str, server: str) -> None:
        self._link = link
        self._server = server
        connection: Any = link.connection
        self._socket = connection._sock
        self._replies = replies()
        self._messages: Deque[str] = deque()
        self._heard = time.monotonic()
        self._is_confirmed = self._is_pinged = False
        patience = self._timeout = self._socket.gettimeout()
        try:
            link.send(command("SUBSCRIBE", channel))
            while not self._is_confirmed:
                if not self._read(patience):
                    raise TimeoutError("no answer to the subscription")
        except (RedisError, OSError, *UNREADABLE) as error:
            link.close()
            raise NoAnswer(f"{server} ({reason(error)})") from error

    def get(self, timeout: float) -> Optional[str]:
        if not self._messages:
            try:
                if not self._read(timeout):
                    self._keep_alive()
            except (RedisError, OSError, *UNREADABLE) as error:
                raise NoAnswer(f"{self._server} ({reason(error)})") from error
        return self._messages.popleft() if self._messages else None

    def fileno(self) -> int:
        number: int = self._socket.fileno()
        return number

    def close(self) -> None:
        self._link.close()

    def _read(self, timeout: Optional[float]) -> bool:
        """Take what has come, or comes in so many seconds; whether anything did."""
        if timeout != self._timeout:
            self._wait_no_longer_than(timeout)
        try:
            data = self._socket.recv(1 << 16)
        except _NOTHING_YET:
            return False
        if not data:
            raise ConnectionError("the server closed the connection")
        self._heard, self._is_pinged = time.monotonic(), False
        for reply in self._replies.feed(data):
            self._take(reply)
        return True

    def _take(self, reply: Any) -> None:
        if isinstance(reply, ErrorReply):
            raise ResponseError(reply.text)
        kind, _channel, *told = reply
        if kind == b"message":
            self._messages.append(told[0].decode())
        elif kind == b"subscribe":
            self._is_confirmed = True

    def _wait_no_longer_than(self, timeout: Optional[float]) -> None:
        # Not a timeout of 0: with eventlet's TLS each read would time out at once.
        self._socket.setblocking(timeout != 0)
        if timeout != 0:
            self._socket.settimeout(timeout)
        self._timeout = timeout

    def _keep_alive(self) -> None:
        silent = time.monotonic() - self._heard
        if self._is_pinged and silent > 2 * _SILENCE:
            raise NoAnswer(f"{self._server} (silent for {silent:.0f} s)")
        if not self._is_pinged and silent > _SILENCE:
            self._link.send(_PING)
            self._is_pinged = True
