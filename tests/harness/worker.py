"""Real Celery workers as processes of the test run."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Union

import psutil

from tests.harness.pools import chosen_pool
from tests.harness.process import Program

ROOT = Path(__file__).resolve().parents[2]
START_WITHIN = 30.0

# What the tests do not look at and what costs start-up time or noise on the broker.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")

_numbers = itertools.count(1)


class WorkerProcess:
    """A worker of the app in module ``app``; ``environment`` is how the app learns its servers.

    ``pool`` is that of the test run (``--pool``) where none is named, ``name`` the node's without
    the host. ``arguments`` go to ``celery worker`` as they are.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        app: str = "tests.worker.app",
        pool: Optional[str] = None,
        concurrency: int = 2,
        arguments: Sequence[str] = (),
        name: Optional[str] = None,
    ) -> None:
        name = name or f"w{next(_numbers)}"
        self.nodename = f"{name}@localhost"
        self.pool = pool or chosen_pool()
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel=INFO"]
        command += ["--hostname", self.nodename, "--pool", self.pool]
        command += ["--concurrency", str(concurrency), *QUIET, *arguments]
        self._program = Program(
            command,
            output=directory / f"{name}.log",
            environment={"PYTHONUNBUFFERED": "1", **environment},
            directory=ROOT,
        )

    def start(self, timeout: float = START_WITHIN) -> WorkerProcess:
        """Start it and wait until it consumes."""
        self.launch()
        self.wait_until_ready(timeout)
        return self

    def launch(self) -> None:
        """Start it without waiting, so that several may start at the same time."""
        self._program.start()

    def wait_until_ready(self, timeout: float = START_WITHIN) -> None:
        self._program.wait_for_text(f"{self.nodename} ready.", timeout)

    @property
    def pid(self) -> int:
        """The worker's parent process."""
        return self._program.pid

    @property
    def is_running(self) -> bool:
        return self._program.is_running

    def pids(self) -> List[int]:
        """The living child processes: under prefork, those that run the bodies."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def members(self) -> List[int]:
        """All living processes of the worker, also those that outlived their parent."""
        return [process.pid for process in self._program.members()]

    def output(self) -> str:
        """All that the worker wrote, logs included."""
        return self._program.text()

    def wait_for_output(self, wanted: str, timeout: float = 10.0) -> None:
        self._program.wait_for_text(wanted, timeout)

    def send(self, number: Union[int, signal.Signals], pid: Optional[int] = None) -> None:
        """Send a signal to the parent process, or to the child ``pid``."""
        os.kill(self.pid if pid is None else pid, number)

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait for the parent process to end; whether it did."""
        return self._program.wait(timeout)

    def stop(self, timeout: float = 15.0) -> bool:
        """Warm shutdown, then KILL; whether the warm shutdown was enough."""
        return self._program.stop(timeout)

    def kill(self) -> None:
        """KILL the parent and then whatever is left of the worker; returns when all are dead."""
        self._program.kill()
