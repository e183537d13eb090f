"""What the demo runs on: an embedded server, a worker and their files; nothing of it stays."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Optional, Type

from celery_redlock.store import embedded
from examples.demo.app import Place, app, settle
from examples.demo.bodylog import BodyLog

CONCURRENCY = 6
ROOT = Path(__file__).resolve().parents[2]

#: Ctrl-C, a supervisor, a terminal that is closed.
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds.
READY_WITHIN = 30.0
ENDS_WITHIN = 5.0


class StageError(Exception):
    """The demo cannot run; says why."""


class Interrupts:
    """Signals that end the run, noted while it is a context manager and told by ``check``.

    An exception in the middle of something would leave half of it behind, and Python drops one
    that is raised while an object is being deleted.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise KeyboardInterrupt if one has come."""
        if self._came:
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        for number in _INTERRUPTS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: Any) -> None:
        self._came = True


class Stage:
    """Use as a context manager; its end ends the worker, then the server, then the files."""

    def __init__(self, interrupts: Interrupts, *, locks: bool) -> None:
        self._interrupts = interrupts
        self._directory = Path(tempfile.mkdtemp(prefix="redlock-demo-"))
        self._worker_log = self._directory / "worker.log"
        self._worker: Optional[subprocess.Popen[bytes]] = None
        self._socket: Optional[Path] = None
        self.bodies = BodyLog(self._directory / "bodies.log")
        self._locks = locks

    def start(self) -> None:
        """Start the server and the worker; returns when the worker is ready for tasks."""
        # A server of this run's own: a demo at the same time has another.
        name = f"demo-{os.getpid()}"
        self._socket = embedded.socket_of(name)
        self._interrupts.check()
        place = Place(f"embedded://{name}", str(self._socket), str(self.bodies.path), self._locks)
        settle(place)
        with self._worker_log.open("wb") as output:
            self._worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "examples.demo.app", "worker"),
                    *("--concurrency", str(CONCURRENCY), "--loglevel", "INFO"),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=str(ROOT),
                env={**os.environ, **place.environment()},
                # Ctrl-C in the terminal is for the demo, which ends the worker in order.
                start_new_session=True,
            )
        self._await_ready()

    def is_alive(self) -> bool:
        return self._worker is not None and self._worker.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the worker wrote."""
        if not self._worker_log.exists():
            return ""
        return "\n".join(self._worker_log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._end_worker()
        self._end_server()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while b" ready.\n" not in self._worker_log.read_bytes():
            self._interrupts.check()
            if not self.is_alive() or time.monotonic() > deadline:
                raise StageError("the worker did not start")
            time.sleep(0.02)

    def _end_worker(self) -> None:
        if self._worker is None:
            return
        if self.is_alive():
            # At Ctrl-C nobody wants to see the rest; otherwise there is no rest.
            self._worker.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            self._worker.wait(ENDS_WITHIN)
        # Its session has nobody else's processes.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.wait()

    def _end_server(self) -> None:
        if self._socket is None:
            return
        app.pool.force_close_all()
        app.close()
        _tell_to_end(self._socket)
        shutil.rmtree(self._socket.parent, ignore_errors=True)


def _tell_to_end(server: Path) -> None:
    """Returns when the server has closed the connection: it has ended, or is about to."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(ENDS_WITHIN)
        connection.connect(str(server))
        connection.sendall(b"SHUTDOWN NOSAVE\r\n")
        connection.recv(1)
