"""A release by force: whether it is allowed, who asks for it, and what it means."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

from celery_redlock.exceptions import ConfigurationError
from celery_redlock.integration.listing import plain
from celery_redlock.integration.runtime import runtime_of


def check_allowed(app: Any) -> None:
    """Raise ConfigurationError where the app does not allow it."""
    if not runtime_of(app).settings.allow_release:
        raise ConfigurationError(
            "redlock_allow_release: expected True for a release by force, got False; set it in "
            "the app's configuration if operators may end locks whose bodies still run"
        )


def operator() -> str:
    """Who runs this program, as far as it can be known: ``user@host``."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # no such user on this system
        user = str(os.getuid()) if hasattr(os, "getuid") else "?"
    return plain(f"{user}@{socket.gethostname()}")
