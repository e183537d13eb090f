"""A process with two workers, each of an app of its own or both of one, in pools of greenlets.

Its arguments are JSON (for each of them the settings of its shop, its node's name and its queue),
and a gate: when it is open the first worker ends.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any, Dict

from gevent import monkey

monkey.patch_all()

from celery import Celery  # noqa: E402
from celery.contrib.testing.worker import TestWorkController, start_worker  # noqa: E402

from tests.worker import locked_app as locked_app  # noqa: E402
from tests.worker.app import ShopSettings, make_app, pass_gate  # noqa: E402

READY = "both workers are ready"
ENDED = "the first worker has ended"


def main(told: str, gate: str) -> None:
    apps: Dict[str, Celery] = {}
    with ExitStack() as stack:
        workers = []
        for settings, hostname, queue in json.loads(told):
            known = json.dumps(settings)
            app = apps.get(known) or apps.setdefault(known, make_app(ShopSettings(**settings)))
            workers.append(stack.enter_context(_worker(app, hostname, queues=[queue])))
        say(READY)
        pass_gate(gate)
        workers[0].stop()
        say(ENDED)
        time.sleep(3600)


def _worker(app: Celery, hostname: str, **options: Any) -> Any:
    class Named(TestWorkController):
        """Before 5.4 ``start_worker`` gives it a name of its own."""

        def __init__(self, **given: Any) -> None:
            super().__init__(**{**given, "hostname": hostname})

    quiet = {"perform_ping_check": False, "loglevel": "INFO", "shutdown_timeout": 20.0}
    return start_worker(app, pool="gevent", concurrency=2, WorkController=Named, **quiet, **options)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
