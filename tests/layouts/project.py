"""The projects under test: where each is, and how its workers and its own code are run."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from celery import Celery
from celery.result import AsyncResult

from celery_redlock.core.ports import Acquire, Granted, Leave, Terms
from celery_redlock.store.urls import open_store
from examples.demo.bodylog import BodyLog
from tests.harness.locked_shop import eventually
from tests.harness.process import Program
from tests.harness.servers import LockServer
from tests.harness.worker import ROOT, WorkerProcess
from tests.layouts.spy import LOG
from tests.worker.local import local_app

HERE = Path(__file__).parent

#: Nobody listens on port 1.
NOBODY = "redis://127.0.0.1:1/0"


class Servers(NamedTuple):
    """The environment variables from which a project learns its servers."""

    broker: str = "BROKER_URL"
    results: str = "RESULT_URL"
    locks: str = "LOCK_URL"


class Layout(NamedTuple):
    """``app`` is what ``celery -A`` is given, ``main`` the app's name, ``report`` its task.

    ``needs`` are the modules that must be installed for it.
    """

    directory: str
    app: str
    main: str
    report: str
    needs: Tuple[str, ...] = ()
    queue: str = "celery"
    servers: Servers = Servers()


LAYOUTS: Mapping[str, Layout] = {
    "django": Layout(
        "django_project", "bookshop", "bookshop", "orders.tasks.report", needs=("django",)
    ),
    "flask": Layout(
        "flask_project",
        "make_celery",
        "accounts",
        "accounts.tasks.report",
        needs=("flask",),
        servers=Servers(
            "FLASK_CELERY__broker_url", "FLASK_CELERY__result_backend", "FLASK_CELERY__redlock_url"
        ),
    ),
    "fastapi": Layout(
        "fastapi_project",
        "worker.celery",
        "worker",
        "worker.report",
        needs=("fastapi", "httpx"),
        servers=Servers("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "REDLOCK_URL"),
    ),
    "include": Layout("plain_include", "newsletter.app", "newsletter", "newsletter.jobs.report"),
    "two apps": Layout("two_apps", "shops:books", "books", "shared_jobs.report", queue="books"),
}


class Project:
    """One project with a server of its own for its messages, results and locks.

    The database of the locks is the third; ``environment`` is what the project reads.
    """

    def __init__(self, layout: Layout, directory: Path, server: LockServer) -> None:
        self.layout = layout
        self.directory = HERE / layout.directory
        self.bodies = BodyLog(directory / "bodies.log")
        self._files = directory
        self._workers: List[WorkerProcess] = []
        self._programs: List[Program] = []
        base = server.url[: -len("/0")]
        self.lock_url = f"{base}/2"
        self.environment = {
            layout.servers.broker: f"{base}/0",
            layout.servers.results: f"{base}/1",
            layout.servers.locks: self.lock_url,
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
            "DATABASE_FILE": str(directory / "database.sqlite"),
            LOG: str(self.bodies.path),
        }
        # A client that knows none of the project's code.
        self._client: Celery = local_app(server=f"{base}/0")
        self._client.conf.result_backend = f"{base}/1"

    def worker(
        self,
        *flags: str,
        app: Optional[str] = None,
        environment: Optional[Mapping[str, str]] = None,
        ready: bool = True,
        **options: Any,
    ) -> WorkerProcess:
        """``celery -A <app> worker <flags>``, ready for tasks; ``ready=False`` does not wait."""
        given = {**self.environment, **(environment or {})}
        worker = WorkerProcess(
            self._files, given, app=app or self.layout.app, arguments=flags, **options
        )
        self._workers.append(worker)
        worker.launch()
        if ready:
            worker.wait_until_ready()
        return worker

    def program(self, *command: str) -> Program:
        """A program started in the project's directory."""
        output = self._files / f"{secrets.token_hex(4)}.log"
        program = Program(
            command, output=output, environment=self.environment, directory=self.directory
        )
        self._programs.append(program)
        program.start()
        return program

    def python(
        self, *arguments: str, environment: Optional[Mapping[str, str]] = None
    ) -> subprocess.CompletedProcess[str]:
        """``python <arguments>`` in the project's directory; its end may be of any kind."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=str(self.directory),
            env={**os.environ, **self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def send(self, task: str, *args: Any, queue: Optional[str] = None, **given: Any) -> AsyncResult:
        return self._client.send_task(task, args, given, queue=queue or self.layout.queue)

    def report(self, account: str, **kwargs: Any) -> AsyncResult:
        return self.send(self.layout.report, account, **kwargs)

    def gate(self) -> Path:
        """A file that does not exist yet; a body that is given its path waits for it."""
        return self._files / f"gate-{secrets.token_hex(4)}"

    def locks(self, prefix: Optional[str] = None) -> Locks:
        return Locks(self.lock_url, prefix or f"redlock:{self.layout.main}:1:")

    def close(self) -> None:
        for started in (*self._workers, *self._programs):
            started.kill()
        # Results that a test dropped unread would unsubscribe, whenever they are collected.
        self._client.backend.remove_pending_result = lambda result: result


class Locks:
    """The lock server as it is, and a rival that is no task."""

    def __init__(self, url: str, prefix: str) -> None:
        self._store = open_store(url, prefix=prefix, restart_grace=0)

    def wait_for_line(self, resource: str, count: int) -> None:
        def waiting() -> int:
            return len(self._store.inspect(resource).waiters)

        assert eventually(lambda: waiting() == count), (
            f"{waiting()} wait for {resource}, expected {count}"
        )

    @contextmanager
    def held(self, resource: str) -> Iterator[None]:
        token = secrets.token_hex(16)
        answer = self._store.acquire(Acquire(resource, token, Terms(lease_ms=60_000), ""))
        assert isinstance(answer, Granted), answer
        try:
            yield
        finally:
            self._store.leave(Leave(resource, (token,)))

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.close()


def pass_time(seconds: float) -> None:
    """For what only time brings about: a connection that has been idle for so long."""
    time.sleep(seconds)
