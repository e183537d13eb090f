"""The shop with its locked tasks.

A worker's process makes this app from its environment; a test that imports this module has the same
tasks in its client's app.
"""

from __future__ import annotations

import os

from tests.worker import locked_copies as locked_copies
from tests.worker import locked_endings as locked_endings
from tests.worker import locked_losses as locked_losses
from tests.worker import locked_several as locked_several
from tests.worker import locked_watched as locked_watched
from tests.worker.app import PREFIX, ShopSettings, make_app
from tests.worker.locked_tasks import resource_of as resource_of
from tests.worker.locked_tasks import told_in as told_in

if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
