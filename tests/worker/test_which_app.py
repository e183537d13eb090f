"""A Lock without an app belongs to the app in use, also in a thread that has no current one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness.worker import ROOT

PROGRAM = """
import sys, threading
from celery import Celery, current_app
from celery_redlock import Lock
from celery_redlock.integration.runtime import runtime_of

{apps}

def view():
    lock = Lock("account:1")
    try:
        print(lock._runtime.settings.prefix)
    except Exception as error:
        print(type(error).__name__, error)

thread = threading.Thread(target=view)
thread.start()
thread.join()
"""


def seen_in_a_thread(apps: str) -> str:
    """What a view says that runs in another thread than the one that made the apps."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(apps=apps)],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout


@pytest.mark.parametrize(
    "apps",
    [
        'app = Celery("shop", set_as_current=False)',
        'app = Celery("shop")',
        # Something has asked for the current app of this thread before: Celery made one up.
        'app = Celery("shop", set_as_current=False); current_app.main',
        'other = Celery("other"); app = Celery("shop"); app.set_default()',
    ],
)
def test_it_is_the_only_app_or_the_default_one(apps: str) -> None:
    assert seen_in_a_thread(apps) == "redlock:shop:1:\n"


def test_of_several_apps_none_is_taken_at_random() -> None:
    said = seen_in_a_thread('one, two = Celery("one"), Celery("two")')
    assert said.startswith("ConfigurationError expected to know the Celery app, got 2 of them")
    assert "give app=" in said


def test_without_any_app_it_is_the_one_that_celery_makes() -> None:
    assert seen_in_a_thread("") == "redlock:default:1:\n"
