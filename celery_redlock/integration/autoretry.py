"""Autoretry leaves the interruption of a body alone.

A body that has lost its lock is interrupted by a LockLost, and its work may be going on elsewhere:
``autoretry_for=(Exception,)`` was not written for that. Celery wraps ``run`` once, with the options
of that moment: right after it has bound a decorated task, and right before it binds a class-based
one. So the one is wrapped here first, by Celery's own function, and the other once more.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Tuple

from celery.app.autoretry import add_autoretry_behaviour

from celery_redlock.exceptions import LockNotOwned, RedlockError

#: What autoretry passes on, unless the task names it.
INTERRUPTIONS: Tuple[type, ...] = (LockNotOwned,)

_OPTIONS = (
    "autoretry_for",
    "dont_autoretry_for",
    "retry_kwargs",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
)


def options_of(task: Any) -> Dict[str, Any]:
    """The options of autoretry as Celery sees them; to be read before the task is bound.

    Those of a decorator come before annotations, which binding writes into the class.
    """
    if vars(type(task)).get("_decorated"):
        given = vars(type(task))
        return {name: given[name] for name in _OPTIONS if name in given}
    return {name: getattr(task, name) for name in _OPTIONS if hasattr(task, name)}


def spare_interruptions(task: Any, options: Dict[str, Any]) -> None:
    """Have autoretry pass on the interruption of a body, unless the task names it; once."""
    is_wrapped = hasattr(task, "_orig_run")
    retried = tuple(options.get("autoretry_for", getattr(task, "autoretry_for", ())))
    if not retried or getattr(task.run, "redlock_spares", False):
        return
    if is_wrapped:
        task.run = task._orig_run
        del task._orig_run
    elif not vars(type(task)).get("_decorated"):
        return
    given = options.get("dont_autoretry_for", getattr(task, "dont_autoretry_for", ()))
    add_autoretry_behaviour(task, **{**options, "dont_autoretry_for": _passed(retried, given)})
    task.run.redlock_spares = True


def _passed(retried: Iterable[type], given: Any) -> Tuple[type, ...]:
    if not _names_them(retried):
        return (*given, *INTERRUPTIONS)
    return () if given is INTERRUPTIONS else tuple(given)


def _names_them(retried: Iterable[type]) -> bool:
    """Whether one of these errors is an interruption, or of ours and above them."""
    return any(
        issubclass(error, INTERRUPTIONS)
        or (issubclass(error, RedlockError) and issubclass(LockNotOwned, error))
        for error in retried
    )
