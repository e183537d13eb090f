"""A network that is slow: relays to servers, each of which holds up what it passes on.

``python -m benchmarks.delaying SECONDS PORT …`` relays to these ports of this host, and prints a
port of its own for each. A process of its own: what is measured must not share an interpreter with
what delays it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial
from typing import Iterator, List, Sequence
from urllib.parse import urlsplit

from tests.harness.process import dying_with_us

_HOST = "127.0.0.1"


@contextmanager
def delayed(urls: Sequence[str], seconds: float) -> Iterator[List[str]]:
    """The same servers at a distance: ``seconds`` each way."""
    parts = [urlsplit(url) for url in urls]
    command = [sys.executable, "-m", __name__, str(seconds), *(str(each.port) for each in parts)]
    with subprocess.Popen(dying_with_us(command), stdout=subprocess.PIPE, text=True) as relays:
        assert relays.stdout is not None
        ports = relays.stdout.readline().split()
        yield [each._replace(netloc=f"{_HOST}:{port}").geturl() for each, port in zip(parts, ports)]
        relays.terminate()


async def _relay(seconds: float, ports: Sequence[int]) -> None:
    servers = [
        await asyncio.start_server(partial(_serve, seconds, port), _HOST, 0) for port in ports
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _serve(
    seconds: float, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError):
        from_server, to_server = await asyncio.open_connection(_HOST, port)
        await asyncio.gather(
            _pass_on(seconds, reader, to_server), _pass_on(seconds, from_server, writer)
        )


async def _pass_on(
    seconds: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    later = asyncio.get_running_loop().call_later
    with suppress(OSError):
        while True:
            data = await reader.read(1 << 16)
            if not data:
                break
            later(seconds, writer.write, data)
    later(seconds, writer.close)


if __name__ == "__main__":
    asyncio.run(_relay(float(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
