"""Fixtures of the core suite."""

from __future__ import annotations

import pytest

from celery_redlock.locking import native
from tests.core.stage import Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage on which no thread runs: the test makes the watchdog's rounds."""
    monkeypatch.setattr(native, "start_thread", lambda run: None)
    return Stage()
