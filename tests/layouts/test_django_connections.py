"""Old connections are closed only where Django is in use, and whatever its driver says."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Callable, List

import pytest

from celery_redlock.integration.django import close_connections, close_old_connections

Install = Callable[..., List[str]]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have Django loaded, as far as can be seen; gives the calls that it got."""

    def install(configured: bool, error: bool = False) -> List[str]:
        calls: List[str] = []

        def close() -> None:
            calls.append("closed")
            if error:
                raise RuntimeError("the driver is confused")

        settings = SimpleNamespace(configured=configured)
        monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=settings))
        every = SimpleNamespace(close_all=lambda: calls.append("closed all"))
        db = SimpleNamespace(close_old_connections=close, connections=every)
        monkeypatch.setitem(sys.modules, "django.db", db)
        return calls

    return install


def test_without_django_nothing_happens_and_nothing_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "django"]:
        monkeypatch.delitem(sys.modules, name)
    close_old_connections()
    assert "django" not in sys.modules


@pytest.mark.parametrize(("configured", "calls"), [(True, ["closed"]), (False, [])])
def test_django_counts_where_it_is_configured(
    loaded: Install, configured: bool, calls: List[str]
) -> None:
    made = loaded(configured)
    close_old_connections()
    assert made == calls


def test_a_thread_that_ends_closes_all_of_its_connections(loaded: Install) -> None:
    made = loaded(configured=True)
    close_connections()
    assert made == ["closed all"]


def test_a_driver_that_cannot_close_is_logged_and_fails_no_task(
    loaded: Install, caplog: pytest.LogCaptureFixture
) -> None:
    loaded(True, error=True)
    with caplog.at_level(logging.ERROR, logger="celery_redlock"):
        close_old_connections()
    assert "could not close Django's database connections" in caplog.text
