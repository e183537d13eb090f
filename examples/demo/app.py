"""The demo's app: two tasks, each locked by what it works on.

The worker learns from its environment where it runs (``Place``); the demo itself says it directly.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, NamedTuple

from celery import Celery

from celery_redlock import LockedTask
from examples.demo.bodylog import BodyLog

_VARIABLE = "REDLOCK_DEMO_"

app = Celery("demo")


class Place(NamedTuple):
    """One server for messages, results and locks; a log that the bodies write; locks on or off."""

    server: str
    socket: str
    body_log: str
    locks: bool

    def environment(self) -> Dict[str, str]:
        return {_VARIABLE + name.upper(): str(value) for name, value in self._asdict().items()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        said: Dict[str, Any] = {name: environment[_VARIABLE + name.upper()] for name in cls._fields}
        return cls(**{**said, "locks": said["locks"] == str(True)})


def settle(place: Place) -> None:
    """Point the app at its place."""
    app.conf.update(
        broker_url=f"redis+socket://{place.socket}?virtual_host=0",
        result_backend=f"redis+socket://{place.socket}?virtual_host=1",
        redlock_url=place.server,
        redlock_enabled=place.locks,
        broker_connection_retry_on_startup=True,
    )
    app.body_log = BodyLog(Path(place.body_log))


@app.task(base=LockedTask, bind=True, lock_key="account:{account}")
def sync_account(self: Any, account: int, seconds: float) -> None:
    """One at a time per account."""
    with _logged(self, f"account:{account}"):
        time.sleep(seconds)


@app.task(base=LockedTask, bind=True, lock_key="invoice:{invoice}")
def print_invoice(self: Any, invoice: int, seconds: float) -> None:
    """Each invoice is printed once: nobody is in its way."""
    with _logged(self, f"invoice:{invoice}"):
        time.sleep(seconds)


@contextmanager
def _logged(task: Any, resource: str) -> Iterator[None]:
    log = task.app.body_log
    with log.body(resource, fence=task.lock.fence, task_id=task.request.id):
        yield


if _VARIABLE + "SOCKET" in os.environ:
    settle(Place.from_environment(os.environ))
