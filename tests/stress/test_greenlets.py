"""Under gevent and eventlet: a body that never yields keeps its lock, a waiter holds nobody up."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from celery_redlock.store.urls import open_store
from tests.harness.servers import LockServer, missing
from tests.stress.greenlets import PREFIX

ROOT = Path(__file__).resolve().parents[2]
IDLE = {"is_idle": True}


@pytest.fixture(params=["tcp", "unix"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[LockServer]:
    with LockServer.start(unix=request.param == "unix") as server:
        yield server


@pytest.fixture(params=["gevent", "eventlet"])
def kind(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(request.param) is None:
        missing(request.param)
    return str(request.param)


@contextmanager
def patched(kind: str, scenario: str, server: LockServer) -> Iterator[Iterator[Dict[str, Any]]]:
    """The facts that a patched process tells; it must end in order."""
    command = [sys.executable, "-m", "tests.stress.greenlets", kind, scenario, server.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=str(ROOT), text=True)
    assert process.stdout is not None
    try:
        with process.stdout:
            yield (json.loads(line) for line in process.stdout)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@contextmanager
def leases_seen(server: LockServer) -> Iterator[List[int]]:
    """What is left of the holder's lease, in ms, looked at all the time."""
    store = open_store(server.url, prefix=PREFIX, restart_grace=0)
    seen: List[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            holders = store.inspect("r").holders
            seen.append(holders[0].remaining_ms if holders else 0)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()
        store.close()


def test_a_body_that_computes_without_yielding_keeps_its_lock(
    kind: str, server: LockServer
) -> None:
    with patched(kind, "compute", server) as facts:
        assert next(facts) == {"held": True}
        with leases_seen(server) as seen:
            computed = next(facts)
        assert next(facts) == IDLE
    # The last look may come after the release.
    assert len(seen) > 20
    assert min(seen[:-5]) > 0, "its lease passed while it computed"
    assert computed["states"] == ["held"]
    assert computed["hubs"] <= 1, "a background thread waits as a greenlet does"


def test_who_waits_in_place_holds_up_no_other_greenlet_of_its_thread(
    kind: str, server: LockServer
) -> None:
    """Not even the holder: it runs in the same thread, and ends."""
    with patched(kind, "wait", server) as facts:
        waited = next(facts)
        assert next(facts) == IDLE
    assert waited["after"] < 0.5, "the release woke nobody"
    assert waited["gap"] < 0.5, "another greenlet stood still"
    assert waited["hubs"] <= 1, "a background thread waits as a greenlet does"


def test_a_greenlet_killed_while_it_waits_leaves_nothing(kind: str, server: LockServer) -> None:
    with patched(kind, "kill", server) as facts:
        left = next(facts)
        assert next(facts) == IDLE
    assert left["waiters"] == 0
    # Ten were killed; a connection or two may have come meanwhile.
    assert left["more_files"] < 5


def test_a_background_thread_never_waits_for_a_log_that_greenlets_write(
    kind: str, server: LockServer
) -> None:
    with patched(kind, "log", server) as facts:
        assert next(facts) == {"was_free": True, "in_order": True}
        assert next(facts) == IDLE
