"""Two hundred threads or greenlets of a process contend for twenty resources, some are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from celery_redlock.store.urls import open_store
from examples.demo.bodylog import BodyLog
from tests.harness.pools import is_installed
from tests.harness.servers import LockServer, missing
from tests.stress.crowd import PREFIX, RESOURCES, Settings

ROOT = Path(__file__).resolve().parents[2]
MINUTE = 60.0
SHORT = 6.0


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


def run_crowds(kind: str, settings: Settings, processes: int) -> List[Dict[str, Any]]:
    """What each of the processes tells at its end."""
    command = [sys.executable, "-m", "tests.stress.crowd", kind, json.dumps(settings._asdict())]
    crowds = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(ROOT), text=True
        )
        for _ in range(processes)
    ]
    told = []
    try:
        for crowd in crowds:
            out, errors = crowd.communicate(timeout=settings.seconds + 60.0)
            assert crowd.returncode == 0, errors
            told.append(json.loads(out))
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.communicate()
    return told


def assert_no_overlap_and_nothing_left(kind: str, settings: Settings, processes: int = 1) -> None:
    log = BodyLog(settings.body_log)
    for told in run_crowds(kind, settings, processes):
        killed = told.pop("killed")
        assert (killed > 0) is (settings.kills > 0)
        assert told == {"stuck": 0, "errors": [], "is_idle": True, "running": 0}
    log.assert_exclusive()
    log.assert_fences_grow()
    bodies = log.bodies()
    assert len({body.resource for body in bodies}) == RESOURCES
    assert len(bodies) > 10 * settings.seconds
    assert all(body.end is not None for body in bodies)
    store = open_store(settings.url, prefix=PREFIX, restart_grace=0)
    try:
        views = [store.inspect(f"r:{number}") for number in range(RESOURCES)]
    finally:
        store.close()
    assert not [view for view in views if view.holders or view.waiters]


LENGTHS = [
    pytest.param(SHORT, id="a moment"),
    pytest.param(MINUTE, id="a minute", marks=[pytest.mark.long, pytest.mark.timeout(240)]),
]


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_two_hundred_greenlets_of_which_some_are_killed_never_overlap_and_leave_nothing(
    server: LockServer, tmp_path: Path, kind: str, seconds: float
) -> None:
    if not is_installed(kind):
        missing(kind)
    settings = Settings(server.url, str(tmp_path / "bodies.log"), seconds, 200, kills=20.0)
    assert_no_overlap_and_nothing_left(kind, settings)


@pytest.mark.parametrize("seconds", LENGTHS)
def test_the_threads_of_two_processes_never_overlap_and_leave_nothing(
    server: LockServer, tmp_path: Path, seconds: float
) -> None:
    settings = Settings(server.url, str(tmp_path / "bodies.log"), seconds, 100)
    assert_no_overlap_and_nothing_left("threads", settings, processes=2)
