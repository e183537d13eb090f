"""Why a token is dead: words of ``Leave.why`` and ``Closed.why``, and of a hold that is lost."""

from __future__ import annotations

import re
from typing import Optional

_FORCED = "forced by "
_OVERFLOW = "overflow"
_OVERFLOW_BY = "overflow by "
_ID_IN_RECORD = re.compile(r'"id":"([^"\\]*)"')


def forced_by(who: str) -> str:
    """The ``why`` of a release by force."""
    return _FORCED + who


def who_forced(why: str) -> Optional[str]:
    """Who asked for the release by force that this ``why`` tells of; None for any other."""
    return why[len(_FORCED) :] if why.startswith(_FORCED) else None


def refused(*, is_trusted: bool) -> str:
    """Why a hold was not brought back, asked for while it was trusted or after that.

    After that a server that has lost its data refuses as well: it does not know who held meanwhile.
    """
    told = "granted to another"
    return told if is_trusted else f"{told}, or forgotten by the lock server"


def overflow_by(record: str) -> str:
    """The ``why`` of a waiter that was dropped for a newcomer with this record."""
    found = _ID_IN_RECORD.search(record)
    return _OVERFLOW_BY + found[1] if found else _OVERFLOW


def is_overflow(why: str) -> bool:
    """Whether this ``why`` tells of a waiter that was dropped for a newcomer."""
    return why == _OVERFLOW or why.startswith(_OVERFLOW_BY)


def who_overflowed(why: str) -> Optional[str]:
    """The task id of the newcomer; None where it has none."""
    return why[len(_OVERFLOW_BY) :] if why.startswith(_OVERFLOW_BY) else None
