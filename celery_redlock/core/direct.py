"""What may be said of a ``Lock``: its name, its terms and its times; one clear error each."""

from __future__ import annotations

from typing import Any

from celery_redlock.core.kinds import choice, duration, whole
from celery_redlock.core.ports import Terms
from celery_redlock.core.template import LONGEST, NO_TAG
from celery_redlock.core.timing import to_ms
from celery_redlock.exceptions import ConfigurationError

TIMEOUT = duration()
MORE_TIME = duration(above=True)

_TTL = duration(1, 86400)
_LIMIT = whole("write how many may hold it at once")
_MODE = choice("exclusive", "shared")
_ADVICE = 'write for instance celery_redlock.resource("account:{id}", id=account_id)'


def terms_of(ttl: Any, limit: Any, mode: Any) -> Terms:
    """The terms on which a Lock asks; ConfigurationError for what they cannot be."""
    lease = _TTL.check("Lock: ttl", ttl)
    most = _LIMIT.check("Lock: limit", limit)
    kind = _MODE.check("Lock: mode", mode)
    if kind == "shared" and most > 1:
        raise ConfigurationError(
            f'Lock: limit must be 1 with mode="shared", got {most}; any number may share a lock: '
            "leave out limit, or mode to bound the number"
        )
    return Terms(mode=kind, limit=most, lease_ms=to_ms(lease))


def checked_name(name: Any) -> str:
    """The name as it stands: what ``resource`` and ``lock_resource`` give is escaped already.

    Escaped once more it would be another resource than the task's.
    """
    if not isinstance(name, str):
        got = "several names" if isinstance(name, tuple) else f"a {type(name).__name__}"
        raise ConfigurationError(f"Lock: name must be one name, a str, got {got}; {_ADVICE}")
    text = str.__str__(name)
    if not text.isprintable() or not text.strip():
        raise ConfigurationError(
            f"Lock: name must be some printable text, got {text[:80]!a}; {_ADVICE}"
        )
    if text.startswith(NO_TAG):
        raise ConfigurationError(
            f"Lock: name must not begin with a closing brace, got {text[:80]!a}; {_ADVICE}"
        )
    length = len(text.encode())
    if length > LONGEST:
        raise ConfigurationError(
            f"Lock: name must have at most {LONGEST} bytes, got {length}; {_ADVICE}"
        )
    return text
