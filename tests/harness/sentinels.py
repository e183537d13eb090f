"""Sentinels that watch lock servers, each a process, all ended with the test run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

import redis

from tests.harness.certificates import Authority, of_clients, tls_options
from tests.harness.process import Program, free_port
from tests.harness.servers import PROGRAMS, LockServer, require

MASTER_NAME = "locks"
PASSWORD = "of-the-sentinels"

_FAILS_OVER_WITHIN = 30.0


class Sentinels:
    """So many of them, watching one master; ``down_after`` seconds of silence end its office.

    ``password`` is that of the servers. With an ``authority`` they speak nothing but TLS, with the
    servers as well.
    """

    def __init__(
        self,
        directory: Path,
        master: LockServer,
        count: int,
        down_after: float,
        password: str = "",
        authority: Optional[Authority] = None,
    ) -> None:
        self._tls = of_clients(authority) if authority else {}
        self.ports = [free_port() for _ in range(count)]
        self._programs: List[Program] = []
        for port in self.ports:
            home = directory / f"sentinel-{port}"
            home.mkdir()
            settings = [
                *(_tls_settings(authority, port) if authority else [f"port {port}"]),
                "bind 127.0.0.1",
                f"dir {home}",
                f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.public_port} {count // 2 + 1}",
                f"sentinel down-after-milliseconds {MASTER_NAME} {int(down_after * 1000)}",
                f"sentinel failover-timeout {MASTER_NAME} 3000",
                f"requirepass {PASSWORD}",
                f"sentinel sentinel-pass {PASSWORD}",
            ]
            if password:
                settings.append(f"sentinel auth-pass {MASTER_NAME} {password}")
            (home / "sentinel.conf").write_text("\n".join(settings) + "\n")
            command = [require(PROGRAMS["redis"]), str(home / "sentinel.conf"), "--sentinel"]
            program = Program(command, output=home / "sentinel.log", directory=home)
            program.start()
            self._programs.append(program)
        for number in range(count):
            self._hurry(number)

    def url(self, user: str = "", database: int = 0) -> str:
        first, *others = (f"127.0.0.1:{port}" for port in self.ports)
        more = "".join(f";sentinel://{other}" for other in others)
        return f"sentinel://{user}{first}/{database}{more}"

    @property
    def options(self) -> Dict[str, object]:
        return {
            "master_name": MASTER_NAME,
            "sentinel_kwargs": {"password": PASSWORD, **self._tls},
            **self._tls,
        }

    def master_port(self, of: int = 0) -> int:
        """The port of the master as one of the Sentinels knows it."""
        return int(self._tell(of)["port"])

    def fail_over(self) -> None:
        """Have a replica take over although the master is well."""
        with self.client(0) as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)

    def wait_for_master(self, port: int) -> None:
        """Until all of them agree."""
        _wait(lambda: {self.master_port(of) for of in range(len(self.ports))} == {port})

    def wait_for_replica(self) -> None:
        """Until all of them know one another and a replica that can take over."""

        def is_known(of: int) -> bool:
            told = self._tell(of)
            if int(told["num-other-sentinels"]) != len(self.ports) - 1:
                return False
            with self.client(of) as client:
                replicas = client.sentinel_slaves(MASTER_NAME)
            return any(
                replica["flags"] == "slave" and replica["master-link-status"] == "ok"
                for replica in replicas
            )

        _wait(lambda: all(is_known(of) for of in range(len(self.ports))))

    def stop(self) -> None:
        for program in self._programs:
            program.kill()

    def kill_one(self, of: int) -> None:
        self._programs[of].kill()

    def restart_one(self, of: int) -> None:
        self._programs[of].start()
        self._hurry(of)

    def _hurry(self, of: int) -> None:
        """Have it look around more often than every ten seconds."""
        self._programs[of].wait_for_text(f"+monitor master {MASTER_NAME}", 15)
        with self.client(of) as client:
            periods = ("info-period", "200", "publish-period", "200")
            client.execute_command("SENTINEL", "DEBUG", *periods)

    def client(self, of: int) -> redis.Redis:
        port = self.ports[of]
        return redis.Redis(port=port, password=PASSWORD, decode_responses=True, **self._tls)

    def _tell(self, of: int) -> Dict[str, str]:
        with self.client(of) as client:
            flat = client.execute_command("SENTINEL", "MASTER", MASTER_NAME)
        return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2]))


def _tls_settings(authority: Authority, port: int) -> List[str]:
    own = authority.sign(f"sentinel-{port}", ["localhost", "127.0.0.1"])
    words = tls_options(authority, own, port, clients="no")
    lines = [f"{name[2:]} {value}" for name, value in zip(words[::2], words[1::2])]
    return ["port 0", "tls-replication yes", *lines]


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _FAILS_OVER_WITHIN
    while not is_so():
        assert time.monotonic() < deadline, "the Sentinels did not come to agree"
        time.sleep(0.02)
