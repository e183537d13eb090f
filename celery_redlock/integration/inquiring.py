"""Asking everybody who may know why a task waits: the lock server, the workers, the result backend.

Each may be away, the broker included; nobody is waited for longer than a few seconds.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar

from celery.backends.base import DisabledBackend

from celery_redlock.core.options import LockOptions
from celery_redlock.core.ports import NoAnswer
from celery_redlock.integration import explaining
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import proof
from celery_redlock.locking.manager import Manager

#: Seconds for which workers' answers are collected: how many will come is not known.
_REPLIES = 1.0

#: Seconds after which a broker or a result backend is taken for silent.
SILENT = 4.0

Answer = TypeVar("Answer")


def explain(app: Any, asked: str) -> Dict[str, Any]:
    """What is known of a resource or a task, by its name or id; see ``explaining``."""
    workers = Beside(lambda: _ask_parked(app))
    own, states, unanswered = _ask_lock_server(runtime_of(app).manager, asked)
    parked = workers.answer(SILENT)
    if parked is None:
        unanswered.append("the broker: it is not known what the workers keep")
    found = explaining.Found(asked, states, parked or (), unanswered)
    if own or any(asked in each["resources"] for each in found.parked):
        return explaining.of_resource(found, own, lambda name: _options_of(app, name))
    facts = explaining.of_task(found, lambda name: _options_of(app, name))
    if not (facts["holds"] or facts["waits"] or facts["parked"]):
        facts["result"] = _ask_backend(app, asked, facts["unanswered"])
    return facts


def _ask_lock_server(
    manager: Manager, asked: str
) -> Tuple[Optional[explaining.State], List[explaining.State], List[str]]:
    """The resource of that name, if there is one; else all there are; and who was silent."""
    try:
        own = explaining.state(asked, manager.inspect(asked), time.time(), proof.is_dead)
        if explaining.is_known(own):
            return own, [], []
        found, now = manager.survey().resources, time.time()
    except NoAnswer as silence:
        return None, [], [f"the lock server: {silence.servers}"]
    states = [explaining.state(name, view, now, proof.is_dead) for name, view in found.items()]
    return None, states, []


def ask_workers(app: Any, command: str) -> List[Tuple[str, Any]]:
    """What each worker answers that does so in time; raises whatever its broker does."""
    with app.connection_for_write(connect_timeout=SILENT) as connection:
        # Celery's own broadcast would try for ever.
        connection.ensure_connection(max_retries=1, interval_start=0.1)
        replies = app.control.broadcast(
            command, reply=True, timeout=_REPLIES, connection=connection
        )
    return [item for reply in replies or () for item in reply.items()]


def _ask_parked(app: Any) -> List[explaining.Parked]:
    answers = ask_workers(app, "redlock_parked")
    return [each for worker, answer in answers for each in explaining.parked_by(worker, answer)]


def _ask_backend(app: Any, task_id: str, unanswered: List[str]) -> Optional[str]:
    """The state that the result backend has of a task; None where there is no backend."""
    if isinstance(app.backend, DisabledBackend):
        return None
    state = Beside(lambda: str(app.AsyncResult(task_id).state)).answer(SILENT)
    if state is None:
        unanswered.append("the result backend")
    return state


def _options_of(app: Any, task: Optional[str]) -> Optional[LockOptions]:
    """The options of a task that this app knows as a locked one."""
    known = app.tasks.get(task)
    return known.redlock_options() if hasattr(known, "redlock_options") else None


class Beside(Generic[Answer]):
    """A call in a thread of its own, which nothing bounds but the patience of who asked."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._answer: Optional[Answer] = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self, within: float) -> Optional[Answer]:
        """What it came to; None if it failed, or takes longer than so many seconds."""
        self._thread.join(within)
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._call()
        except Exception:  # noqa: BLE001 - each transport and backend has errors of its own
            self._answer = None
