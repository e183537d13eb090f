"""The shop with the tasks of ``locked_paths`` besides its other ones."""

from __future__ import annotations

import os

from tests.worker import locked_app as locked_app
from tests.worker import locked_paths as locked_paths
from tests.worker.app import PREFIX, ShopSettings, make_app

if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
    app.conf.accept_content = ["json", "literal"]
