"""What Redlock, a lock over several independent servers, cannot give, and refuses at once.

Several holders of one resource would need a count that a majority agrees on, and several resources
a majority of each at the same moment.
"""

from __future__ import annotations

from typing import Any, Optional

from celery_redlock.exceptions import ConfigurationError

_HERE = "over several lock servers (a redlock_url that is a list)"

SEVERAL = f"expected one resource at a time {_HERE}, got several; name one, or use one server"


def check_redlock(
    where: str,
    *,
    mode: str,
    limit: int,
    max_waiting: Optional[int] = None,
    key: Any = None,
) -> None:
    """Raise ConfigurationError for what cannot be had; ``where`` names who asks."""
    if mode != "exclusive":
        raise ConfigurationError(
            f"{where}: expected an exclusive lock {_HERE}, got mode {mode!r}; use one server for it"
        )
    if limit > 1:
        raise ConfigurationError(
            f"{where}: expected a limit of 1 {_HERE}, got {limit}; use one server for it"
        )
    if max_waiting:
        raise ConfigurationError(
            f"{where}: expected no bound on who waits {_HERE}, which have no common line, got "
            f"lock_max_waiting={max_waiting}; leave it out, or use one server for it"
        )
    if isinstance(key, list) and len(key) > 1:
        raise ConfigurationError(f"{where}: {SEVERAL}")
