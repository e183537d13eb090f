"""A shop's app in one process with another, which has the same tasks and a lock server of its own.

``shop.die`` is of one class for both, which Celery binds to the app that was made last.
"""

from __future__ import annotations

import os
from typing import Any

from celery_redlock import LockedTask
from celery_redlock.integration.lock_signals import SIGNALS
from tests.worker import locked_app as locked_app
from tests.worker.app import PREFIX, ShopSettings, make_app
from tests.worker.locked_tasks import ACCOUNT, in_body, say

OTHER_LOCK_URL = f"{PREFIX}OTHER_LOCK_URL"


class Die(LockedTask):
    """A body that ends without a word."""

    name = "shop.die"
    lock_key = ACCOUNT

    def run(self, account: str) -> None:
        with in_body(self, account):
            os._exit(1)


def say_signal(sender: Any, signal: Any, **fields: Any) -> None:
    app = getattr(sender, "app", sender)
    server = app.conf.redlock_url
    say(app, signal=signal.name, server=server, task_id=fields["task_id"])


if OTHER_LOCK_URL in os.environ:
    settings = ShopSettings.from_environment(os.environ)
    app = make_app(settings)
    other = make_app(settings._replace(lock_url=os.environ[OTHER_LOCK_URL]))
    for each in (app, other):
        each.register_task(Die())
    for each_signal in SIGNALS:
        each_signal.connect(say_signal, weak=False)
