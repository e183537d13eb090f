"""Under gevent and eventlet over several servers: greenlets exclude each other and go on."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from tests.contract.desk import until
from tests.harness.independent import Independent
from tests.harness.servers import missing
from tests.harness.ways import WAYS
from tests.stress.quorum_greenlets import MANY, Settings

ROOT = Path(__file__).resolve().parents[2]

#: Seconds in which a healthy server answers on a busy machine, and the documented ones.
PATIENT = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
DOCUMENTED = 0.5

#: What a busy machine adds to it.
BUSY = 2.0


@pytest.fixture(params=["tls", "unix"], scope="module")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Independent]:
    start = WAYS[request.param](tmp_path_factory.mktemp("authority"))
    with Independent.durable(3, start) as independent:
        yield independent


@pytest.fixture(params=["gevent", "eventlet"])
def kind(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(request.param) is None:
        missing(request.param)
    return str(request.param)


class Patched:
    """A process with greenlets, and the facts that it tells."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def fact(self) -> Dict[str, Any]:
        assert self._process.stdout is not None
        told: Dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return told

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextmanager
def patched(kind: str, scenario: str, servers: Independent, **options: Any) -> Iterator[Patched]:
    """It must end in order and idle.

    None of its background threads has waited as a greenlet does, but over TLS, which cannot do
    without.
    """
    settings = Settings(servers.urls, {**servers.options, **options})
    command = [sys.executable, "-m", "tests.stress.quorum_greenlets", kind, scenario]
    process = subprocess.Popen(
        [*command, json.dumps(settings._asdict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=str(ROOT),
        text=True,
    )
    patched = Patched(process)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            yield patched
            ended = patched.fact()
            assert ended["is_idle"]
            assert "ssl_ca_certs" in servers.options or ended["hubs"] <= 1
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_greenlets_of_one_process_take_turns(kind: str, servers: Independent) -> None:
    with patched(kind, "share", servers, **PATIENT) as process:
        assert process.fact() == {"bodies": 18, "at_once": 1, "grows": True}


@pytest.mark.parametrize("servers", ["tls"], indirect=True)
def test_very_many_locks_outlive_a_body_that_never_yields(kind: str, servers: Independent) -> None:
    with patched(kind, "compute", servers, **PATIENT) as process:
        assert process.fact() == {"held": MANY}
        assert process.fact() == {"left": 0}


@pytest.mark.parametrize("many", [1, 2])
def test_servers_that_hang_hold_up_whoever_asks_and_no_other_greenlet(
    kind: str, servers: Independent, many: int
) -> None:
    """Of three, one may hang and it is granted; if two do, it is told which within their time."""
    hung = servers.servers[:many]
    with patched(kind, "hang", servers) as process:
        assert process.fact() == {"warm": True}
        for server in hung:
            server.pause()
        try:
            process.tell()
            if many == 2:
                away = process.fact()["away"]
                assert all(f"{server.url} (no answer in" in away for server in hung), away
            facts = process.fact()
        finally:
            for server in hung:
                server.resume()
    assert facts["got"] == (1 if many == 1 else 0)
    assert facts["took"] < DOCUMENTED + BUSY
    assert facts["gap"] < DOCUMENTED, "another greenlet stood still"


def test_what_is_done_in_the_background_leaves_nothing_open(
    kind: str, servers: Independent
) -> None:
    with patched(kind, "outages", servers, **PATIENT) as process:
        assert process.fact() == {"warm": True}
        seen = []
        for _ in range(6):
            server = servers.servers[0]
            server.kill()
            process.tell()
            process.fact()
            server.restart()
            process.tell()
            seen.append(process.fact())
        settled = seen[1]

        def is_as_before() -> bool:
            process.tell()
            now = process.fact()
            return bool(
                now["files"] <= settled["files"] + 3 and now["threads"] <= settled["threads"] + 1
            )

        until(is_as_before, f"as many files and threads as at first: {seen}")
        process.tell("end")
