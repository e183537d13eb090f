"""Proof of death: that the process which holds or waits has ended, seen from its own host.

A pid proves nothing by itself. It is looked up only where it means the same process: in the same
boot of the same host and in the same pid namespace (containers share a boot id). There the process
is dead if nobody has its pid, if whoever has it started at another time, or if all that is left of
it waits for its parent to read how it ended. Everything else is no proof, a missing ``/proc`` entry
and a refused signal included: then the lease decides.
"""

from __future__ import annotations

import os
from typing import Callable, Optional

from celery_redlock.core.record import Record
from celery_redlock.locking import identity

#: Whether the process of a record is certainly dead.
Proof = Callable[[Record], bool]


def is_dead(record: Record) -> bool:
    """Whether the process of this record has certainly ended. Quick, and asks nobody else."""
    return is_of_this_host(record) and not _lives(record.pid, record.started)


def has_ended(pid: int, started: Optional[int]) -> bool:
    """The same of a process of this host, by when it started; None where that is not known."""
    return not _lives(pid, started)


def is_of_this_host(record: Record) -> bool:
    """Whether its pid means here what it meant there."""
    me = identity.here()
    known = me.boot_id is not None and me.pid_namespace is not None and record.pid > 0
    same = record.boot_id == me.boot_id and record.pid_namespace == me.pid_namespace
    return known and same


def _lives(pid: int, started: Optional[int]) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody has this pid, and does not let us ask
    sight = identity.look_at(pid)
    if sight is None or sight.has_ended:
        return sight is None
    return started is None or sight.started == started
