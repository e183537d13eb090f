"""Locks for Celery tasks.

from celery_redlock import LockedTask

@app.task(base=LockedTask, lock_key="account:{account_id}")
def sync_account(account_id): ...

All of this may be used from any thread. After a fork the parent keeps what it holds, and the child
holds nothing. Durations are seconds. ``celery_redlock.signals`` has the signals, and
``celery_redlock.testing`` what tests need.
"""

from __future__ import annotations

from celery_redlock.core.policy import Conflict
from celery_redlock.core.template import resource
from celery_redlock.exceptions import (
    ConfigurationError,
    LockConflict,
    LockError,
    LockLost,
    LockNotOwned,
    LockTimeout,
    LockUnavailable,
    LockUnsure,
    RedlockError,
)
from celery_redlock.integration.lock import Lock
from celery_redlock.integration.task import LockedTask, ResourceState
from celery_redlock.integration.verdict import is_skipped
from celery_redlock.locking.execution import current_lock

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Conflict",
    "Lock",
    "LockConflict",
    "LockError",
    "LockLost",
    "LockNotOwned",
    "LockTimeout",
    "LockUnavailable",
    "LockUnsure",
    "LockedTask",
    "RedlockError",
    "ResourceState",
    "current_lock",
    "is_skipped",
    "resource",
]
