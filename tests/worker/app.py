"""The shop: the Celery app of the tests' workers and, with the same tasks, of their clients.

A worker's process makes it from its environment (``app``); a test makes one of its own from the
same settings (``make_app``), so that tests with different servers do not share an app.

A task is declared once, with ``@task(**options)`` as for ``app.task``, and is named
``shop.<function>``. Bodies write into the app's body log.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from celery import Celery

from examples.demo.bodylog import BodyLog
from tests import sabotage

PREFIX = "REDLOCK_TEST_"

# A worker of a sabotaged test run is broken alike.
sabotage.apply_from_environment()

_declared: List[Tuple[Callable[..., Any], Dict[str, Any]]] = []


class ShopSettings(NamedTuple):
    """Where the shop's servers are; ``conf`` are further Celery settings, JSON-able."""

    broker_url: str
    backend_url: str
    lock_url: str
    body_log: str
    conf: Mapping[str, Any] = {}

    def environment(self) -> Dict[str, str]:
        """How a worker's process learns the settings."""
        fields = self._replace(conf=json.dumps(self.conf))._asdict()
        return {PREFIX + name.upper(): str(value) for name, value in fields.items()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ShopSettings:
        fields: Dict[str, Any] = {name: environment[PREFIX + name.upper()] for name in cls._fields}
        return cls(**{**fields, "conf": json.loads(fields["conf"])})


def make_app(settings: ShopSettings) -> Celery:
    """A shop with all declared tasks; ``app.body_log`` is where its bodies write."""
    shop = Celery("shop", set_as_current=False)
    shop.conf.update(
        broker_url=settings.broker_url,
        result_backend=settings.backend_url,
        redlock_url=settings.lock_url,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    shop.conf.update(settings.conf)
    shop.body_log = BodyLog(settings.body_log)
    for body, options in _declared:
        # Not shared: Celery would give the task to every later app of the process.
        shop.task(name=f"shop.{body.__name__}", shared=False, **options)(body)
    shop.finalize()
    return shop


def task(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a task of the shop; its function stays a plain function."""

    def declare(body: Callable[..., Any]) -> Callable[..., Any]:
        _declared.append((body, options))
        return body

    return declare


@task()
def add(x: int, y: int) -> int:
    return x + y


@task(bind=True)
def hold(self: Any, resource: str, gate: Optional[str] = None) -> str:
    """Without a lock: in the log as a body on ``resource`` until the test opens the gate."""
    with self.app.body_log.body(resource, task_id=self.request.id):
        pass_gate(gate)
    return resource


@task(bind=True)
def fail(self: Any, resource: str, gate: Optional[str] = None) -> None:
    """Like ``hold``, and ends in a ValueError."""
    with self.app.body_log.body(resource, task_id=self.request.id):
        pass_gate(gate)
        raise ValueError(resource)


def pass_gate(gate: Optional[str], within: float = 60.0) -> None:
    """Wait for the file ``gate`` that a test makes when the body shall go on."""
    deadline = time.monotonic() + within
    while gate is not None and not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {gate}")
        time.sleep(0.005)


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
