"""What locking asks of a lock server: the requests, the answers and the Store itself.

Every store, the memory store included, gives these the same meaning; tests/contract holds them to
it. Busy is an answer, not an error. The only error is NoAnswer: then it is unknown whether the
request ran, or will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterator, NamedTuple, Optional, Protocol, Sequence, Tuple, Union

from celery_redlock.exceptions import LockUnavailable


class NoAnswer(LockUnavailable):
    """No answer came. ``may_run``: a copy of the request may have run, or may run later."""

    def __init__(self, servers: str, may_run: bool = True) -> None:
        super().__init__(servers)
        self.may_run = may_run


# --- requests -----------------------------------------------------------------------------------


class Terms(NamedTuple):
    """On what terms a resource is asked for: what a holder's entry will say of it."""

    mode: str = "exclusive"  # or "shared"
    limit: int = 1
    lease_ms: int = 30_000

    @property
    def is_for_one(self) -> bool:
        return self.mode == "exclusive" and self.limit == 1


class Line(NamedTuple):
    """How to join the line if the resource is busy.

    ``seq`` is the place that an earlier join was given, 0 for a new one: a rejoin keeps its place,
    and is no newcomer to a line that is full meanwhile.
    ``max_waiting`` 0 is no bound; ``overflow`` is "skip" or "drop_oldest".
    """

    inbox: str
    waiter_ttl_ms: int
    grant_ttl_ms: int
    seq: int = 0
    max_waiting: int = 0
    overflow: str = "skip"


class Acquire(NamedTuple):
    """Ask for a resource; also joins its line, refreshes a place in it and confirms a grant.

    Idempotent per token: a copy that runs twice, or late, grants nothing twice. ``line`` None asks
    once. ``kept`` names a hold that this task kept over its retry, ``orphans`` are tokens of this
    process whose release was never acknowledged: the server drops and buries them first.
    """

    resource: str
    token: str
    terms: Terms
    record: str
    line: Optional[Line] = None
    kept: str = ""
    orphans: Tuple[str, ...] = ()


class Leave(NamedTuple):
    """Release, cancel, pass on or replace: drops every token from holders and line, then grants.

    ``tomb_ms`` > 0 buries each token for so long, also one that was not found: a late copy of its
    request then does nothing. ``why`` is what such a copy, or a late renewal, is told. With a
    ``forced_by`` there, the fence moves past every holder that was dropped, granted or not.
    """

    resource: str
    tokens: Tuple[str, ...]
    tomb_ms: int = 0
    why: str = "left"
    lease_ms: int = 30_000


class Renew(NamedTuple):
    """Extend one hold, identified by token and fence. Never creates one, never shortens a lease.

    With ``kept`` the hold is from now on kept under that name, over the task's retry; a ``record``
    stands in the place of the one that its ask brought. ``trusted_until``: monotonic time, for a
    store that has not granted the hold itself.
    """

    resource: str
    token: str
    fence: int
    lease_ms: int
    kept: str = ""
    record: str = ""
    trusted_until: float = math.inf


class Beat(NamedTuple):
    """A waiter's heartbeat. Never adds a waiter; always lets the line move."""

    resource: str
    token: str
    waiter_ttl_ms: int


class Reestablish(NamedTuple):
    """Bring back a hold that the server no longer knows, if nobody needed its place meanwhile."""

    resource: str
    token: str
    fence: int
    terms: Terms
    record: str
    trusted: bool


# --- answers ------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A holder as another sees it; ``state`` as in HolderView."""

    token: str
    fence: int
    state: str
    record: str


class Granted(NamedTuple):
    """``is_settled``: the fence may be shown; otherwise not before the hold has been renewed."""

    fence: int
    is_settled: bool = True


class Queued(NamedTuple):
    """In line: ``rank`` 0 is the head; in ``next_ms`` the earliest lease of a holder ends.

    ``holders`` are all live ones, the longest first, for the head; for the others the longest, and
    in the answers to heartbeats only for the first that a call names of each resource. ``at_ms`` is
    the server's time of the answer, 0 if not told.
    """

    seq: int
    rank: int
    next_ms: int
    holders: Tuple[Seen, ...] = ()
    at_ms: int = 0


class Busy(NamedTuple):
    """Not granted and not in line. ``full``: the line has as many waiters as allowed.

    ``holders`` are the live ones, the longest first. It can be empty: somebody is about to be
    granted it, or the server has just started (then ``next_ms`` is the rest of its grace).
    """

    next_ms: int
    holders: Tuple[Seen, ...] = ()
    full: bool = False
    waiting: int = 0


class Closed(NamedTuple):
    """Dead: ``why`` is "left", "replaced", "dead", "overflow by …" or "forced by …"."""

    why: str


class Left(NamedTuple):
    """What was dropped: "holder", "waiter" or "absent". All three are definite."""

    what: str


# Answers without fields are no tuples: empty ones would all be equal, and false.


@dataclass(frozen=True)
class Extended:
    pass


@dataclass(frozen=True)
class Gone:
    """The server has no such hold, and no record of why."""


