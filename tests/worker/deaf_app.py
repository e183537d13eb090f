"""An app whose processes never trust what a message says of a grant: they ask."""

from __future__ import annotations

import os

from celery_redlock.locking.hold import Hold
from tests.worker import locked_losses as locked_losses
from tests.worker.app import PREFIX, ShopSettings, make_app
from tests.worker.locked_tasks import resource_of as resource_of

if PREFIX + "BROKER_URL" in os.environ:
    Hold.granted_in_line = lambda self, now: False  # type: ignore[method-assign]
    app = make_app(ShopSettings.from_environment(os.environ))
