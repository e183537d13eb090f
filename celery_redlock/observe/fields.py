"""Events as flat fields with stable names, ready for JSON: for logs, signals and whatever counts.

The same names everywhere: ``task``, ``task_id``, ``worker``, ``host`` and ``pid`` are whom the
event is about; the same with ``holder_`` before them, and ``holder``, are who has the lock.
docs/events.md has them all.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from celery_redlock.core.events import Event
from celery_redlock.core.record import Record
from celery_redlock.observe.words import age


def fields_of(event: Event) -> Dict[str, Any]:
    """The fields of one event; ages are those of now."""
    found: Dict[str, Any] = {}
    for name, value in vars(event).items():
        if name == "owner":
            found.update(_owner(value))
        elif name == "holder":
            found.update(_holder(value))
        elif isinstance(value, BaseException):
            # Its text may be anything; a log line has it with its traceback.
            found[name] = type(value).__name__
        else:
            found[name] = value
    return found


def _owner(record: Record) -> Dict[str, Any]:
    return {
        "task": record.task,
        "task_id": record.task_id,
        "worker": record.worker,
        "host": record.host,
        "pid": record.pid,
    }


def _holder(record: Optional[Record]) -> Dict[str, Any]:
    return {
        "holder": record and record.holder,
        "holder_task": record and record.task,
        "holder_worker": record and record.worker,
        "holder_host": record and record.host,
        "holder_pid": record and record.pid,
        "holder_age": record and age(record),
    }
