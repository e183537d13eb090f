"""Remote control: ``celery inspect redlock_held`` and ``redlock_server``, and
``celery control redlock_release RESOURCE``. ``parking.inspecting`` has ``redlock_parked``.

The commands run in the worker's parent process, in its event loop: what they do is bounded by the
connection's timeouts and a look of less than a second.

A broadcast reaches every worker, at different times and a busy one after minutes. So that one
request ends one hold, a worker leaves a resource alone that bears the tombstone of a release by
force, unless it is told the fence of the hold that is meant.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Union

from celery.worker.control import control_command, inspect_command

from celery_redlock.core.ports import ForcedView, HolderView, ResourceView
from celery_redlock.core.record import Record
from celery_redlock.exceptions import RedlockError
from celery_redlock.integration.describing import holder_of
from celery_redlock.integration.listing import plain, who
from celery_redlock.integration.parking import inspecting as inspecting  # more such commands
from celery_redlock.integration.releasing import check_allowed, operator
from celery_redlock.integration.runtime import runtime_of

#: Seconds that a worker looks for what it holds: less than a client waits for its answer.
_LOOK = 0.5

#: Locks in one answer.
_MOST = 200

Answer = Dict[str, Any]


def _with_operator(name: str) -> Dict[str, str]:
    """The command line's argument: a resource, and who asks."""
    return {"name": name, "by": operator()}


@inspect_command()  # type: ignore[untyped-decorator, unused-ignore]
def redlock_held(state: Any, **_more: Any) -> Answer:
    """List the locks that this worker's tasks hold."""
    try:
        found = runtime_of(state.app).manager.survey(within=_LOOK)
    except RedlockError as error:
        return {"error": plain(error)}
    pids, now = _pids(state.consumer.pool), time.time()
    held: List[Answer] = [
        _entry(name, view, holder, now)
        for name, view in found.resources.items()
        for holder in view.holders
        if holder.remaining_ms > 0 and _is_ours(holder, state.hostname, pids)
    ]
    held.sort(key=lambda entry: -(entry["age"] or 0.0))
    return {"held": held[:_MOST], "complete": found.is_complete and len(held) <= _MOST}


@inspect_command()  # type: ignore[untyped-decorator, unused-ignore]
def redlock_server(state: Any, **_more: Any) -> Answer:
    """Name the lock servers that this worker goes by; none if it locks nothing."""
    try:
        return {"servers": runtime_of(state.app).servers}
    except RedlockError as error:
        return {"error": plain(error)}


@control_command(  # type: ignore[untyped-decorator, unused-ignore]
    args=[("resource", _with_operator), ("fence", int)], signature="<resource> [fence]"
)
def redlock_release(
    state: Any,
    resource: Union[str, Mapping[str, str], None] = None,
    fence: Optional[int] = None,
    **_more: Any,
) -> Answer:
    """Take a resource from whoever holds it, by force."""
    asked = resource if isinstance(resource, Mapping) else {"name": resource}
    name, by = asked.get("name"), asked.get("by", "an unnamed client")
    if not isinstance(name, str):
        return {"error": "expected the name of a resource"}
    try:
        check_allowed(state.app)
        return _release(state, name, fence, plain(f"{by} through {state.hostname}"))
    except RedlockError as error:
        return {"error": plain(error)}


def _release(state: Any, name: str, fence: Optional[int], by: str) -> Answer:
    manager = runtime_of(state.app).manager
    view = manager.inspect(name)
    holders = [held for held in view.holders if fence is None or held.fence == fence]
    if fence is None and view.forced:
        return {"ok": _was_forced(name, view.forced, holders)}
    released = manager.force(name, holders, by)
    if not released:
        return {"ok": f"{plain(name)} is not held" + ("" if fence is None else " with this fence")}
    people = ", ".join(who(holder_of(held, time.time())) for held in released)
    return {"ok": f"{plain(name)} released from {people}"}


def _was_forced(name: str, forced: ForcedView, holders: Sequence[HolderView]) -> str:
    told = f"{plain(name)} was released by force {forced.ago_ms / 1000:.1f} s ago by"
    now_held = "".join(
        f"; now held by {who(holder_of(held, time.time()))}, "
        f"to release it too add its fence {held.fence}"
        for held in holders
    )
    return f"{told} {plain(forced.by)}{now_held}"


def _entry(name: str, view: ResourceView, holder: HolderView, now: float) -> Answer:
    return {
        "resource": name,
        **holder_of(holder, now),
        "fence": holder.fence,
        "lease_left": holder.remaining_ms / 1000,
        "waiting": sum(waiter.remaining_ms > 0 for waiter in view.waiters),
    }


def _is_ours(holder: HolderView, hostname: str, pids: Set[int]) -> bool:
    record = Record.decode(holder.record)
    if record is None:
        return False
    if record.worker is not None:
        return record.worker == hostname
    return record.host == socket.gethostname() and record.pid in pids


def _pids(pool: Any) -> Set[int]:
    """The processes that run this worker's bodies."""
    return {os.getpid(), *(pool.info or {}).get("processes", ())}
