"""Answers are read as they come, in whatever parts, with hiredis as without."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Callable, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_redlock.store.replies import ErrorReply, HiredisReplies, PythonReplies, Replies

PARSERS: List[Callable[[], Replies]] = [PythonReplies]
if find_spec("hiredis"):
    PARSERS.append(HiredisReplies)

LEAVES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=20),
    st.text("abc ", max_size=9).map(ErrorReply),
)
ANSWERS = st.lists(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=9))


def written(value: Any) -> bytes:
    """A value as the server writes it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, ErrorReply):
        return b"-%b\r\n" % value.text.encode()
    return b"*%d\r\n" % len(value) + b"".join(written(each) for each in value)


def comparable(value: Any) -> Any:
    if isinstance(value, ErrorReply):
        return ("refused", value.text)
    return [comparable(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("parser", PARSERS)
@given(answers=ANSWERS, size=st.integers(1, 12))
def test_what_comes_in_parts_is_read_as_it_was_written(
    parser: Callable[[], Replies], answers: List[Any], size: int
) -> None:
    replies, told = parser(), []
    data = b"".join(written(answer) for answer in answers)
    for start in range(0, len(data), size):
        told += replies.feed(data[start : start + size])
    assert comparable(told) == comparable(answers)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b":x\r\n", b"*x\r\n", b"\x00\xff\r\n"])
def test_what_is_no_answer_is_refused(parser: Callable[[], Replies], data: bytes) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):  # each parser has its own words
        list(parser().feed(data))
