"""Fences over a majority only grow, whatever majorities there are, and whatever is forgotten."""

from __future__ import annotations

from typing import FrozenSet, List, NamedTuple, Optional, Union

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_redlock.core.quorum import Tally, difference, majority_of, quarantine

SERVERS = 5
LEASE = 4
#: How far the servers' clocks are off, in the same ticks.
OFFSETS = (0, 2, 0, 1, 3)

Reached = FrozenSet[int]


class Cycle(NamedTuple):
    """One that asks, shows its fence and leaves; each time some servers are reached, answers of
    the others are lost or never asked for. ``then``: so many ticks later the next one comes."""

    voting: Reached
    writing: Reached
    leaving: Reached
    then: int


class Restart(NamedTuple):
    server: int


Program = List[Union[Cycle, Restart]]

reached = st.frozensets(st.integers(0, SERVERS - 1), min_size=2)
steps = st.one_of(
    st.builds(Cycle, reached, reached, reached, st.integers(1, LEASE + 1)),
    st.builds(Restart, st.integers(0, SERVERS - 1)),
)
programs = st.lists(steps, max_size=14)


class Server:
    """The scripts of one server, as far as fences are concerned."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.restart(-1000)

    def restart(self, now: int) -> None:
        self.started, self.last = now, 0
        self.owner, self.deadline = 0, now

    def vote(self, owner: int, now: int) -> Optional[int]:
        if self.owner not in (0, owner) and self.deadline > now:
            return None
        self.last = max(self.last + 1, now + self.offset)
        self.owner, self.deadline = owner, now + LEASE
        return self.last

    def write_back(self, owner: int, fence: int, now: int) -> bool:
        if self.owner != owner or self.deadline <= now:
            return False
        self.last = max(self.last, fence)
        return True

    def leave(self, owner: int) -> None:
        if self.owner == owner:
            self.owner = 0


def shown(program: Program, *, writes_back: bool = True, waits: bool = True) -> List[int]:
    """The fences that were shown, in their order."""
    servers = [Server(offset) for offset in OFFSETS]
    silent_for = quarantine(LEASE, difference(OFFSETS)) if waits else 0
    now, fences = 0, []
    for owner, step in enumerate(program, 1):
        if isinstance(step, Restart):
            servers[step.server].restart(now)
            continue
        ballot: Tally[None] = Tally(SERVERS)
        for number in step.voting:
            if now - servers[number].started >= silent_for:
                offer = servers[number].vote(owner, now)
                if offer is not None:
                    ballot.yes[number] = offer
        if ballot.is_won:
            fence = ballot.highest
            written = [
                number
                for number in step.writing
                if writes_back and servers[number].write_back(owner, fence, now)
            ]
            if len(written) >= majority_of(SERVERS) or not writes_back:
                fences.append(fence)
        for number in step.leaving:
            servers[number].leave(owner)
        now += step.then
    return fences


def only_grow(fences: List[int]) -> bool:
    return all(before < after for before, after in zip(fences, fences[1:]))


@settings(max_examples=400, deadline=None)
@given(programs)
def test_a_fence_that_is_shown_is_greater_than_all_before(program: Program) -> None:
    assert only_grow(shown(program))


EVERYBODY = frozenset(range(SERVERS))

#: The first majority has the server whose clock is ahead, the second has not; one is in both.
FIRST = Cycle(frozenset({0, 1, 4}), EVERYBODY, EVERYBODY, 1)
SECOND = Cycle(frozenset({0, 2, 3}), EVERYBODY, EVERYBODY, 1)


def test_without_the_write_back_the_second_majority_offers_less() -> None:
    assert len(shown([FIRST, SECOND])) == 2
    assert not only_grow(shown([FIRST, SECOND], writes_back=False))


def test_without_the_quarantine_what_was_written_back_is_forgotten() -> None:
    forgetful: Program = [FIRST, Restart(0), SECOND]
    assert len(shown(forgetful)) == 1
    assert not only_grow(shown(forgetful, waits=False))
