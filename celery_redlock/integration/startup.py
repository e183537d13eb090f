"""What a worker does when it starts: it checks, and it frees what the dead of its host hold.

The steps are added when a task is bound: that is before Celery puts the worker's steps together,
also where the tasks are found late.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals
from celery.concurrency import prefork

from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.record import Record
from celery_redlock.core.unpatched import has_greenlets
from celery_redlock.integration import control as control  # its commands, in every worker
from celery_redlock.integration.parking.step import ParkTasks
from celery_redlock.integration.request import children
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import native
from celery_redlock.locking.manager import Manager
from celery_redlock.observe.logs import logger

#: Seconds for which a new child may wait until what the dead ones held is free.
_BEFORE_A_CHILD = 0.05

#: Seconds that the sweep may take: it walks over all that the lock server keeps.
_SWEEP = 10.0


class CheckSettings(bootsteps.Step):  # type: ignore[misc]
    """Raises ConfigurationError for a setting, a flag or an option that cannot be used.

    Connects to nothing: a server that is away is no wrong setting.
    """

    name = "celery_redlock.CheckSettings"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        runtime = runtime_of(worker.app)
        runtime.check()
        for task in worker.app.tasks.values():
            if hasattr(task, "redlock_options"):
                task.redlock_options()
                runtime.check_task(task)


class FollowChildren(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has what a dead child held freed by its parent, where the pool has children."""

    name = "celery_redlock.FollowChildren"
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        if isinstance(worker.pool, prefork.TaskPool):
            children.follow(worker.hostname)
            signals.worker_before_create_process.connect(
                _free_first, dispatch_uid=self.name, weak=False
            )


def _free_first(**_details: Any) -> None:
    """Before it replaces a child Celery collects garbage, which lets no other thread run for long.

    It learns of a death when the child's files are closed, which is a moment before it is dead.
    """
    children.finish(_BEFORE_A_CHILD)


class SweepHost(bootsteps.StartStopStep):  # type: ignore[misc]
    """Frees what processes of this host held that are dead by proof, in the background.

    The worker that is started again after it was killed frees its own before anybody asks.
    """

    name = "celery_redlock.SweepHost"
    # After the first children are forked: they need not know of the thread.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        runtime = runtime_of(worker.app)
        # Not beside greenlets: until the worker has started both import modules, and a thread of
        # the system that waits for a greenlet to import may stop them both.
        if runtime.settings.enabled and not has_greenlets():
            manager, owner = runtime.manager, runtime.record(None, None, worker=worker.hostname)
            native.start_thread(lambda: _sweep(manager, owner))


def _sweep(manager: Manager, owner: Record) -> None:
    try:
        manager.sweep(owner, _SWEEP)
    except NoAnswer as silence:
        # Whoever asks for such a lock frees it as well.
        logger.info("could not look for what dead processes hold: %s", silence.servers)
    except Exception:  # noqa: BLE001 - a thread's last words
        logger.exception("could not look for what dead processes hold")


def at_start(app: Any) -> None:
    """Have the app's workers do all this; once, however often it is called."""
    app.steps["consumer"].add(ParkTasks)
    app.steps["worker"].update((CheckSettings, FollowChildren, SweepHost))
