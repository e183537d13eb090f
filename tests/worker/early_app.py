"""An app whose worker has asked the lock server before it forks its pool."""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_init

from tests.worker.app import PREFIX
from tests.worker.process_app import ShopSettings, make_app


def ask(**_details: Any) -> None:
    app.tasks["shop.work"].lock_state("nobodys")


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
    ask()
    # Once more with the manager that the children inherit.
    worker_init.connect(ask, weak=False)
