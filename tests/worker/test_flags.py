"""The worker's flags: there in every project, over the settings, under the tasks' own options."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import celery.bin.worker
import pytest

from celery_redlock.integration.settings import FLAGS_VARIABLE
from tests.harness.independent import Independent
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker.local import apps_apart, local_app

SOON = 30.0
NOBODY = "redis://127.0.0.1:1/0"

# Nothing of ours is imported until Celery finds the tasks.
APP = """
import os
from celery import Celery

app = Celery("project")
app.conf.update(
    broker_url=os.environ["PROJECT_SERVER"],
    result_backend=os.environ["PROJECT_SERVER"],
    task_default_queue=os.environ["PROJECT_QUEUE"],
    redlock_url=os.environ["PROJECT_LOCKS"],
    redlock_ttl=55,
    redlock_on_conflict="fail",
    redlock_on_outage="fail",
)
app.autodiscover_tasks(["project"])
"""

TASKS = """
import os
from celery import shared_task
from celery_redlock import LockedTask


def facts(task):
    options = task.redlock_options()
    return {
        "pid": os.getpid(),
        "reason": task.lock.reason,
        "held": task.lock.is_held,
        "ttl": options.ttl,
        "on_conflict": options.on_conflict,
    }


@shared_task(base=LockedTask, bind=True)
def plain(self):
    return facts(self)


@shared_task(base=LockedTask, bind=True, lock_ttl=77, lock_on_conflict="wait")
def own_options(self):
    return facts(self)
"""

# Here the settings are read while the app is imported: before the command line is.
EARLY = """
from .main import app
from .tasks import plain

app.finalize()
assert app.tasks[plain.name].redlock_options().ttl == 55
"""

Call = Callable[[str], Dict[str, Any]]


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture
def environment(tmp_path: Path, redis_server: LockServer) -> Mapping[str, str]:
    """Where the project is found, and its servers: that of its locks does not exist."""
    package = tmp_path / "project"
    package.mkdir()
    (package / "__init__.py").write_text("from .main import app")
    (package / "main.py").write_text(APP)
    (package / "tasks.py").write_text(TASKS)
    (package / "early.py").write_text(EARLY)
    return {
        "PYTHONPATH": str(tmp_path),
        "PROJECT_SERVER": redis_server.url,
        "PROJECT_QUEUE": f"flags-{uuid.uuid4().hex[:8]}",
        "PROJECT_LOCKS": NOBODY,
    }


@pytest.fixture
def start(tmp_path: Path, environment: Mapping[str, str]) -> Iterator[Callable[..., Call]]:
    """Start a worker with these flags; gives what calls its tasks."""
    workers: List[WorkerProcess] = []

    def start(
        *flags: str, app: str = "project", more: Optional[Mapping[str, str]] = None, **options: Any
    ) -> Call:
        given = {**environment, **(more or {})}
        arguments = ["--concurrency=1", *flags]
        worker = WorkerProcess(tmp_path, given, app=app, arguments=arguments, **options)
        workers.append(worker.start())
        client = local_app(server=environment["PROJECT_SERVER"])

        def call(name: str) -> Dict[str, Any]:
            queue = environment["PROJECT_QUEUE"]
            result = client.send_task(f"project.tasks.{name}", queue=queue).get(timeout=SOON)
            assert result.pop("pid") in worker.pids()
            return dict(result)

        return call

    yield start
    for worker in workers:
        worker.kill()


def run(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_flags_are_there_as_soon_as_the_package_is_installed(tmp_path: Path) -> None:
    done = run("-m", "celery", "worker", "--help", environment={})
    assert done.returncode == 0
    assert "Lock options:" in done.stdout
    for flag in ("url", "ttl", "on-conflict", "max-parked", "disable"):
        assert f"--redlock-{flag}" in done.stdout


POOLS = ["fork", "spawn"]


def by(method: str) -> Sequence[str]:
    """The flags that have the pool's children made so; skips where Celery cannot."""
    if method == "fork":
        return ()
    if "--pool-start-method" not in inspect.getsource(celery.bin.worker):
        pytest.skip("this Celery only forks")
    return ("--pool-start-method=spawn",)


