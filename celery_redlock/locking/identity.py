"""Who this process is, in terms with which another can prove that it is dead.

A pid alone proves nothing: pids are used again. With the boot id, the pid namespace and the start
time of the process it names one process for ever.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from celery_redlock.locking import process


@dataclass(frozen=True)
class Identity:
    """``started`` is in clock ticks since boot; None where the system does not tell (no /proc)."""

    host: str
    pid: int
    boot_id: Optional[str]
    pid_namespace: Optional[str]
    started: Optional[int]


class _Cache:
    life = -1
    identity: Identity


def here() -> Identity:
    """The identity of this process; read once a life."""
    if _Cache.life != process.life():
        _Cache.identity = _read()
        _Cache.life = process.life()
    return _Cache.identity


def _read() -> Identity:
    pid = os.getpid()
    return Identity(
        host=socket.gethostname(),
        pid=pid,
        boot_id=_boot_id(),
        pid_namespace=_namespace(),
        started=started(pid),
    )


#: The kernel's PF_EXITING: set before it closes the files of a process, whose death comes after.
_EXITING = 0x4


class Sight(NamedTuple):
    """A process of this host as /proc shows it; ``started`` as in Identity.

    ``is_ending``: the kernel takes it apart, or has done so.
    """

    started: int
    has_ended: bool
    is_ending: bool


def look_at(pid: int) -> Optional[Sight]:
    """None if it cannot be read, which proves nothing: it may be hidden from us."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name may contain spaces and parentheses; what follows its last one does not.
    fields = stat.rpartition(")")[2].split()
    state, flags, threads, started = fields[0], int(fields[6]), int(fields[17]), int(fields[19])
    # Its parent has not read how it ended, which in a container nobody may ever do. With another
    # thread it still runs: the first one alone has ended.
    has_ended = state in "ZX" and threads <= 1
    return Sight(started, has_ended, is_ending=has_ended or bool(flags & _EXITING))


def started(pid: int) -> Optional[int]:
    """When a process of this host started, None if that cannot be read."""
    sight = look_at(pid)
    return None if sight is None else sight.started


def _boot_id() -> Optional[str]:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> Optional[str]:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
