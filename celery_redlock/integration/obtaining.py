"""Having a call's locks, where it runs: taken over from the worker's parent, or asked for here."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from celery_redlock.core.lifecycle import LIVING
from celery_redlock.core.record import Record
from celery_redlock.integration import copies
from celery_redlock.integration.asking import Asking
from celery_redlock.integration.call import Call
from celery_redlock.integration.handing import SENT, Refusal, Sent
from celery_redlock.integration.runtime import Runtime, runtime_of, runtime_of_space
from celery_redlock.integration.steps import walk
from celery_redlock.locking.execution import Execution, HeldLock, NoLock
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import Held
from celery_redlock.observe.logs import logger


def obtain(
    runtime: Runtime, call: Call, execution: Execution, names: Sequence[str]
) -> Optional[Refusal]:
    """Hold all of the names, or say why not.

    What is held is in ``execution.holds`` either way, for the caller to release. Raises
    LockTimeout, LockUnavailable, LockError, and what a callable policy raises.
    """
    if call.sent is not None and call.sent.space != runtime.space:
        # Another app's, for a task of the same name. Celery means a process to have workers of one
        # app. In a pool of threads or greenlets it runs what any of them receives as a task of the
        # app whose worker was started last.
        _give_back(call, execution, call.sent)
        execution.asked.clear()
        call = call._replace(sent=Sent(waited=call.sent.waited, was_queued=call.sent.was_queued))
    asking = Asking(runtime, call, execution)
    if call.sent is not None:
        _take_over(runtime, asking, execution, call.sent)
    if call.is_redelivered and copies.has_succeeded(call):
        return asking.skip(names[0], (), "done")
    if call.sent is not None:
        if call.sent.error is not None:
            raise call.sent.error
        if call.sent.refusal is not None:
            return call.sent.refusal
        if call.sent.unlocked:
            execution.lock = NoLock("outage")
            return None
    outer = {name: execution.reenter(name, asking.terms) for name in names}
    wanted = [name for name, hold in outer.items() if hold is None]
    # What is in its holds besides may be what an earlier ask has abandoned.
    missing = [name for name in wanted if not _is_held(execution, name)]
    if missing:
        refusal = walk(asking.steps(missing), runtime.manager)
        if refusal is not None:
            return refusal
        if execution.lock is not None:  # runs without its lock
            return None
    if wanted and _is_done_meanwhile(runtime, asking, call, execution, wanted):
        return asking.skip(wanted[0], (), "done")
    execution.lock = HeldLock(tuple(outer[name] or execution.holds[name] for name in names))
    return None


def _take_over(runtime: Runtime, asking: Asking, execution: Execution, sent: Sent) -> None:
    """Hold what the parent was granted, all of it; what has become too old is asked for again."""
    holds = [asking.new_hold(handed.resource) for handed in sent.holds]
    taken = [hold for hold, handed in zip(holds, sent.holds) if runtime.manager.adopt(hold, handed)]
    if len(taken) == len(holds):
        execution.holds.update({hold.resource: hold for hold in taken})
        return
    # In the order of all: nothing is held while something before it is awaited.
    runtime.manager.release_all(taken)
    for hold in holds:
        if hold not in taken:
            # Not its token's end: an ask with the same one confirms what it still has.
            execution.asked.discard(hold.resource)


def give_back_untaken(task: Any) -> None:
    """Release what the parent was granted for a task that never came to its gate.

    Its ``before_start`` has raised, for instance. Does nothing for any other.
    """
    request = task.request_stack.top
    if request is None or not isinstance(vars(request).get(SENT), Sent):
        return
    call = Call.of(task, tuple(request.args or ()), dict(request.kwargs or {}))
    if call.sent is not None and call.sent.holds:
        _give_back(call, Execution(task, request), call.sent)


def release_kept(call: Call) -> None:
    """Release what its body has kept for a retry that is not to run: it is revoked, or has expired.

    For a thread of the background: never raises, and the lease ends what cannot be released.
    """
    task, runtime = call.task, runtime_of(call.task.app)
    try:
        options = task.redlock_options()
        if options.on_retry != "keep":
            return
        kept = call.kept_name(call.retries)
        record = runtime.record(task.name, call.task_id, call.retries)
        for name in task.redlock_names(call.args, call.kwargs):
            hold = Hold(name, options.terms, record, kept=kept)
            if _is_kept(runtime, name, call) and isinstance(runtime.manager.acquire(hold), Held):
                runtime.manager.release(hold)
    except Exception:  # noqa: BLE001 - what names it is the user's code
        logger.warning("could not release what was kept for %s", call.task_id, exc_info=True)


def _is_kept(runtime: Runtime, name: str, call: Call) -> bool:
    for holder in runtime.manager.inspect(name).holders:
        record = Record.decode(holder.record)
        if holder.state == "kept" and record is not None and record.task_id == call.task_id:
            return True
    return False


def _give_back(call: Call, execution: Execution, sent: Sent) -> None:
    """Release what the parent was granted, which is not to be taken over."""
    runtime = runtime_of(call.task.app)
    giver = runtime if sent.space == runtime.space else runtime_of_space(sent.space)
    if giver is None:  # the lease ends it
        return
    asking = Asking(giver, call, execution)
    holds = [asking.new_hold(handed.resource) for handed in sent.holds]
    giver.manager.give_back(holds, sent.holds)


def _is_held(execution: Execution, name: str) -> bool:
    return name in execution.holds and execution.holds[name].state in LIVING


def _is_done_meanwhile(
    runtime: Runtime, asking: Asking, call: Call, execution: Execution, names: Sequence[str]
) -> bool:
    """Whether another copy of this task has succeeded while this one waited."""
    copy = asking.copy
    if copy is not None:
        return copies.succeeds_soon(call, lambda: runtime.manager.proof(copy))
    waited = any(execution.holds[name].seq for name in names)
    waited = waited or (call.sent is not None and call.sent.was_queued)
    return call.is_redelivered and waited and copies.has_succeeded(call)
