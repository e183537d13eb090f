"""Locks in tests, without a server.

pytest_plugins = ["celery_redlock.testing"]  # in conftest.py: gives the fixture ``locks``

def test_a_busy_account_is_skipped(locks):
    with locks.hold(sync_account, account_id=1):
        assert is_skipped(sync_account.apply(kwargs={"account_id": 1}).get())
    assert [met.decision for met in locks.conflicts] == ["skip"]

Without pytest the same is ``with memory_locks() as locks``, or MemoryLocksMixin for unittest. Locks
are kept in this process: they exclude its threads, an in-process worker's among them, and nothing
else. docs/testing.md has examples of everything.
"""

from __future__ import annotations

from typing import Any, Iterator

from celery_redlock.testing.memory_locks import MemoryLocks, MemoryLocksMixin, Met, memory_locks
from celery_redlock.testing.rival import Rival

__all__ = ["MemoryLocks", "MemoryLocksMixin", "Met", "Rival", "locks", "memory_locks"]

try:
    import pytest
except ImportError:

    def locks() -> Any:
        """The fixture, where there is no pytest."""
        raise ImportError("the fixture locks needs pytest: install it, or use memory_locks()")

else:

    @pytest.fixture
    def locks() -> Iterator[MemoryLocks]:
        """The locks of every app in memory, for one test: see MemoryLocks."""
        with memory_locks() as found:
            yield found
