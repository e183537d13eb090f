"""Programs that the tests run: output in a file, ended by pid, none outlives the test run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Iterable, List, Mapping, Optional, Sequence, Union

import psutil

POLL_SECONDS = 0.01

# PDEATHSIG, set in the program's own process: a preexec_fn would fork a process that has threads,
# which warns from Python 3.12 on. The kernel means the thread that started it, so start programs
# from a thread that stays.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Program:
    """One program in a session of its own, so that whatever it starts can be found and ended.

    It may be started again after its end: same command, output appended to the same file.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        output: Path,
        environment: Optional[Mapping[str, str]] = None,
        directory: Optional[Path] = None,
    ) -> None:
        self.command = list(command)
        self.output = output
        self.environment = dict(environment or {})
        self.directory = directory
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._read_from = 0

    def start(self) -> None:
        assert not self.is_running, f"{self.command[0]} is running"
        self._read_from = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                dying_with_us(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=str(self.directory) if self.directory else None,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def text(self) -> str:
        """All output so far, of earlier starts too."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait_for_text(self, wanted: str, timeout: float) -> None:
        """Wait until this start's output has ``wanted``; RuntimeError if it ends or is late."""
        deadline = time.monotonic() + timeout
        while True:
            running = self.is_running
            if wanted in self._text_of_this_start():
                return
            if not running or time.monotonic() > deadline:
                state = "did not print" if running else "ended without printing"
                raise RuntimeError(f"{self.command} {state} {wanted!r}:\n{self.text()[-4000:]}")
            time.sleep(POLL_SECONDS)

    def send(self, number: Union[int, signal.Signals]) -> None:
        """Send a signal to the program itself, not to what it started."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> bool:
        """Wait for the program's end; whether it came in time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout: float = 10.0) -> bool:
        """TERM, and after ``timeout`` seconds KILL, for all it started; whether TERM was enough."""
        if self.is_running:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)
        in_time = self.wait(timeout)
        self.kill()
        return in_time

    def kill(self) -> None:
        """KILL the program, then what is left of what it started; returns when all are dead."""
        if self.is_running:
            self.send(signal.SIGKILL)
        self.wait(10)
        deadline = time.monotonic() + 10
        while True:
            left = self.members()
            if not left:
                return
            assert time.monotonic() < deadline, f"{self.command} left {left}"
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(POLL_SECONDS)

    def members(self) -> List[psutil.Process]:
        """The living processes of the program's session, itself included."""
        if self._process is None:
            return []
        return _living(pid for pid in psutil.pids() if _session(pid) == self.pid)

    def _text_of_this_start(self) -> str:
        with self.output.open("rb") as output:
            output.seek(self._read_from)
            return output.read().decode(errors="replace")


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dying_with_us(command: Sequence[str]) -> List[str]:
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), *command]


def is_living(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    return bool(_living([pid]))


def _living(pids: Iterable[int]) -> List[psutil.Process]:
    living = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1
