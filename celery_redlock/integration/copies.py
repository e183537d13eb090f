"""A second copy of a task, of which another has perhaps done the work already.

Celery publishes the callbacks and the chain's next step and stores the result after that: once the
backend says SUCCESS nothing is left to do, and a copy ends without a trace. The lock is released
before both, so that a copy which waited for it comes too early to know: while the process of the
other one lives, its outcome is waited for a moment.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Iterable, Optional

from celery import states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

from celery_redlock.core.ports import Seen
from celery_redlock.core.record import Record
from celery_redlock.integration.call import Call
from celery_redlock.observe.logs import logger

#: Seconds that the outcome of a body may take to be recorded after its lock was released.
_MOMENT = 1.0

#: Seconds between two looks for it, from the first to the longest.
_LOOK = (0.01, 0.1)

#: What no live copy will change any more; RETRY may be an earlier run's.
_OVER = frozenset({states.FAILURE, states.REVOKED})


def copy_among(holders: Iterable[Seen], call: Call) -> Optional[Record]:
    """A holder that is this very task: not the run of which it is the retry, nor what it replaces.

    A later retry is: its success is the task's.
    """
    if not call.from_message or call.request.replaced_task_nesting:
        return None
    for holder in holders:
        record = Record.decode(holder.record)
        if record and record.task_id == call.task_id and record.retries >= call.retries:
            return record
    return None


def has_succeeded(call: Call) -> bool:
    """Whether the backend says that this task is done; False where it cannot tell."""
    return _can_tell(call) and bool(_state(call) == states.SUCCESS)


def succeeds_soon(call: Call, is_over: Callable[[], bool]) -> bool:
    """As ``has_succeeded``, a moment after another copy's body; ``is_over``: so is its process."""
    if not _can_tell(call):
        return False
    deadline, (pause, longest_pause) = time.monotonic() + _MOMENT, _LOOK
    while True:
        # In this order: what a process recorded before its end is seen.
        was_over = is_over() or time.monotonic() >= deadline
        state = _state(call)
        if was_over or state is None or state == states.SUCCESS or state in _OVER:
            return bool(state == states.SUCCESS)
        time.sleep(pause)
        pause = min(2 * pause, longest_pause)


def _can_tell(call: Call) -> bool:
    if call.request.ignore_result or call.task.ignore_result:
        return False
    # The rpc backend tells a result to the client that waits for it, once.
    return not isinstance(call.task.backend, (DisabledBackend, RPCBackend))


def _state(call: Call) -> Any:
    """The recorded state, None where it could not be read: then the task runs, as Celery has it."""
    try:
        return call.task.backend.get_state(call.task_id)
    except Exception as problem:  # noqa: BLE001 - each backend has errors of its own
        what = type(problem).__name__
        logger.warning(
            "could not ask the result backend whether %s has succeeded, so it runs: %s",
            call.task_id,
            what,
        )
        return None
