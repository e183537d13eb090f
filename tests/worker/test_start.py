"""What is wrong with an app's configuration is told when its worker starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from celery_redlock import ConfigurationError, LockedTask, LockUnavailable
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app, local_worker

NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def declare(app: Any, **options: Any) -> Any:
    @app.task(name="shop.sync", base=LockedTask, **options)
    def sync() -> None: ...

    return sync


BROKEN = {
    "setting": ("app.conf.redlock_ttll = 5", "did you mean redlock_ttl?"),
    "value": ("app.conf.redlock_ttl = 0", "redlock_ttl must be a duration"),
    "no server": ("app.conf.redlock_url = None", "got none"),
    "url": ("app.conf.redlock_url = 'redis://:S3CRET/x@h'", "percent-encode"),
    "list": ("app.conf.redlock_url = ['redis://:S3CRET@h', 'redis://b', 'redis://c']", "a list"),
    "options": ("app.conf.redlock_options = {'passwort': 'S3CRET'}", "passwort"),
    "task": ("app.conf.task_annotations = {'*': {'lock_ttl': 0}}", "task project.tasks.sync: lo"),
    "together": ("app.conf.task_annotations = {'*': {'lock_mode': 'shared'}}", "lock_limit must"),
}

APP = """
from celery import Celery
app = Celery("project", broker="memory://")
app.conf.redlock_url = "redis://127.0.0.1:1"
{}
app.autodiscover_tasks(["project"])
"""

TASKS = """
from celery import shared_task
from celery_redlock import LockedTask
@shared_task(base=LockedTask, lock_limit=2)
def sync(): ...
"""


def project(directory: Path, line: str) -> Dict[str, str]:
    """A project whose tasks are found late; the environment that finds it."""
    package = directory / "project"
    package.mkdir()
    (package / "__init__.py").write_text("from .main import app")
    (package / "main.py").write_text(APP.format(line))
    (package / "tasks.py").write_text(TASKS)
    return {**os.environ, "PYTHONPATH": str(directory)}


WORKER = ["-m", "celery", "-A", "project", "worker", "--pool=solo"]
WORKER_MAIN = ["-c", "from project import app; app.worker_main(['worker', '--pool=solo'])"]


@pytest.mark.parametrize(
    ("line", "says", "how"),
    [
        *[(line, says, WORKER) for line, says in BROKEN.values()],
        (*BROKEN["value"], WORKER_MAIN),
    ],
)
def test_a_worker_with_a_wrong_configuration_ends_at_once_with_one_clear_line(
    tmp_path: Path, line: str, says: str, how: Any
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *how],
        env=project(tmp_path, line),
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert says in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert "S3CRET" not in done.stdout + done.stderr


def test_a_worker_without_the_command_line_refuses_to_be_made() -> None:
    app = local_app(redlock_ttll=5, redlock_url=NOBODY)
    declare(app)
    with pytest.raises(ConfigurationError, match="did you mean redlock_ttl"), local_worker(app):
        pass


def test_a_server_that_is_away_keeps_no_worker_from_starting(redis_server: LockServer) -> None:
    app = local_app(server=redis_server.url, redlock_url=NOBODY)
    task = declare(app, lock_on_outage="fail")
    with local_worker(app), pytest.raises(LockUnavailable):
        task.delay().get(timeout=15)