@dataclass(frozen=True)
class Refused:
    """Another was granted the place: the hold cannot be brought back."""


@dataclass(frozen=True)
class Unknown:
    """The server has no such waiter: join again with the old place."""


@dataclass(frozen=True)
class Confirm:
    """Granted by another's release: confirm it with an Acquire."""


class HolderView(NamedTuple):
    """One holder for people: ``remaining_ms`` <= 0 means its lease has passed."""

    token: str
    fence: int
    mode: str
    limit: int
    state: str  # "granted", "confirmed" or "kept"
    remaining_ms: int
    record: str

    @property
    def seen(self) -> Seen:
        return Seen(self.token, self.fence, self.state, self.record)


class WaiterView(NamedTuple):
    token: str
    seq: int
    remaining_ms: int
    record: str


class ForcedView(NamedTuple):
    """The latest release by force, as long as its tombstone stands. ``by`` is who asked for it."""

    by: str
    ago_ms: int


class ResourceView(NamedTuple):
    """A resource at one moment. ``fence`` is the last one issued, 0 where none is known."""

    fence: int
    holders: Tuple[HolderView, ...]
    waiters: Tuple[WaiterView, ...]
    forced: Optional[ForcedView] = None


AcquireAnswer = Union[Granted, Queued, Busy, Closed]
AskAnswer = Union[Sequence[AcquireAnswer], NoAnswer]
LeaveAnswer = Union[Left, NoAnswer]
RenewAnswer = Union[Extended, Gone, Closed, NoAnswer]
BeatAnswer = Union[Confirm, Queued, Unknown, Closed, NoAnswer]
ReestablishAnswer = Union[Extended, Refused, Closed]


# --- messages -----------------------------------------------------------------------------------


class Message(NamedTuple):
    """What an inbox is told of one of its waiters, in words with a space between them.

    "G <token> <fence> <ms>": granted, when the server's clock said so. "G <token>": ask again, it
    may be free. "O <token>": dropped. "H <token>": first in line from now on.
    """

    kind: str
    token: str
    fence: int = 0
    at_ms: int = 0

    @classmethod
    def read(cls, text: str) -> Message:
        """Of a text that is none of ours it tells nobody anything."""
        kind, _, rest = text.partition(" ")
        token, *numbers = rest.split(" ")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            return cls(kind, token, *map(int, numbers))
        return cls(kind, token)


# --- the store ----------------------------------------------------------------------------------


class Subscription(Protocol):
    """Wake-ups sent to one inbox. Used by one thread."""

    def get(self, timeout: float) -> Optional[str]:
        """The next message, as ``Message`` reads it, or None after ``timeout``.

        Raises NoAnswer when the connection broke: messages may have been missed.
        """

    def close(self) -> None: ...


class Store(Protocol):
    """A lock server. Any thread may call any method at any time; after a fork both sides go on.

    Nothing is retried inside: the caller must know whether a copy of its request is unaccounted
    for. Every method but the batches raises NoAnswer; a batch puts it in the place of the parts
    that it concerns, so that one failed part never skips the others.
    """

    def acquire(self, request: Acquire) -> AcquireAnswer: ...

    def acquire_all(self, requests: Sequence[Acquire]) -> Sequence[AcquireAnswer]:
        """Ask for different resources, in their order, up to the first that is not granted.

        If that one is Queued, those before it stay granted; after any other answer none does.
        """

    def acquire_batch(self, asks: Sequence[Sequence[Acquire]]) -> Sequence[AskAnswer]:
        """Many asks, each for one resource as ``acquire`` or for several as ``acquire_all``.

        They run one by one, in any order. ``store.batches`` has what does for a store that can but
        send one after the other.
        """

    def leave(self, request: Leave) -> Left: ...

    def leave_batch(self, requests: Sequence[Leave]) -> Sequence[LeaveAnswer]:
        """Many releases, each as ``leave``."""

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]: ...

    def secure(self, request: Renew) -> None:
        """Send one renewal, and neither wait for its answer nor hear it. Never raises NoAnswer.

        For a grant of a moment, which only stores with one server of a resource make: once this
        returns, whoever asked for it may be stopped and still has the lease.
        """

    def heartbeat(self, requests: Sequence[Beat]) -> Sequence[BeatAnswer]: ...

    def reestablish(self, request: Reestablish) -> ReestablishAnswer: ...

    def inspect(self, resource: str) -> ResourceView: ...

    def survey(self, pattern: str = "*") -> Iterator[Sequence[Tuple[str, ResourceView]]]:
        """Whatever is held or waited for, and fits the glob ``pattern``; and some of what is not.

        In parts, some of them empty, each a moment of its own: one that changes meanwhile may be
        missed, and one may come twice. Walks over all that the server keeps.
        """

    def subscribe(self, inbox: str) -> Subscription:
        """Listen to an inbox; returns once the server has confirmed it."""

    def has_broken(self) -> bool:
        """Whether a server has gone: the connection that is kept to it has ended.

        Sends nothing where there is one; else it makes one, and may raise NoAnswer.
        """

    def close(self) -> None:
        """Close idle connections. The store stays usable."""
