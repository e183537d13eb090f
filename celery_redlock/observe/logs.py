"""Events as log lines, each with a stable name and its fields in ``extra``.

Contention is DEBUG or INFO, trouble with a renewal WARNING, a lost lease ERROR. Every record has
``redlock_event`` (the line's name) and ``redlock`` (a mapping of the event's fields).
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, NamedTuple, Type

from celery_redlock.core import events
from celery_redlock.observe.fields import fields_of
from celery_redlock.observe.words import held_by, plain, who

logger = logging.getLogger("celery_redlock")


class Line(NamedTuple):
    """How one kind of event is logged."""

    level: int
    name: str
    words: Callable[[Any], str]


#: Why a hold was lost, in words, where the protocol's own are short.
_WHY = {
    "dead": "its process was taken for dead, and another took it over",
    "forced": "somebody released it by force",
    "left": "it had been released before",
    "replaced": "its own process had replaced it",
    "gone when released": "its lease had passed, and its place was gone when it was released",
}

#: Why a task did not wait, or not any longer.
_REASON = {
    "full": "the line for {} is full",
    "replaced": "another took its place in line for {}",
    "ended": "it was taken out of the line for {}",
    "done": "another copy of this task on {} has succeeded",
}


def _acquired(event: events.Acquired) -> str:
    how = f"waited {event.waited:.3f} s for and " if event.queued else ""
    return f"{who(event.owner)} {how}acquired {event.resource}, fence {event.fence}"


def _conflict(event: events.Conflicted) -> str:
    begin = f"{who(event.owner)}: {event.decision}, "
    if event.reason not in _REASON:
        return f"{begin}{event.resource} is held by {held_by(event.holder)}"
    holder = f", held by {held_by(event.holder)}" if event.holder else ""
    return begin + _REASON[event.reason].format(event.resource) + holder


def _forced(event: events.Forced) -> str:
    holder = f"held by {held_by(event.holder)}" if event.holder else "held by nobody"
    return f"{event.by} released {event.resource} by force, {holder}"


LINES: Dict[Type[Any], Line] = {
    events.Acquired: Line(logging.DEBUG, "lock_acquired", _acquired),
    events.Waiting: Line(
        logging.INFO,
        "lock_waiting",
        lambda e: f"{who(e.owner)} waits for {e.resource}, held by {held_by(e.holder)}",
    ),
    events.Conflicted: Line(logging.INFO, "lock_conflict", _conflict),
    events.TimedOut: Line(
        logging.WARNING,
        "lock_timeout",
        lambda e: (
            f"{who(e.owner)} gave up {e.resource} after {e.waited:.3f} s, "
            f"held by {held_by(e.holder)}"
        ),
    ),
    events.Released: Line(
        logging.DEBUG,
        "lock_released",
        lambda e: f"{who(e.owner)} released {e.resource} after {e.held:.3f} s",
    ),
    events.Abandoned: Line(
        logging.WARNING,
        "lock_abandoned",
        lambda e: (
            f"{who(e.owner)} left {e.resource} without an answer of the lock server to that; "
            "its release goes on in the background"
        ),
    ),
    events.Cleared: Line(
        logging.INFO,
        "lock_cleared",
        lambda e: f"{who(e.owner)}: the late release of {e.resource} is acknowledged",
    ),
    events.RenewalFailed: Line(
        logging.WARNING,
        "lock_renewal_failed",
        lambda e: (
            f"{who(e.owner)} could not renew {e.resource}, trusted for {e.left:.3f} s more: "
            f"{e.servers}"
        ),
    ),
    events.Unsure: Line(
        logging.WARNING,
        "lock_unsure",
        lambda e: f"{who(e.owner)} may have lost {e.resource}: it was not renewed in time",
    ),
    events.Recovered: Line(
        logging.INFO,
        "lock_recovered",
        lambda e: f"{who(e.owner)} holds {e.resource} for certain again",
    ),
    events.Reestablished: Line(
        logging.WARNING,
        "lock_reestablished",
        lambda e: (
            f"{who(e.owner)} holds {e.resource} again: the lock server had forgotten that, "
            "and nobody else had it"
        ),
    ),
    events.Lost: Line(
        logging.ERROR,
        "lock_lost",
        lambda e: f"{who(e.owner)} lost {e.resource}: {_WHY.get(e.why, e.why)}",
    ),
    events.Unavailable: Line(
        logging.WARNING,
        "lock_unavailable",
        lambda e: f"{who(e.owner)}: {e.decision}, no answer about {e.resource}: {e.servers}",
    ),
    events.Kept: Line(
        logging.INFO,
        "lock_kept",
        lambda e: f"{who(e.owner)} keeps {e.resource} for its retry, for at most {e.left:.1f} s",
    ),
    events.Reclaimed: Line(
        logging.WARNING,
        "lock_reclaimed",
        lambda e: (
            f"{who(e.owner)} ended the hold of {e.resource} that a dead process left behind: "
            f"{held_by(e.holder)}"
        ),
    ),
    events.Forced: Line(logging.WARNING, "lock_forced", _forced),
    events.WatchdogFailed: Line(
        logging.ERROR,
        "lock_watchdog_failed",
        lambda e: f"the watchdog met {e.error!r} and goes on",
    ),
}


def log(event: events.Event) -> None:
    """Write one event to the logger ``celery_redlock``."""
    line = LINES[type(event)]
    level = _level(line, event)
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "%s",
        plain(line.words(event)),
        extra={"redlock_event": line.name, "redlock": fields_of(event)},
        exc_info=getattr(event, "error", None),
    )


def _level(line: Line, event: events.Event) -> int:
    # Who reads that a task waits will look for the end of it.
    return logging.INFO if getattr(event, "queued", False) else line.level
