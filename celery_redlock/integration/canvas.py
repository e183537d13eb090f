"""What becomes of the rest of a canvas when one of its tasks does not run for a lock.

Nobody may wait for ever, so every remaining step, found by its task id in chains, groups and
chords, is recorded. After a skipped task it is REVOKED, but for the step that a chord counts on:
that one is done with the skipped task's marker, so that the chord goes on. After a task that failed
for a lock Celery records the rest as failed as well, but not what is inside groups and the headers
of chords: that is done here.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional

from celery.app.task import Context
from celery.backends.base import Backend

_REASON = "an earlier step was skipped for a lock"

#: Celery 5.7 fails the bodies of chords as well; before, it passed whole chords over.
_REACHES_BODIES = hasattr(Backend, "_fail_chain")

Signature = Mapping[str, Any]


class _Step(NamedTuple):
    """A single task that will not run. ``chord`` is the one, begun before, that counts on it."""

    signature: Signature
    chord: Optional[Signature] = None


def skip_rest(task: Any, request: Any, marker: Mapping[str, Any]) -> None:
    """Settle everything that would have followed this task; nothing of it will run."""
    # Celery keeps the rest of a chain reversed: its last step comes first.
    steps = [step for signature in request.chain or () for step in _steps(signature)]
    seen = any(step.chord for step in steps) and _looks_at_parents(task, request.chain[0])
    for step in steps:
        if step.chord or seen:
            _record_done(task, request, step, marker)
        else:
            _record_revoked(task, request, step.signature)
    for step in steps:
        _revoke_callbacks(task, request, step.signature)
    for callback in request.callbacks or ():
        _revoke_all(task, request, callback)
    # Last: what raised before this leaves the rest to Celery, which fails it.
    request.chain = request.callbacks = None


def fail_rest(task: Any, request: Any, error: BaseException) -> None:
    """Record the steps that Celery does not reach from a failed task as failed, too."""
    for signature in request.chain or ():
        for step in _beyond_celerys_reach(signature):
            context = _context(request, step.signature, step.chord)
            backend = _backend(task, step.signature)
            backend.mark_as_failure(context.id, error, request=context, call_errbacks=False)


# --- finding the steps


def _steps(signature: Signature, begun: bool = True) -> Iterator[_Step]:
    """Every single task of a signature, without callbacks.

    ``begun`` is whether a chord named by a step was begun before: the chord of a header's members
    is the one around them, which never begins.
    """
    kind = signature.get("subtask_type")
    kwargs = signature.get("kwargs") or {}
    if kind in ("chain", "group"):
        for inner in kwargs.get("tasks") or ():
            yield from _steps(inner, begun)
    elif kind == "chord":
        for inner in _header(signature):
            yield from _steps(inner, begun=False)
        if kwargs.get("body"):
            yield from _steps(kwargs["body"], begun)
    else:
        yield _Step(signature, _options(signature).get("chord") if begun else None)
        # A task that is itself at the head of a chain carries the rest of it.
        for inner in _options(signature).get("chain") or ():
            yield from _steps(inner, begun)


def _beyond_celerys_reach(signature: Signature) -> Iterator[_Step]:
    """Celery fails single steps, and since 5.7 the bodies of chords; not what else is inside."""
    kind = signature.get("subtask_type")
    if kind == "group":
        yield from _steps(signature)
    elif kind == "chord":
        for inner in _header(signature):
            yield from _steps(inner, begun=False)
        body = signature["kwargs"].get("body")
        if body:
            yield from _beyond_celerys_reach(body) if _REACHES_BODIES else _steps(body)


def _header(chord: Signature) -> Iterable[Signature]:
    header = (chord.get("kwargs") or {}).get("header") or ()
    return [header] if isinstance(header, Mapping) else header


def _callbacks(signature: Signature) -> List[Signature]:
    link = _options(signature).get("link") or ()
    return [link] if isinstance(link, Mapping) else list(link)


def _options(signature: Signature) -> Mapping[str, Any]:
    return signature.get("options") or {}


def _looks_at_parents(task: Any, last: Signature) -> bool:
    """Whether a chord that counts on this chain also looks at the steps before its last one.

    Where results are joined one by one Celery does so, and fails the chord if one was revoked.
    """
    return bool(last.get("subtask_type")) or not task.backend.supports_native_join


# --- recording what became of them


def _record_done(task: Any, request: Any, step: _Step, marker: Mapping[str, Any]) -> None:
    context = _context(request, step.signature, step.chord)
    if context.id:
        _backend(task, step.signature).mark_as_done(context.id, dict(marker), request=context)


def _record_revoked(task: Any, request: Any, signature: Signature) -> None:
    context = _context(request, signature)
    if context.id:
        _backend(task, signature).mark_as_revoked(
            context.id, _REASON, request=context, store_result=True
        )


def _revoke_callbacks(task: Any, request: Any, signature: Signature) -> None:
    for callback in _callbacks(signature):
        _revoke_all(task, request, callback)


def _revoke_all(task: Any, request: Any, signature: Signature) -> None:
    for step in _steps(signature, begun=False):
        _record_revoked(task, request, step.signature)
        _revoke_callbacks(task, request, step.signature)


def _backend(task: Any, signature: Signature) -> Any:
    known = task.app.tasks.get(signature.get("task"))
    return known.backend if known is not None else task.app.backend


def _context(request: Any, signature: Signature, chord: Optional[Signature] = None) -> Any:
    options = _options(signature)
    return Context(
        id=options.get("task_id"),
        task=signature.get("task"),
        args=signature.get("args") or (),
        kwargs=signature.get("kwargs") or {},
        correlation_id=options.get("task_id"),
        reply_to=options.get("reply_to") or request.reply_to,
        root_id=options.get("root_id") or request.root_id,
        parent_id=options.get("parent_id") or request.id,
        chord=chord,
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        delivery_info=request.delivery_info,
    )
