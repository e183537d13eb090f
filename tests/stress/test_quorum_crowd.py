"""Eight processes contend for one lock over five servers, while two of those are killed in turn."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from examples.demo.bodylog import BodyLog
from tests.harness.independent import Independent
from tests.stress.quorum_crowd import RESOURCE, Settings

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
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


def assert_exclusive_through_restarts(
    independent: Independent, tmp_path: Path, seconds: float
) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    settings = Settings(independent.urls, str(log.path), seconds, TTL)
    command = [sys.executable, "-m", "tests.stress.quorum_crowd", json.dumps(settings._asdict())]
    crowd = [
        subprocess.Popen(command, stderr=subprocess.PIPE, cwd=str(ROOT), text=True)
        for _ in range(PROCESSES)
    ]
    try:
        restart_in_turn(independent, seconds)
        for each in crowd:
            _out, errors = each.communicate(timeout=60)
            assert each.returncode == 0, errors
    finally:
        for each in crowd:
            each.kill()
            each.communicate()
    log.assert_exclusive()
    log.assert_fences_grow()
    assert len([body for body in log.bodies() if body.resource == RESOURCE]) > seconds


def restart_in_turn(independent: Independent, seconds: float) -> None:
    """Never more than two are down, or do not vote: a third would stop them all."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for server in independent.servers[:2]:
            time.sleep(0.3 + random.random() * 0.5)
            server.restart()
