"""What is known of a lock server and of an app, as plain values. Durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple


@dataclass(frozen=True)
class Permissions:
    """What the app's user of a server may not do."""

    #: Commands that locks need, and that only looking at them does ("ls").
    commands: Tuple[str, ...] = ()
    looking: Tuple[str, ...] = ()
    keys: bool = False
    channels: bool = False


@dataclass(frozen=True)
class ServerFacts:
    """One lock server. What could not be learnt is None, or missing in ``info`` and ``config``."""

    address: str
    #: Names of this server's keys and channels begin so.
    prefix: str = ""
    #: Why it does not answer; None if it does.
    silence: Optional[str] = None
    #: INFO and CONFIG GET, as the server writes them.
    info: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    #: By how much its clock is ahead of ours, and how certain that is.
    clock_ahead: float = 0.0
    clock_error: float = 0.0
    #: Round trips in their order of length.
    round_trips: Tuple[float, ...] = ()
    permissions: Permissions = Permissions()
    #: Why the locks' own scripts failed on a probe resource; None if they did what they should.
    scripts_failed: Optional[str] = None
    #: How long a request is waited for; None for ever.
    timeout: Optional[float] = None
    is_authenticated: bool = True
    #: On this host, through a loopback address or a unix socket.
    is_local: bool = True
    host: str = ""


@dataclass(frozen=True)
class TaskFacts:
    """One locked task, its options in force."""

    name: str
    lease: float = 30.0
    max_hold: Optional[float] = None
    wait_timeout: Optional[float] = None
    on_conflict: str = "wait"
    soft_time_limit: Optional[float] = None
    time_limit: Optional[float] = None
    acks_late: bool = False
    keeps_results: bool = True


@dataclass(frozen=True)
class AppFacts:
    """One app. ``errors`` are about its configuration, ``import_error`` about its task modules."""

    errors: Tuple[str, ...] = ()
    import_error: Optional[str] = None
    is_enabled: bool = True
    has_own_prefix: bool = True
    prefix: str = ""
    restart_grace: float = 2.0
    #: None where the broker delivers nothing again by time.
    visibility_timeout: Optional[float] = None
    #: A worker dates the messages that it keeps anew, so that the broker counts from then on.
    renews_messages: bool = False
    max_park: Optional[float] = None
    tasks: Tuple[TaskFacts, ...] = ()
    #: The lock servers' names; and those that each worker that answers goes by, none if it locks
    #: nothing.
    servers: Tuple[str, ...] = ()
    workers: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)

    @property
    def shortest_lease(self) -> float:
        return min((task.lease for task in self.tasks), default=30.0)

    @property
    def longest_lease(self) -> float:
        return max((task.lease for task in self.tasks), default=30.0)