@pytest.mark.parametrize("method", POOLS)
def test_flags_win_over_settings_and_lose_to_the_tasks_options(
    start: Callable[..., Call], lock_server: LockServer, method: str
) -> None:
    flags = ["--redlock-ttl=44", "--redlock-on-conflict=skip", f"--redlock-url={lock_server.url}"]
    call = start(*flags, *by(method))
    locked = {"held": True, "reason": None}
    assert call("plain") == {**locked, "ttl": 44, "on_conflict": "skip"}
    assert call("own_options") == {**locked, "ttl": 77, "on_conflict": "wait"}


@pytest.mark.parametrize("method", POOLS)
def test_disabling_wins_over_all(start: Callable[..., Call], method: str) -> None:
    call = start("--redlock-disable", *by(method))
    for task in ("plain", "own_options"):
        facts = call(task)
        assert (facts["held"], facts["reason"]) == (False, "disabled")


def test_flags_count_also_where_the_settings_were_read_while_the_app_was_imported(
    start: Callable[..., Call], lock_server: LockServer
) -> None:
    call = start("--redlock-ttl=44", f"--redlock-url={lock_server.url}", app="project.early:app")
    facts = call("plain")
    assert (facts["held"], facts["ttl"]) == (True, 44)


def test_a_worker_locks_at_all_the_servers_that_its_flags_name(start: Callable[..., Call]) -> None:
    with Independent.durable() as independent:
        call = start(*(f"--redlock-url={url}" for url in independent.urls))
        assert call("plain")["held"]
        for server in independent.servers:
            assert server.client().keys("*plain*"), f"nothing was asked for at {server.url}"


def test_the_doctor_names_a_worker_that_goes_by_another_lock_server(
    start: Callable[..., Call], environment: Mapping[str, str], lock_server: LockServer
) -> None:
    start(f"--redlock-url={lock_server.url}")
    command = ["-m", "celery", "-A", "project", "redlock"]
    flag = f"--redlock-url={lock_server.url}"

    def told(*words: str) -> Dict[str, str]:
        """What it says of the workers, once they have answered in time."""
        deadline = time.monotonic() + SOON
        while True:
            done = run(*command, *words, "doctor", "--json", environment=environment)
            findings: List[Dict[str, str]] = json.loads(done.stdout)["findings"]
            of_workers = [each for each in findings if each["name"] == "workers"]
            if of_workers or time.monotonic() > deadline:
                (only,) = of_workers
                return only

    apart = told()
    assert apart["severity"] == "warning"
    assert f"locks on {lock_server.url}: it excludes nobody who goes by {NOBODY}" in str(apart)
    assert told(flag)["severity"] == "ok"


def test_a_worker_goes_by_its_own_flags_whatever_started_it(
    start: Callable[..., Call], lock_server: LockServer
) -> None:
    flags = {"redlock_disable": True, "redlock_ttl": 44}
    left_over = {FLAGS_VARIABLE: json.dumps({"app": "project", "flags": flags})}
    call = start(more={**left_over, "PROJECT_LOCKS": lock_server.url})
    facts = call("plain")
    assert (facts["held"], facts["ttl"]) == (True, 55)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--redlock-ttl=0", "must be a duration from 1 to 86400 seconds, got 0.0"),
        ("--redlock-ttl=soon", "'soon' is not a valid float"),
        ("--redlock-on-conflict=drop", "'drop' is not one of 'wait', 'retry', 'skip', 'fail'"),
        ("--redlock-max-parked=0", "must be a whole number of at least 1, got 0"),
        ("--redlock-url=http://:S3CRET@host", "expected a URL that begins with one of redis://"),
        ("--redlock-url=redis://:S3CRET/x@host", "percent-encode"),
        ("--redlock-url=redis://a;redis://:S3CRET@b", "got several in one text"),
        ("--redlock-url=redis://a --redlock-url=redis://b", "at least three, got a list of 2"),
        (
            "--redlock-url=redis://a --redlock-url=redis://b --redlock-url=http://:S3CRET@c",
            "expected a URL that begins with one of redis://",
        ),
        ("--redlock-ttll=5", "--redlock-ttll"),
    ],
)
def test_a_bad_flag_is_refused_by_the_command_line_at_once(
    environment: Mapping[str, str], flag: str, says: str
) -> None:
    done = run("-m", "celery", "-A", "project", "worker", *flag.split(), environment=environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "S3CRET" not in done.stdout + done.stderr


def test_the_flags_exist_for_an_app_that_starts_its_worker_itself(
    environment: Mapping[str, str],
) -> None:
    code = "from project import app; app.worker_main(['worker', '--redlock-url=embedded://a/b'])"
    done = run("-c", code, environment=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: redlock_url: expected embedded://name")
