"""The arithmetic of a majority: votes, quarantine, pauses. Pure; times are seconds.

A resource is held while a majority of N independent servers has an entry for it: two majorities
have a server in common, and a server gives its place to one at a time. What makes it safe in time:

* A holder trusts its hold from before the first request was sent, for the lease less drift. Every
  server that voted keeps the entry for longer.
* Once that trust is over, only servers that were seen to have the entry before count for a renewal.
  A vote that was asked for earlier may be given late, after somebody else's hold.
* A server that has lost its data could vote a second time. So one that has restarted does not vote
  until every lease that it may have forgotten is over.

Fences. Each server offers a number greater than all that it has given; the greatest offer of the
majority is the fence. That alone does not only grow: of two majorities, the second may be without
the server that made the great offer, and the one server that they share never heard of it. So the
fence is written back to a majority, while the hold is trusted, before anybody is shown it: the next
majority has a server that knows it, and offers more.
"""

from __future__ import annotations

import random
from typing import Dict, Generic, Iterable, TypeVar

Refusal = TypeVar("Refusal")

#: Seconds within which one is woken that found nobody in the way but others who asked as well.
_APART = 0.05

#: A waiter asks by itself when it has waited so much longer, within these seconds: a hint may be
#: lost. Nobody else would notice.
_PART, _SOONEST, _LATEST = 0.5, 0.05, 1.0


def majority_of(servers: int) -> int:
    """How many of so many independent servers decide."""
    return servers // 2 + 1


class Tally(Generic[Refusal]):
    """The answers of N servers, by their number, to one question: yes with a number, no, or none.

    ``missing`` says of those without an answer how it is missing; of the others it is still open.
    """

    __slots__ = ("majority", "missing", "no", "servers", "yes")

    def __init__(self, servers: int) -> None:
        self.servers = servers
        self.majority = majority_of(servers)
        self.yes: Dict[int, int] = {}
        self.no: Dict[int, Refusal] = {}
        self.missing: Dict[int, str] = {}

    @property
    def is_won(self) -> bool:
        return len(self.yes) >= self.majority

    @property
    def is_complete(self) -> bool:
        return len(self.yes) + len(self.no) + len(self.missing) == self.servers

    @property
    def is_refused(self) -> bool:
        """Whether there could not have been a majority for it, whoever is silent."""
        return self.servers - len(self.no) < self.majority

    @property
    def is_unavailable(self) -> bool:
        """Whether so many are silent that nobody can have a majority now."""
        return self.servers - len(self.missing) < self.majority

    @property
    def has_heard_majority(self) -> bool:
        return len(self.yes) + len(self.no) >= self.majority

    @property
    def highest(self) -> int:
        """The greatest number among the servers that said yes: the fence of a majority."""
        return max(self.yes.values())


def difference(offsets: Iterable[float]) -> float:
    """The greatest difference between the clocks of servers, from how far each is off ours."""
    offsets = list(offsets)
    return max(offsets) - min(offsets) if offsets else 0.0


def quarantine(longest_lease: float, clock_difference: float) -> float:
    """For how long a server that has restarted does not vote.

    As long as leases that it may have forgotten; and until its clock, from which it makes fences,
    is past every clock that made a fence which it may have forgotten.
    """
    return longest_lease + 2 * clock_difference


def pause_apart() -> float:
    """Seconds until the next try of one who shared the votes with others: random, so that the next
    time one of them comes first."""
    return _APART * (0.1 + 0.9 * random.random())


def pause_waiting(waited: float) -> float:
    """Seconds until one who has waited so long asks again, if no hint wakes it."""
    pause = min(max(_PART * waited, _SOONEST), _LATEST)
    return pause * (0.75 + 0.5 * random.random())
