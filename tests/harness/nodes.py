"""pytest-celery's nodes over processes of this machine instead of containers.

Only the containers are replaced: each fixture here has the name of a container fixture of
pytest-celery, and gives pytest-celery's own container class over a process that plays the part of
Docker's. Its nodes, clusters and setup, and what they put into a worker (app, tasks, command,
environment), are used as they are.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import pytest
from pytest_celery import CeleryWorkerContainer, RabbitMQContainer, RedisContainer

from tests.harness.broker import RabbitMQ
from tests.harness.process import Program, free_port
from tests.harness.servers import require


class HostProcess:
    """The part of Docker's container object that pytest-celery and its tools use."""

    # No network and no published port: whoever asks for an address is told by the classes below.
    attrs: Mapping[str, Any] = {
        "Config": {"Env": []},
        "HostConfig": {"PortBindings": {}},
        "NetworkSettings": {"Networks": {}, "Ports": {}},
    }

    def __init__(
        self,
        program: Union[Program, RabbitMQ],
        kind: str,
        *,
        identity: Optional[str] = None,
        directory: Optional[Path] = None,
        environment: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.program = program
        self.id = identity or uuid.uuid4().hex
        self.name = f"{kind}-{self.id[:12]}"
        self._directory = directory
        self._environment = {**os.environ, **(environment or {})}

    @property
    def status(self) -> str:
        return "running" if self.program.is_running else "exited"

    def reload(self) -> None:
        """Nothing is cached here."""

    def logs(self) -> bytes:
        return self.program.text().encode()

    def kill(self, signal: Union[str, int, None] = None) -> None:
        """As Docker: KILL ends everything in the container, other signals reach the first."""
        number = _signal_number(signal)
        if number == _signal_number(None):
            self.program.kill()
        else:
            self.program.send(number)

    def restart(self, timeout: float = 10) -> None:
        self.program.stop(timeout)
        self.program.start()

    def exec_run(self, command: str) -> Tuple[int, bytes]:
        done = subprocess.run(
            shlex.split(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env=self._environment,
            check=False,
        )
        return done.returncode, done.stdout


class LocalRedis(RedisContainer):
    """A Redis of its own for each node, so that a test may kill it."""

    def __init__(self, program: Program, port: int) -> None:
        super().__init__(HostProcess(program, "redis"))
        self._local_port = port

    hostname = "127.0.0.1"

    @property
    def port(self) -> int:
        return self._local_port

    @property
    def url(self) -> str:
        return self.host_url


class LocalRabbitMQ(RabbitMQContainer):
    """The session's RabbitMQ; a test may kill or restart it, the next one finds it running."""

    def __init__(self, server: RabbitMQ) -> None:
        super().__init__(HostProcess(server, "rabbitmq"))
        self._server = server

    hostname = "127.0.0.1"

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return self.host_url


class LocalWorker(CeleryWorkerContainer):
    """A worker process over the files that pytest-celery puts into a worker's container."""


@pytest.fixture
def default_redis_broker(
    default_redis_broker_command: List[str], tmp_path: Path
) -> Iterator[LocalRedis]:
    """The broker's Redis, as a process."""
    yield from _redis(default_redis_broker_command, tmp_path / "broker")


@pytest.fixture
def default_redis_backend(
    default_redis_backend_command: List[str], tmp_path: Path
) -> Iterator[LocalRedis]:
    """The result backend's Redis, as a process."""
    yield from _redis(default_redis_backend_command, tmp_path / "backend")


@pytest.fixture
def default_rabbitmq_broker(rabbitmq: RabbitMQ) -> LocalRabbitMQ:
    """The broker's RabbitMQ, as a process, with an empty default queue."""
    if not rabbitmq.is_running:
        rabbitmq.start()
    rabbitmq.delete_queue(CeleryWorkerContainer.worker_queue())
    return LocalRabbitMQ(rabbitmq)


@pytest.fixture
def default_worker_container(
    default_worker_command: List[str],
    default_worker_env: Dict[str, str],
    default_worker_initial_content: Dict[str, bytes],
    tmp_path: Path,
) -> Iterator[LocalWorker]:
    """The worker, as a process in a directory with the content of its container's volume."""
    directory = tmp_path / "app"
    for name, content in default_worker_initial_content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    identity = uuid.uuid4().hex
    environment = {
        **default_worker_env,
        "PYTHONPATH": str(directory),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    program = Program(
        # In a container the host's name is the container's id.
        [part.replace("%h", identity[:12]) for part in default_worker_command],
        output=tmp_path / "worker.log",
        environment=environment,
        directory=directory,
    )
    process = HostProcess(
        program, "worker", identity=identity, directory=directory, environment=environment
    )
    program.start()
    yield LocalWorker(process)
    program.kill()


def _redis(command: List[str], directory: Path) -> Iterator[LocalRedis]:
    directory.mkdir()
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    program = Program(
        [require(command[0]), *command[1:], *options], output=directory / "server.log"
    )
    program.start()
    program.wait_for_text("Ready to accept connections", 15)
    yield LocalRedis(program, port)
    program.kill()


def _signal_number(given: Union[str, int, None]) -> int:
    if given is None:
        return signal.SIGKILL
    return getattr(signal, given) if isinstance(given, str) else given
