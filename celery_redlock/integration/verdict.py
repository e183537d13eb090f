"""Verdicts: a body that must not run, turned into what Celery does with it.

Everything here runs inside Celery's own tracer, in ``__call__``: a verdict is returned or raised
there, so that results, chords, error callbacks and events are Celery's.
"""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional

from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded
from kombu.serialization import registry

from celery_redlock.core.policy import Decision, retry_countdown
from celery_redlock.exceptions import LockConflict, LockUnavailable, RedlockError
from celery_redlock.integration import canvas
from celery_redlock.integration.call import WAIT, Call
from celery_redlock.integration.handing import Refusal
from celery_redlock.observe.logs import logger


class Unpublished(Exception):
    """The broker did not take a task that was to be published again."""


def carry_out(call: Call, refusal: Refusal) -> Any:
    """Return the result of a skipped task, or raise what ends it; Unpublished ends nothing."""
    if refusal.reason == "done":
        # As Celery's worker_deduplicate_successful_tasks: recorded and published is all of it.
        raise Ignore("another copy of this task has succeeded")
    if refusal.decision is Decision.SKIP:
        return _skip(call, refusal)
    if refusal.decision is Decision.RETRY:
        return _publish_again(call, refusal)
    error = _error(refusal)
    fail_rest(call, error)
    raise error


def fail_rest(call: Call, error: Exception) -> None:
    """Settle what would have followed a task that fails with this error before its body."""
    if call.from_message:
        canvas.fail_rest(call.task, call.request, error)


def marker(refusal: Refusal) -> Dict[str, Optional[str]]:
    """The result of a task that was skipped."""
    found: Dict[str, Optional[str]] = {
        "redlock": "skipped",
        "resource": refusal.resource,
        "holder": refusal.holder.holder if refusal.holder else None,
    }
    if refusal.reason == "replaced":
        found.update(holder=refusal.newcomer, reason="replaced")
    return found


def is_skipped(result: Any) -> bool:
    """Whether a task's result says that its body was skipped for a lock."""
    return isinstance(result, Mapping) and result.get("redlock") == "skipped"


def countdown_of(retry: Retry) -> float:
    """Seconds until a retry runs."""
    when = retry.when
    if when is None:
        return 0.0
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=timezone.utc)  # as the worker does
        return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())
    return float(when)


def _skip(call: Call, refusal: Refusal) -> Dict[str, Optional[str]]:
    result = marker(refusal)
    if call.from_message:
        canvas.skip_rest(call.task, call.request, result)
    elif call.is_eager:
        call.request.callbacks = None  # of which nothing is recorded in eager mode
    return result


def _publish_again(call: Call, refusal: Refusal) -> Any:
    """Send the task to its queue once more, whole, to ask again a little later.

    Not a retry of the user's: nothing of it is counted and no hook or signal of his sees it.
    """
    request, task = call.request, call.task
    waiting = {
        "since": time.time() - call.waited,
        "attempt": call.attempt + 1,
        "is_copy": call.is_redelivered,
    }
    signature = task.signature_from_request(
        request,
        call.args,
        call.kwargs,
        countdown=_pause(call, refusal),
        retries=request.retries,
        headers={**(request.headers or {}), WAIT: waiting},
        **_shown(request),
        **_written(call),
    )
    # Before it is published: how the next try ends must not be overwritten.
    _record_retry(call, refusal)
    try:
        signature.apply_async()
    except (SoftTimeLimitExceeded, RedlockError):
        raise  # meant for the task, not told by the broker
    except Exception as error:
        # Not OperationalError alone: over a channel whose connection was cut, kombu stumbles over
        # what is missing there (an AttributeError). The task is none the worse for it.
        what = type(error).__name__
        logger.warning(
            "could not send %s to its queue again, so it waits in its slot: %s", call.task_id, what
        )
        raise Unpublished from error
    raise Ignore(f"published again to wait for {refusal.resource}")


def _record_retry(call: Call, refusal: Refusal) -> None:
    request, task = call.request, call.task
    if request.ignore_result or task.ignore_result:
        return
    try:
        task.backend.mark_as_retry(request.id, _error(refusal), request=request)
    except Exception as problem:  # noqa: BLE001 - each backend has errors of its own
        # Often it is on the very server that is away: the task must not end for want of a note.
        what = type(problem).__name__
        logger.warning("could not record the state RETRY of %s: %s", request.id, what)


def _shown(request: Any) -> Dict[str, str]:
    """How the arguments are shown to others: a caller may have hidden some of them."""
    shown = {name: getattr(request, name, None) for name in ("argsrepr", "kwargsrepr")}
    return {name: text for name, text in shown.items() if text is not None}


def _written(call: Call) -> Dict[str, str]:
    """How its message was written: a caller may have chosen another serializer than the task's.

    What this one could not write would not come back as the same arguments.
    """
    options = {
        "serializer": registry.type_to_name.get(call.content_type),
        "compression": vars(call.request).get("compression"),
    }
    return {name: text for name, text in options.items() if text}


def _pause(call: Call, refusal: Refusal) -> float:
    """Seconds until the next try; the last one is when the time allowed is over."""
    pause = retry_countdown(call.attempt, random.random)
    return pause if refusal.left is None else min(pause, refusal.left)


def _error(refusal: Refusal) -> RedlockError:
    if refusal.error is not None:
        return LockUnavailable(refusal.error.servers)
    holder = refusal.holder
    return LockConflict(
        refusal.resource, holder.holder if holder else None, holder.since if holder else None
    )
