"""Django's database connections, where Celery does not look after them.

Celery closes them before it calls a task and after it: that is before a task waits for its lock,
and only in the process that runs it. A callable ``lock_key`` may query the database (and so may
``before_start``), so there is a connection that is idle for as long as the wait takes, maybe longer
than ``CONN_MAX_AGE`` or than the database allows; and one in the thread of the worker's parent that
names the locks of a dead child, and ends then.

Nothing is imported here: a process that has not loaded Django has no such connections.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

from celery_redlock.observe.logs import logger


def close_old_connections() -> None:
    """Close this thread's connections that are too old or broken, as Django does for a request.

    One within a transaction stays. Does nothing where Django is not in use; raises nothing.
    """
    _close(lambda db: db.close_old_connections())


def close_connections() -> None:
    """Close all of this thread's connections: it ends. Otherwise as ``close_old_connections``."""
    _close(lambda db: db.connections.close_all())


def _close(close: Callable[[Any], None]) -> None:
    conf, db = sys.modules.get("django.conf"), sys.modules.get("django.db")
    if conf is None or db is None or not conf.settings.configured:
        return
    try:
        close(db)
    except Exception:  # noqa: BLE001 - a database driver's; the next query tells more
        logger.exception("could not close Django's database connections")
