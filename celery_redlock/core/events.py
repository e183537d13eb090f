"""What happened to a lock, as values: everything that is logged, counted or signalled.

No event carries a token, an argument or a password.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Union

from celery_redlock.core.record import Record


@dataclass(frozen=True)
class Acquired:
    """Held now. ``waited`` is in seconds, from the ask; ``queued``: it stood in line meanwhile."""

    resource: str
    fence: int
    owner: Record
    waited: float
    queued: bool = False


@dataclass(frozen=True)
class Waiting:
    """In line: ``rank`` 0 is the head."""

    resource: str
    owner: Record
    rank: int
    holder: Optional[Record]


@dataclass(frozen=True)
class Conflicted:
    """Not waited for, or no longer: ``decision`` says what happens instead.

    ``reason`` is "conflict" (held by another), "full" (so is the line), "replaced" (a newcomer took
    the place in line), "ended" (somebody took it out of the line) or "done" (another copy of this
    task has succeeded).
    """

    resource: str
    owner: Record
    holder: Optional[Record]
    decision: str
    reason: str = "conflict"


@dataclass(frozen=True)
class TimedOut:
    """Waited for as long as allowed."""

    resource: str
    owner: Record
    holder: Optional[Record]
    waited: float


@dataclass(frozen=True)
class Released:
    """Given back, and the server has said so. ``held`` is in seconds."""

    resource: str
    fence: Optional[int]
    owner: Record
    held: float


@dataclass(frozen=True)
class Abandoned:
    """Left before the server had said that it is over: the release goes on in the background."""

    resource: str
    owner: Record


@dataclass(frozen=True)
class Cleared:
    """The server has acknowledged the end of an abandoned hold."""

    resource: str
    owner: Record


@dataclass(frozen=True)
class RenewalFailed:
    """The lease could not be renewed; the holder may trust it for ``left`` more seconds."""

    resource: str
    owner: Record
    left: float
    servers: str


@dataclass(frozen=True)
class Unsure:
    """The lease was not renewed in time: another may have been granted the place."""

    resource: str
    owner: Record


@dataclass(frozen=True)
class Recovered:
    """Renewed after trouble."""

    resource: str
    owner: Record


@dataclass(frozen=True)
class Reestablished:
    """The server did not know the hold any more; it was brought back, nobody had its place."""

    resource: str
    fence: Optional[int]
    owner: Record


@dataclass(frozen=True)
class Lost:
    """No longer this owner's, who did not give it back: ``why`` says how that is known."""

    resource: str
    fence: Optional[int]
    owner: Record
    why: str


@dataclass(frozen=True)
class Unavailable:
    """The lock server did not answer an ask; ``decision`` says what happens instead.

    A wait that goes on says so once for each outage.
    """

    resource: str
    owner: Record
    servers: str
    decision: str


@dataclass(frozen=True)
class Kept:
    """Left to the owner's own retry, for ``left`` seconds at the most."""

    resource: str
    owner: Record
    left: float


@dataclass(frozen=True)
class Reclaimed:
    """A dead process held it: ``owner`` ended that hold.

    It wants the place, or is the worker that lost its child or sweeps its host when it starts.
    """

    resource: str
    owner: Record
    holder: Optional[Record]


@dataclass(frozen=True)
class Forced:
    """Released by force. ``by`` says who asked, ``holder`` is None where it could not be read."""

    resource: str
    by: str
    holder: Optional[Record]


@dataclass(frozen=True)
class WatchdogFailed:
    """A fault in the watchdog itself; it goes on."""

    error: BaseException


Event = Union[
    Acquired,
    Waiting,
    Conflicted,
    TimedOut,
    Released,
    Abandoned,
    Cleared,
    RenewalFailed,
    Unsure,
    Recovered,
    Reestablished,
    Lost,
    Unavailable,
    Kept,
    Reclaimed,
    Forced,
    WatchdogFailed,
]

#: Takes an event. Called outside every mutex, from any thread; must not raise and must be quick.
Emit = Callable[[Event], None]
