"""Signals of Celery's own kind: what happened to a lock, for whoever connects.

Sent by an event sink in the process, and from the thread, that saw it happen: in a pool's child for
what its body does, in the watchdog's thread for a lost lock. Receivers are called one after the
other and must be quick; what one raises is logged by Celery and harms nobody.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Tuple, Type
from weakref import ref

from celery.utils.dispatch import Signal

from celery_redlock.core import events
from celery_redlock.core.events import Event
from celery_redlock.locking import process
from celery_redlock.observe.fields import fields_of

_OWNER = {"event", "resource", "task", "task_id", "worker", "host", "pid"}
_HOLDER = {
    *("holder", "holder_task", "holder_worker", "holder_host", "holder_pid", "holder_age"),
}


def _signal(name: str, *fields: str) -> Any:
    return Signal(name=name, providing_args=_OWNER.union(fields))


lock_acquired = _signal("lock_acquired", "fence", "waited", "queued")
lock_waiting = _signal("lock_waiting", "rank", *_HOLDER)
lock_conflict = _signal("lock_conflict", "decision", "reason", "waited", *_HOLDER)
lock_released = _signal("lock_released", "fence", "held")
lock_lost = _signal("lock_lost", "fence", "why")
lock_reclaimed = _signal("lock_reclaimed", *_HOLDER)
lock_unavailable = _signal("lock_unavailable", "servers", "decision")

SIGNALS: Tuple[Any, ...] = (
    lock_acquired,
    lock_waiting,
    lock_conflict,
    lock_released,
    lock_lost,
    lock_reclaimed,
    lock_unavailable,
)

#: What each event is sent as; the others are only logged.
SENT_AS: Dict[Type[Any], Any] = {
    events.Acquired: lock_acquired,
    events.Waiting: lock_waiting,
    events.Conflicted: lock_conflict,
    events.TimedOut: lock_conflict,
    events.Released: lock_released,
    events.Lost: lock_lost,
    events.Reclaimed: lock_reclaimed,
    events.Unavailable: lock_unavailable,
}

#: What every receiver of ``lock_conflict`` finds, also where the event has it not.
_TIMED_OUT = {"decision": "timeout", "reason": "conflict"}
_NOT_WAITED = {"waited": None}


def sender_for(app: Any) -> Callable[[Event], None]:
    """The sink of one app: its tasks are the senders, itself where no task is concerned."""
    known = ref(app)

    def send(event: Event) -> None:
        signal = SENT_AS.get(type(event))
        # Most processes have no receiver: then a lock costs nothing more.
        if signal is None or not signal.receivers:
            return
        fields = fields_of(event)
        if isinstance(event, events.TimedOut):
            fields.update(_TIMED_OUT)
        elif isinstance(event, events.Conflicted):
            fields.update(_NOT_WAITED)
        signal.send(sender=_sender(known(), fields["task"]), event=event, **fields)

    return send


def _sender(app: Any, task: Any) -> Any:
    return app if app is None or task is None else app.tasks.get(task, app)


class _Locks:
    """The signals' own mutexes: a thread of the parent may have held one when it forked."""

    def after_fork(self) -> None:
        for signal in SIGNALS:
            signal.lock = threading.Lock()


_locks = _Locks()
process.join(_locks)
