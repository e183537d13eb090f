"""Each example on a Redis of its own, with a real worker, run as its docstring says."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Dict, Iterator

import pytest
from celery import Celery

from tests.examples.workerlog import count_ended
from tests.harness.process import Program
from tests.harness.servers import LockServer
from tests.harness.worker import ROOT, WorkerProcess

SOON = 20.0


class Example:
    """One example: its module, its Redis and a directory for what it writes."""

    def __init__(self, module: str, directory: Path, redis: LockServer, stack: ExitStack) -> None:
        self._module = module
        self._directory = directory
        self._stack = stack
        self._redis = redis.url[: -len("/0")]
        self.database = directory / "example.sqlite"

    @property
    def environment(self) -> Dict[str, str]:
        return {"REDIS_URL": self._redis, "DATABASE_URL": f"sqlite:///{self.database}"}

    def worker(self, *arguments: str, concurrency: int = 4) -> WorkerProcess:
        """``celery -A <example> worker``, ready for tasks."""
        worker = WorkerProcess(
            self._directory,
            self.environment,
            app=self._module,
            concurrency=concurrency,
            arguments=arguments,
        )
        self._stack.callback(worker.kill)
        return worker.start()

    def beat(self) -> None:
        """``celery -A <example> beat``, until the test ends."""
        schedule = str(self._directory / "schedule")
        self._start("celery", "-A", self._module, "beat", "-s", schedule)

    def main(self) -> str:
        """``python -m <example>``: what it prints."""
        program = self._start(self._module)
        assert program.wait(SOON), f"{self._module} did not end: {program.text()}"
        return program.text()

    def client(self) -> Celery:
        """A client that knows the example's servers and none of its code."""
        app = Celery(broker=f"{self._redis}/0", backend=f"{self._redis}/1", set_as_current=False)
        self._stack.callback(_close, app)
        return app

    def _start(self, module: str, *arguments: str) -> Program:
        program = Program(
            [sys.executable, "-m", module, *arguments],
            output=self._directory / f"{module}.log",
            environment=self.environment,
            directory=ROOT,
        )
        self._stack.callback(program.kill)
        program.start()
        return program


MakeExample = Callable[[str], Example]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[MakeExample]:
    """Make an example by its module's name."""
    with ExitStack() as stack:
        redis = stack.enter_context(LockServer.start())
        yield lambda name: Example(f"examples.{name}", tmp_path, redis, stack)


def wait_until_ended(worker: WorkerProcess, bodies: int) -> str:
    """The worker's log, once so many bodies have ended."""
    deadline = time.monotonic() + SOON
    while count_ended(worker.output()) < bodies:
        assert time.monotonic() < deadline, f"{bodies} bodies did not end:\n{worker.output()}"
        time.sleep(0.02)
    return worker.output()


def _close(app: Celery) -> None:
    app.backend.result_consumer.stop()
    app.backend.client.close()
    app.pool.force_close_all()
    app.close()
