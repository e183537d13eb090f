"""Holders in words, for people: who it is, where it runs, for how long."""

from __future__ import annotations

import time
from typing import Optional

from celery_redlock.core.record import Record


def who(record: Optional[Record]) -> str:
    """A holder or waiter in a few words: ``task[id] on worker (pid 7)``."""
    if record is None:
        return "another"
    return f"{_name(record)} on {record.worker or record.host} (pid {record.pid})"


def held_by(record: Optional[Record]) -> str:
    """As ``who``, and for how long."""
    return who(record) if record is None else f"{who(record)}, for {age(record):.1f} s"


def age(record: Record) -> float:
    """Seconds since the record began; the clocks of two hosts differ, so never less than none."""
    return max(0.0, time.time() - record.since)


def plain(text: str) -> str:
    """Without control characters: names come from whoever can publish tasks."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _name(record: Record) -> str:
    if not record.task:
        # What is named by its host and pid alone is the script itself: both follow.
        return record.task_id or ("the worker" if record.worker else "a Lock")
    return f"{record.task}[{record.task_id}]" if record.task_id else record.task
