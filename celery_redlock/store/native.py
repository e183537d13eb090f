"""Connections over the operating system's sockets, also where gevent or eventlet patched them.

A patched socket waits in its thread's hub and belongs to it. The background threads must neither
depend on a hub nor share one, so their connections are redis-py's, made with the original sockets.
"""

from __future__ import annotations

import select
import socket
from types import FunctionType, SimpleNamespace
from typing import Any, Type

from redis.connection import AbstractConnection, Connection, UnixDomainSocketConnection

from celery_redlock.core import unpatched


def native(connection_class: Type[AbstractConnection]) -> Type[AbstractConnection]:
    """This class with unpatched sockets; itself where nothing is patched.

    TLS stays as it is: the ``ssl`` module wraps patched sockets only. Such a connection works in
    the thread that made it, in a hub that no greenlet of another thread can hold up.
    """
    if not unpatched.is_patched("socket"):
        return connection_class
    if connection_class not in (Connection, UnixDomainSocketConnection):
        return connection_class
    name = f"Native{connection_class.__name__}"
    connect = _with_original_sockets(connection_class._connect)
    return type(name, (_NativeWait, connection_class), {"_connect": connect})


class _NativeWait:
    """``can_read`` without the patched ``select`` that redis-py would ask."""

    _sock: Any
    _parser: Any
    connect: Any

    def can_read(self, timeout: float = 0) -> bool:
        if self._sock is None:
            self.connect()
        return _has_unread(self._parser) or _is_readable(self._sock, timeout)


def _with_original_sockets(connect: Any) -> Any:
    """redis-py's own function, all its options included, that finds the originals in ``socket``."""
    originals = {name: unpatched.original("socket", name) for name in ("socket", "getaddrinfo")}
    sockets = SimpleNamespace(**{**vars(socket), **originals})
    known = {**connect.__globals__, "socket": sockets}
    return FunctionType(connect.__code__, known, connect.__name__, None, connect.__closure__)


def _has_unread(parser: Any) -> bool:
    """Whether the parser, hiredis's or redis-py's own, has read more than it gave."""
    reader = getattr(parser, "_reader", None)
    return bool(reader.has_data() if reader is not None else parser._buffer.unread_bytes())


def _is_readable(sock: Any, timeout: float) -> bool:
    poller = unpatched.original("select", "poll")()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(timeout * 1000))
