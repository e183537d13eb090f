"""A lock server that refuses script calls with an error of its choice, before it runs them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Iterator, List


class RefusingServer:
    """Stands before a real server on a loopback port; what it does not refuse that one answers.

    Use as a context manager. ``refusals`` are the errors that the next script calls are answered
    with, in this order; ``always`` is the answer to all of them. Thread-safe.
    """

    def __init__(self, port: int) -> None:
        self.refusals: List[str] = []
        self.always = ""
        #: Connections that clients have made.
        self.connections = 0
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: List[socket.socket] = [self._listener]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> RefusingServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: Any) -> None:
        for each in self._sockets:
            _end(each)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                self.connections += 1
                for serve in (self._ask, self._answer):
                    threading.Thread(target=serve, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """A request of ours fits into one read, and the next follows its answer."""
        with contextlib.suppress(OSError):
            for request in _chunks(client):
                refusal = self._refusal() if b"EVALSHA" in request else ""
                if refusal:
                    client.sendall(f"-{refusal}\r\n".encode())
                else:
                    server.sendall(request)
        _end(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for answer in _chunks(server):
                client.sendall(answer)
        _end(client)

    def _refusal(self) -> str:
        with contextlib.suppress(IndexError):
            return self.refusals.pop(0)
        return self.always


def _chunks(source: socket.socket) -> Iterator[bytes]:
    while True:
        data = source.recv(1 << 16)
        if not data:
            return
        yield data


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
