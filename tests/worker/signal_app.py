"""The shop with its locked tasks, whose workers tell the test of every signal that they hear."""

from __future__ import annotations

import os
from typing import Any

from celery_redlock.integration.lock_signals import SIGNALS
from tests.worker.locked_app import app as app
from tests.worker.locked_tasks import say


def tell(signal: Any, sender: Any, task_id: Any, worker: Any, **_fields: Any) -> None:
    say(
        app,
        signal=signal.name,
        sender=sender.name,
        task_id=task_id,
        worker=worker,
        told_by=os.getpid(),
    )


for each in SIGNALS:
    each.connect(tell)
