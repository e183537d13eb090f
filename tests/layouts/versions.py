"""What the Celery under test has."""

from __future__ import annotations

import importlib.util
import inspect

from celery.bin import worker

#: From 5.4 on: the Task class that its Django fixup gives an app.
HAS_DJANGO_TASK = importlib.util.find_spec("celery.contrib.django") is not None

#: From 5.7 on: children of a pool that are spawned instead of forked.
CAN_SPAWN = "--pool-start-method" in inspect.getsource(worker)
