"""A process that ends right after it has abandoned a lock."""

from __future__ import annotations

import subprocess
import sys

from celery_redlock import Lock
from tests.harness.servers import LockServer
from tests.harness.worker import ROOT
from tests.worker.local import local_app

SOON = 30.0

#: The release that its own thread sends in the background takes its time.
PROGRAM = """
import sys, time
from celery_redlock import Lock
from celery_redlock.integration.runtime import runtime_of
from tests.worker.local import local_app

app = local_app("shop", redlock_url=sys.argv[1])
lock = Lock("left", app=app, ttl=600)
lock.acquire()
manager = runtime_of(app).manager
leave = manager.background.leave
manager.background.leave = lambda request: (time.sleep(float(sys.argv[2])), leave(request))[1]
manager.abandon(lock._claims.now.hold)
"""


def end_a_process(server: LockServer, takes: float) -> None:
    command = [sys.executable, "-c", PROGRAM, server.url, str(takes)]
    subprocess.run(command, cwd=ROOT, timeout=SOON, check=True)


def test_what_it_has_abandoned_is_ended_before_it_ends(lock_server: LockServer) -> None:
    end_a_process(lock_server, takes=0.3)
    assert not Lock("left", app=local_app("shop", redlock_url=lock_server.url)).locked()


def test_a_lock_server_that_does_not_answer_keeps_it_from_ending_for_a_moment_only() -> None:
    with LockServer.start() as server:
        end_a_process(server, takes=2 * SOON)
