"""Eight processes contend for one lock over five servers, while two of those are killed in turn."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import pytest

from celery_redlock import Lock, LockUnavailable
from examples.demo.bodylog import BodyLog, now_ns
from tests.contract.desk import until
from tests.harness.independent import Independent
from tests.harness.process import dying_with_us
from tests.stress.quorum_crowd import RESOURCE, Settings, app_of

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, FEW = 8, 3
TTL = 1.5
SHORT, MINUTE = 6.0, 60.0


@pytest.fixture
def independent() -> Iterator[Independent]:
    with Independent() as independent:
        independent.let_vote(TTL)
        yield independent


def test_no_two_at_once_while_servers_forget(independent: Independent, tmp_path: Path) -> None:
    assert_exclusive_through_restarts(independent, tmp_path, SHORT)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_two_at_once_while_servers_forget_for_a_minute(
    independent: Independent, tmp_path: Path
) -> None:
    assert_exclusive_through_restarts(independent, tmp_path, MINUTE)


def test_without_a_majority_nobody_runs_and_with_it_they_go_on(
    independent: Independent, tmp_path: Path
) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    dead, alive = independent.servers[:3], independent.servers[3:]
    with crowd(independent, log, MINUTE, FEW):
        until(lambda: bool(log.bodies()), "somebody runs")
        for server in dead:
            server.kill()
        died = now_ns()
        with pytest.raises(LockUnavailable) as away:
            Lock(RESOURCE, app=app_of(independent.urls, TTL), ttl=TTL).acquire()
        told = away.value.servers
        assert all(f"{server.url} (refused)" in told for server in dead), told
        assert not any(server.url in told for server in alive), told
        time.sleep(2 * TTL)  # who held it may go on until its lease is over
        late = [body for body in log.bodies() if body.start > died + TTL * 1e9]
        assert late == []
        for server in dead:
            server.restart()
        restarted = now_ns()
        until(lambda: log.bodies()[-1].start > restarted, "they run again", within=60)
    log.assert_exclusive()
    log.assert_fences_grow()


def assert_exclusive_through_restarts(
    independent: Independent, tmp_path: Path, seconds: float
) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    with crowd(independent, log, seconds) as players:
        restart_in_turn(independent, seconds)
        for each in players:
            assert each.wait(timeout=60) == 0, errors_in(log)
    log.assert_exclusive()
    log.assert_fences_grow()
    assert len([body for body in log.bodies() if body.resource == RESOURCE]) > seconds


@contextmanager
def crowd(
    independent: Independent, log: BodyLog, seconds: float, processes: int = PROCESSES
) -> Iterator[List[subprocess.Popen[bytes]]]:
    """Processes that want the resource for so long; none outlives this."""
    settings = Settings(independent.urls, str(log.path), seconds, TTL)
    command = [sys.executable, "-m", "tests.stress.quorum_crowd", json.dumps(settings._asdict())]
    # Not a pipe: what nobody reads would fill it, and stop them.
    with open(errors_of(log), "a") as errors:
        players = [
            subprocess.Popen(dying_with_us(command), stderr=errors, cwd=str(ROOT))
            for _ in range(processes)
        ]
    try:
        yield players
    finally:
        for each in players:
            each.kill()
            each.wait()


def errors_of(log: BodyLog) -> Path:
    return log.path.with_suffix(".errors")


def errors_in(log: BodyLog) -> str:
    return errors_of(log).read_text()[-4000:]


def restart_in_turn(independent: Independent, seconds: float) -> None:
    """Never more than two are down, or do not vote: a third would stop them all."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for server in independent.servers[:2]:
            time.sleep(0.3 + random.random() * 0.5)
            server.restart()
