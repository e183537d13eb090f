"""What a body in any of the projects here tells: that it runs, and how it is locked.

It imports nothing of the package: in a project nothing but the tasks themselves does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, Optional

from examples.demo.bodylog import BodyLog

LOG = "LAYOUTS_BODY_LOG"


def run(task: Any, account: str, gate: Optional[str] = None) -> Dict[str, Any]:
    """Be in the body log until the file ``gate`` exists; tell what the body sees of its lock."""
    body = BodyLog(os.environ[LOG]).body(account, fence=task.lock.fence, task_id=task.request.id)
    with body:
        wait_for(gate)
        return seen_by(task)


def seen_by(task: Any) -> Dict[str, Any]:
    options = task.redlock_options()
    return {
        "held": task.lock.is_held,
        "resource": task.lock.resource,
        "reason": task.lock.reason,
        "ttl": options.ttl,
        "on_conflict": options.on_conflict,
    }


def wait_for(gate: Optional[str], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while gate is not None and not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {gate}")
        time.sleep(0.005)
