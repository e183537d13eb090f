"""Locked tasks without what Redlock refuses."""

from __future__ import annotations

import os
from typing import Any, Optional

from celery_redlock import LockedTask
from tests.worker.app import PREFIX, ShopSettings, make_app, pass_gate, task


@task(base=LockedTask, bind=True, lock_key="counted", lock_ttl=5)
def count(self: Any, gate: Optional[str] = None) -> int:
    with self.app.body_log.body("counted", self.lock.fence, self.request.id):
        pass_gate(gate)
    return int(self.lock.fence)


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
