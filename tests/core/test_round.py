"""A round over several servers: what it is told of that it did not ask about."""

from __future__ import annotations

import os
import select
from typing import Any, Iterator, List

import pytest

from celery_redlock.store import round as rounds

Ends = List[int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    pipe = list(os.pipe())
    yield pipe
    for end in pipe:
        os.close(end)


def test_a_poll_without_poll_tells_only_of_what_it_was_asked_about(
    monkeypatch: pytest.MonkeyPatch, ends: Ends
) -> None:
    """Eventlet's select does: the ends of other files that were readable when it last looked."""
    others: Ends = []
    looked = select.select
    monkeypatch.delattr(select, "poll")

    def also_others(reading: Any, *rest: Any) -> Any:
        ready, writable, broken = looked(reading, *rest)
        return [*others, *ready], writable, broken

    monkeypatch.setattr(select, "select", also_others)
    ear, bell = ends
    poll = rounds.poller(is_native=False)
    poll.register(ear, select.POLLIN)
    others.append(bell + 1)
    assert poll.poll(0.0) == []
    os.write(bell, b"!")
    assert [number for number, _event in poll.poll(0.0)] == [ear]
