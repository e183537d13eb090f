"""The gate: from a call of a locked task to its body, and out again.

It stands in ``__call__``, the only place that every way into a body goes through and whose
``finally`` runs before the result is stored and before a chain's next step is published. Nothing
here decides what a conflict means (``core.policy``) or how a lock is had (``locking.manager``).
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from celery import Task
from celery.exceptions import Retry

from celery_redlock.integration import django, verdict
from celery_redlock.integration.call import Call
from celery_redlock.integration.handing import Refusal
from celery_redlock.integration.interruption import interruptible
from celery_redlock.integration.obtaining import obtain
from celery_redlock.integration.runtime import Runtime, runtime_of
from celery_redlock.locking import execution as executions
from celery_redlock.locking.execution import Execution, NoLock

#: The ``__call__`` around which the gate was put, None where it is Celery's own.
Inner = Optional[Callable[..., Any]]

#: Seconds until a task that the broker did not take asks for its lock once more.
_BROKER_PAUSE = 1.0

#: Seconds after which what was open before a wait may have been closed by its other end.
_LONG_WAIT = 1.0


def gate(task: Any, inner: Inner, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Run a call of ``task`` under its lock."""
    call = Call.of(task, args, kwargs)
    runtime = runtime_of(task.app)
    # A message begins a task: whatever this thread did before is over.
    around = executions.NOWHERE if call.from_message else executions.here()
    execution = Execution(task, call.request, around)
    if call.from_message:
        runtime.begin(execution)
    entered = executions.enter(execution)
    try:
        refusal = _lock(runtime, call, execution)
        while refusal is not None:
            try:
                return verdict.carry_out(call, refusal)
            except verdict.Unpublished:
                # The broker is away as well: the message is ours, so it waits here, and what was
                # found out in the worker's parent is of yesterday.
                time.sleep(_BROKER_PAUSE)
                call = call._replace(sent=call.sent and call.sent.without_verdict())
            refusal = _lock(runtime, call, execution)
        _refresh(call, execution)
        return _run(call, execution, inner)
    except Retry as retry:
        _keep_over(runtime, call, execution, retry)
        raise
    finally:
        try:
            execution.release_locks()
            if execution.holds:
                runtime.manager.release_all(list(execution.holds.values()))
        except BaseException:
            # Interrupted, by the loss of a lock around a nested call for instance.
            runtime.abandon(execution)
            raise
        finally:
            executions.leave(entered)
            runtime.finish(execution)


def _lock(runtime: Runtime, call: Call, execution: Execution) -> Optional[Refusal]:
    """Hold what the call names, or say why its body must not run; settles what a failure ends."""
    try:
        return _ask(runtime, call, execution)
    except Exception as error:
        verdict.fail_rest(call, error)
        raise


def _ask(runtime: Runtime, call: Call, execution: Execution) -> Optional[Refusal]:
    if not runtime.settings.enabled:
        execution.lock = NoLock("disabled")
        return None
    if call.is_eager and not runtime.settings.eager:
        execution.lock = NoLock("eager")
        return None
    names = call.task.redlock_names(call.args, call.kwargs)
    if not names:
        execution.lock = NoLock("no key")
        return None
    return obtain(runtime, call, execution, names)


def _refresh(call: Call, execution: Execution) -> None:
    """After a long wait the body finds what Celery gives a task that begins.

    Not in a direct call or in eager mode: there the connections are the caller's.
    """
    if call.from_message and time.monotonic() - execution.began > _LONG_WAIT:
        django.close_old_connections()


def _run(call: Call, execution: Execution, inner: Inner) -> Any:
    """Run the body; the loss of a lock of its own interrupts it, where its task says so."""
    if not execution.holds:
        return _body(call, inner)
    on_lost = call.task.redlock_options().on_lost
    if on_lost == "warn":
        return _body(call, inner)
    holds = execution.holds.values()
    return interruptible(holds, on_lost, call.is_in_worker, lambda: _body(call, inner))


def _body(call: Call, inner: Inner) -> Any:
    if inner is not None:
        return inner(call.task, *call.args, **call.kwargs)
    if call.is_traced:
        # As the tracer would: Celery's __call__ is for direct calls and pushes its own request.
        return call.task.run(*call.args, **call.kwargs)
    return Task.__call__(call.task, *call.args, **call.kwargs)


def _keep_over(runtime: Runtime, call: Call, execution: Execution, retry: Retry) -> None:
    """Hand the holds on to this task's own retry, where its options say so."""
    if not (call.from_message and execution.holds):
        return
    if call.task.redlock_options().on_retry != "keep":
        return
    wanted = _wanted_by(retry, call)
    for hold in [hold for hold in execution.holds.values() if hold.resource in wanted]:
        runtime.manager.keep(hold, call.kept_name(call.retries + 1), verdict.countdown_of(retry))


def _wanted_by(retry: Retry, call: Call) -> Sequence[str]:
    """What the retry will ask for: with other arguments something else, and nothing if none was
    published, as where a direct call has raised it.
    """
    if retry.sig is None:
        return ()
    try:
        names: Sequence[str] = call.task.redlock_names(retry.sig.args, retry.sig.kwargs)
    except Exception:  # noqa: BLE001 - users' code: it is raised once more where the retry is traced
        return ()
    return names
