"""A TCP proxy before a server: it cuts connections, at a chosen point of a script call if asked.

``cut(script, point, times)``: the next calls of that script lose their connection

* ``before``: the request never reaches the server,
* ``after``: the server runs it, its answer never reaches the client,
* ``half``: of the answer one half does,
* ``late``: the server runs it ``late_by`` seconds later,
* ``twice``: the server runs it, and a copy of it ``late_by`` seconds later,
* ``slow``: the server runs it, its answer reaches the client ``late_by`` seconds later; here the
  connection lives on.

``hold``: what clients send from then on reaches the server after ``let_go``, also when they have
closed their connection meanwhile.

As on a network, what is late arrives over its old connection, and so never at a restarted server.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter
from typing import Any, Dict, NamedTuple, Tuple
from urllib.parse import urlsplit

from celery_redlock.store import frames
from celery_redlock.store.scripts import Script

SCRIPTS: Dict[str, Script] = {
    script.name: script
    for script in (
        frames.ACQUIRE,
        frames.ACQUIRE_ALL,
        frames.LEAVE,
        frames.RENEW,
        frames.HEARTBEAT,
        frames.REESTABLISH,
        frames.INSPECT,
    )
}


#: Where a connection may be cut.
POINTS = ("before", "after", "half", "late", "twice")

_DEFAULT_PORTS = {"redis": 6379, "amqp": 5672}


class Cut(NamedTuple):
    point: str
    times: int
    late_by: float


class Proxy:
    """Use as a context manager. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._parts = parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or _DEFAULT_PORTS[parts.scheme])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._armed: Dict[str, Cut] = {}
        self._mutex = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._open: Dict[int, Tuple[socket.socket, socket.socket]] = {}
        #: Calls that were sent by clients, by script.
        self.calls: Counter[str] = Counter()
        #: Requests and copies of them that reached the server late.
        self.late_copies = 0

    @property
    def url(self) -> str:
        user, at, _address = self._parts.netloc.rpartition("@")
        address = f"{user}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        return self._parts._replace(netloc=address).geturl()

    def cut(self, script: str, point: str, times: int = 1, late_by: float = 0.0) -> None:
        with self._mutex:
            self._armed[script] = Cut(point, times, late_by)

    def drop(self) -> None:
        """Cut every open connection; new ones are served."""
        for pair in list(self._open.values()):
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        self._flows.clear()

    def let_go(self) -> None:
        self._flows.set()

    def mend(self) -> None:
        with self._mutex:
            self._armed.clear()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: Any) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        for pair in list(self._open.values()):
            _close(*pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        pair = (client, server)
        self._open[id(pair)] = pair
        point, cut = "", _NO_CUT
        try:
            while True:
                ready, _, _ = select.select(pair, (), ())
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is server:
                        if point == "half":
                            client.sendall(data[: len(data) // 2])
                        if point and point != "slow":
                            return
                        if point == "slow":
                            time.sleep(cut.late_by)
                        client.sendall(data)
                        continue
                    self._flows.wait()
                    cut = self._cut_of(data)
                    point = cut.point
                    if point not in ("before", "late"):
                        server.sendall(data)
                    if point in ("late", "twice"):
                        self._send_late(server, data, cut.late_by)
                    if point in ("before", "late", "twice"):
                        return
        except (OSError, ValueError):
            return
        finally:
            self._open.pop(id(pair), None)
            _close(client, *([] if point in ("late", "twice") else [server]))

    def _cut_of(self, data: bytes) -> Cut:
        """What happens to this request: a request of ours fits into one read."""
        for name, script in SCRIPTS.items():
            if script.sha.encode() in data:
                with self._mutex:
                    self.calls[name] += 1
                    cut = self._armed.get(name, _NO_CUT)
                    if cut.times > 0:
                        self._armed[name] = cut._replace(times=cut.times - 1)
                        return cut
        return _NO_CUT

    def _send_late(self, server: socket.socket, data: bytes, late_by: float) -> None:
        timer = threading.Timer(late_by, self._send_copy, [server, data])
        timer.daemon = True
        timer.start()

    def _send_copy(self, server: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError), server:
            server.settimeout(10)
            server.sendall(data)
            if server.recv(1 << 16):
                self.late_copies += 1


_NO_CUT = Cut("", 0, 0.0)


def _close(*sockets: socket.socket) -> None:
    for end in sockets:
        with contextlib.suppress(OSError):
            end.close()
