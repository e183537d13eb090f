"""Several lock servers that know nothing of one another, for Redlock."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from tests.harness.servers import LockServer

#: They keep every write: otherwise what has just been started does not vote.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

#: A server, from its number, its further options and its directory.
Start = Callable[[int, Sequence[str], Path], LockServer]


def plain(_number: int, extra: Sequence[str], directory: Path) -> LockServer:
    return LockServer.start(extra=extra, directory=directory)


class Independent:
    """``count`` servers, as a context manager; what is killed in between is no error at its end.

    ``options`` are what their clients need beside the ``urls``.
    """

    def __init__(self, count: int = 5, extra: Sequence[str] = (), start: Start = plain) -> None:
        self._count = count
        self._extra = extra
        self._start = start
        self.servers: List[LockServer] = []
        self._began = 0.0

    @classmethod
    def durable(cls, count: int = 5, start: Start = plain) -> Independent:
        return cls(count, DURABLE, start)

    @property
    def urls(self) -> List[str]:
        return [server.url for server in self.servers]

    @property
    def options(self) -> Dict[str, Any]:
        return self.servers[0].options

    def let_vote(self, longest_lease: float) -> None:
        """Wait until what has been started empty votes: servers count whole seconds."""
        time.sleep(max(0.0, self._began + longest_lease + 1.2 - time.monotonic()))

    def flush(self) -> None:
        for server in self.servers:
            server.flush()

    def __enter__(self) -> Independent:
        try:
            for number in range(self._count):
                self.servers.append(self._start(number, self._extra, _in_memory()))
        except BaseException:
            self._stop()
            raise
        self._began = time.monotonic()
        return self

    def __exit__(self, *_error: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        for server in self.servers:
            server.stop()
            shutil.rmtree(str(server.directory), ignore_errors=True)


def _in_memory() -> Path:
    """A directory that is as fast as can be had: durable servers write every request."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="lock-server-", dir=shared if shared.is_dir() else None))
