"""A real RabbitMQ as a process of the test run, with a port mapper (epmd) of its own.

Everything is on loopback ports that were free and in a directory of the test run; a RabbitMQ that
the machine runs already is neither used nor disturbed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Union

from kombu import Connection

from tests.harness.process import Program, free_port
from tests.harness.servers import missing

START_WITHIN = 90.0

# Debian's rabbitmq-server on the PATH insists on the user rabbitmq; what it wraps does not.
_UNWRAPPED = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMQ:
    """One node without plugins. ``settings`` are further lines of rabbitmq.conf.

    Its data survive ``stop`` and ``kill``: ``start`` goes on with the same port and data.
    """

    def __init__(self, directory: Path, settings: Optional[Mapping[str, object]] = None) -> None:
        program = find_rabbitmq()
        self.directory = directory
        self.port = free_port()
        epmd_port = free_port()
        environment = self._environment(epmd_port)
        self._write_configuration(settings or {})
        self._epmd = Program(
            [shutil.which("epmd") or missing("epmd"), "-port", str(epmd_port)],
            output=directory / "epmd.log",
            environment=environment,
        )
        self._node = Program(
            [program, "-noinput"], output=directory / "node.log", environment=environment
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def is_running(self) -> bool:
        return self._node.is_running

    @property
    def pid(self) -> int:
        return self._node.pid

    def start(self, timeout: float = START_WITHIN) -> None:
        """Start it and wait until it serves: several seconds."""
        if not self._epmd.is_running:
            self._epmd.start()
        self._node.start()
        self._node.wait_for_text("Server startup complete", timeout)

    def stop(self, timeout: float = 20.0) -> bool:
        in_time = self._node.stop(timeout)
        self._epmd.kill()
        return in_time

    def kill(self) -> None:
        self._node.kill()
        self._epmd.kill()

    def send(self, number: int) -> None:
        self._node.send(number)

    def wait(self, timeout: float) -> bool:
        return self._node.wait(timeout)

    def members(self) -> List[int]:
        """All living processes of the server, its port mapper included."""
        return [process.pid for part in (self._node, self._epmd) for process in part.members()]

    def text(self) -> str:
        return self._node.text()

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages; none of that name is no error."""
        with Connection(self.url) as connection:
            connection.default_channel.queue_delete(name)

    def _environment(self, epmd_port: int) -> Dict[str, str]:
        directory = self.directory
        return {
            "HOME": str(directory),  # where Erlang keeps its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_NODENAME": f"redlock-{os.getpid()}-{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # The script becomes the node (exec) instead of waiting for it: one pid, ours.
            "detached": "true",
        }

    def _write_configuration(self, settings: Mapping[str, object]) -> None:
        lines: Dict[str, Union[str, object]] = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            **settings,
        }
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.directory / "rabbitmq.conf").write_text(text)
        (self.directory / "rabbitmq-env.conf").write_text("")
        (self.directory / "enabled_plugins").write_text("[].\n")


def find_rabbitmq() -> str:
    """The server's program. Without it the test is skipped, and in CI it fails."""
    if Path(_UNWRAPPED).exists():
        return _UNWRAPPED
    return shutil.which("rabbitmq-server") or missing("rabbitmq-server")
