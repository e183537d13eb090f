"""Celery's signals as the second path: what the gate's ``finally`` could not release.

A body's ``finally`` can itself be interrupted (a second soft time limit, a revoke), and a task may
end before it comes to its gate (a ``before_start`` that raises), when its worker's parent has been
granted its lock already. The release is idempotent: for a task that has released everything this
does nothing.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from celery_redlock.integration.obtaining import give_back_untaken
from celery_redlock.integration.runtime import runtime_of


def connect() -> None:
    """Connect the handlers; once, however often it is called."""
    for signal in (signals.task_postrun, signals.task_failure, signals.task_internal_error):
        signal.connect(_end_left_behind, dispatch_uid=f"celery_redlock.{signal.name}", weak=False)
    # The tracer's alone: a task's failure is told by the worker's parent too, while the body runs.
    untaken = "celery_redlock.untaken"
    signals.task_postrun.connect(_give_back_untaken, dispatch_uid=untaken, weak=False)


def _end_left_behind(sender: Any = None, **_details: Any) -> None:
    app = getattr(sender, "app", None)
    if app is not None:
        runtime_of(app).end_left_behind(sender)


def _give_back_untaken(sender: Any = None, **_details: Any) -> None:
    if hasattr(sender, "redlock_names"):
        give_back_untaken(sender)
