"""The flags count however a worker is started, and however its pool makes children."""

from __future__ import annotations

import shlex
import sys
from typing import Callable, List, Sequence, Tuple

import pytest

from tests.harness.worker import QUIET, START_WITHIN
from tests.layouts.conftest import MakeProject
from tests.layouts.project import Project
from tests.layouts.versions import CAN_SPAWN

SOON = 30.0

OPTIONS = ["--hostname=w@localhost", "--loglevel=INFO", "--concurrency=1", *QUIET]
FLAGS = ["--redlock-ttl=44", "--redlock-on-conflict=skip"]


def management_command(project: Project) -> List[str]:
    return [sys.executable, "manage.py", "run_worker", *OPTIONS, *FLAGS]


def worker_main(project: Project) -> List[str]:
    code = f"from newsletter.app import app; app.worker_main({['worker', *OPTIONS, *FLAGS]})"
    return [sys.executable, "-c", code]


def celery_multi(project: Project) -> List[str]:
    """What ``celery multi start`` runs, kept in the foreground: so it ends with the test."""
    arguments = ["-A", project.layout.app, *OPTIONS[1:], *FLAGS]
    shown = project.python("-m", "celery", "multi", "show", "w@localhost", *arguments)
    assert shown.returncode == 0, shown.stderr
    command = shlex.split(shown.stdout.splitlines()[-1])
    away = ("--detach", "--pidfile", "--logfile")
    return [argument for argument in command if not argument.startswith(away)]


def spawned_children(project: Project) -> List[str]:
    command = [sys.executable, "-m", "celery", "-A", project.layout.app, "worker"]
    return [*command, *OPTIONS, *FLAGS, "--pool-start-method=spawn"]


Way = Tuple[str, Callable[[Project], Sequence[str]]]

WAYS = [
    pytest.param(("django", management_command), id="management command"),
    pytest.param(("include", worker_main), id="worker_main"),
    pytest.param(("include", celery_multi), id="celery multi"),
    pytest.param(
        ("django", spawned_children),
        id="spawn",
        marks=pytest.mark.skipif(not CAN_SPAWN, reason="Celery up to 5.6 only forks"),
    ),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_flags_count_however_a_worker_is_started(
    make_project: MakeProject, account: str, way: Way
) -> None:
    layout, command = way
    project = make_project(layout)
    worker = project.program(*command(project))
    worker.wait_for_text("w@localhost ready.", START_WITHIN)
    told = project.report(account).get(timeout=SOON)
    assert told["held"] is True
    assert (told["ttl"], told["on_conflict"]) == (44, "skip")
    project.close()
