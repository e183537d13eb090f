"""The server's answers (RESP2), read from whatever bytes have come so far.

redis-py's reader waits for the rest of an answer on one connection; here several connections are
read at once, each as far as it goes. By hiredis where it is installed, as redis-py does.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Protocol, Tuple

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]


class ErrorReply(Exception):
    """The server refused a request. An answer like any other, never raised."""

    def __init__(self, text: str) -> None:
        self.text = text


class Replies(Protocol):
    """Bytes in, whole answers out. Raises ValueError for what is no answer."""

    def feed(self, data: bytes) -> Iterable[Any]:
        """The answers that are whole now."""


class _Incomplete(Exception):
    pass


def replies() -> Replies:
    """What reads the answers of one connection."""
    return PythonReplies() if hiredis is None else HiredisReplies()


class HiredisReplies:
    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=ValueError, replyError=ErrorReply, notEnoughData=_INCOMPLETE
        )

    def feed(self, data: bytes) -> List[Any]:
        reader, answers = self._reader, []
        reader.feed(data)
        answer = reader.gets()
        while answer is not _INCOMPLETE:
            answers.append(answer)
            answer = reader.gets()
        return answers


class PythonReplies:
    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Any]:
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


_INCOMPLETE = object()
_INTEGER, _BULK, _ARRAY, _STATUS, _ERROR = b":$*+-"
