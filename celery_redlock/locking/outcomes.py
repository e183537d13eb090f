"""What a manager is asked, and how an ask can end. Busy is an answer, not an error.

An ask for several resources that ends in anything but Held has left none of them held; the outcome
is about the one that could not be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, Union

from celery_redlock.core.ports import Seen
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold


@dataclass(frozen=True)
class Patience:
    """How to wait in line. ``until`` is monotonic time, None for ever.

    ``rides_out``: an outage while it waits is waited out as well.
    """

    until: Optional[float] = None
    max_waiting: int = 0
    overflow: str = "skip"
    rides_out: bool = True


@dataclass(frozen=True)
class Held:
    holds: Tuple[Hold, ...]


@dataclass(frozen=True)
class Taken:
    """Held by others, and not waited for; ``full``: the line has as many waiters as allowed."""

    resource: str
    holders: Tuple[Seen, ...]
    waiting: int
    full: bool


@dataclass(frozen=True)
class GaveUp:
    """Waited as long as allowed."""

    resource: str
    holders: Tuple[Seen, ...]
    waited: float


@dataclass(frozen=True)
class Dropped:
    """The server has closed this ask; ``why`` as in Closed."""

    resource: str
    why: str


@dataclass(frozen=True)
class StoodBack:
    """Left the line to come again. ``seqs`` are the places that its holds had, 0 for none.

    New holds take them: a token that has left is never used again.
    """

    seqs: Tuple[int, ...]


@dataclass(frozen=True)
class Cancelled:
    """Left for good, as its owner wished."""


Outcome = Union[Held, Taken, GaveUp, Dropped]


def longest(holders: Tuple[Seen, ...]) -> Optional[Record]:
    """The record of the longest holder, if there is one that can be read."""
    record = Record.decode(holders[0].record) if holders else None
    return record.granted(holders[0].fence) if record else None
