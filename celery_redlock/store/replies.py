"""The server's answers (RESP2), read from whatever bytes have come so far.

redis-py's reader waits for the rest of an answer on one connection; here several connections are
read at once, each as far as it goes.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple


class ErrorReply:
    """The server refused a request."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Incomplete(Exception):
    pass


class Replies:
    """Bytes in, whole answers out. Raises ValueError for what is no answer."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Any]:
        """The answers that are whole now."""
        data = self._data = self._data + data
        at = 0
        try:
            while at < len(data):
                answer, at = _answer(data, at)
                self._data = data[at:]
                yield answer
        except _Incomplete:
            return


def _answer(data: bytes, at: int) -> Tuple[Any, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, said, after = data[at], data[at + 1 : end], end + 2
    if kind == _INTEGER:
        return int(said), after
    if kind == _BULK:
        return _bulk(data, int(said), after)
    if kind == _ARRAY:
        return _array(data, int(said), after)
    if kind == _STATUS:
        return said, after
    if kind == _ERROR:
        return ErrorReply(said.decode(errors="replace")), after
    raise ValueError("what came is no answer of a Redis or Valkey server")


def _bulk(data: bytes, size: int, at: int) -> Tuple[Any, int]:
    if size < 0:
        return None, at
    if len(data) < at + size + 2:
        raise _Incomplete
    return data[at : at + size], at + size + 2


def _array(data: bytes, size: int, at: int) -> Tuple[List[Any], int]:
    items = []
    for _ in range(size):
        item, at = _answer(data, at)
        items.append(item)
    return items, at


_INTEGER, _BULK, _ARRAY, _STATUS, _ERROR = b":$*+-"
