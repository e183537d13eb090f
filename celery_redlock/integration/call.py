"""One call of a locked task: how it was made, and what came with it."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Tuple

from celery import _state
from celery.app.task import Context

from celery_redlock.integration.handing import CONTENT_TYPE, RECEIPT, SENT, Sent
from celery_redlock.locking.execution import Execution

#: The header in which a task that was published again to wait says since when it has waited, how
#: often it was published so, what places it had in line, and whether it is a second copy.
WAIT = "redlock_wait"

#: The attribute of a request whose call has come to the gate.
_TRACED = "_traced_by_redlock"

for _ours in (CONTENT_TYPE, RECEIPT, SENT, WAIT):
    # What its context does not know Celery takes for a header of the user's: ``before_start`` would
    # see it, and a retry from there would publish it again.
    setattr(Context, _ours, None)


class Call(NamedTuple):
    """A call as the gate sees it.

    ``is_traced``: run by Celery's tracer with a request of its own (a message, or eager mode);
    otherwise it is a direct call, or one nested in a body of the same request.
    """

    task: Any
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any]
    request: Any
    is_traced: bool
    is_eager: bool
    receipt: str
    wait: Mapping[str, Any]
    sent: Optional[Sent] = None
    content_type: Optional[str] = None

    @classmethod
    def of(cls, task: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Call:
        request = task.request_stack.top
        is_traced = request is not None and not request.called_directly and _is_fresh(request)
        is_eager = bool(is_traced and request.is_eager)
        receipt = wait = sent = content_type = None
        if is_traced:
            # Taken out of the request, or a retry would publish them again.
            receipt = _take_header(request, RECEIPT)
            wait = _take_header(request, WAIT)
            sent = _take_header(request, SENT)
            content_type = _take_header(request, CONTENT_TYPE)
        return cls(
            task=task,
            args=args,
            kwargs=kwargs,
            request=request,
            is_traced=is_traced,
            is_eager=is_eager,
            receipt=receipt if receipt and not is_eager else secrets.token_hex(16),
            wait=wait if wait and isinstance(wait, Mapping) else {},
            sent=sent if isinstance(sent, Sent) and not is_eager else None,
            content_type=content_type,
        )

    @property
    def from_message(self) -> bool:
        return self.is_traced and not self.is_eager

    @property
    def is_in_worker(self) -> bool:
        """Whether it runs in a task of a worker, called directly or not; never in eager mode."""
        if self.from_message:
            return True
        around = _state.get_current_worker_task()
        return around is not None and not around.request.is_eager

    @property
    def task_id(self) -> Optional[str]:
        return self.request.id if self.request is not None else None

    @property
    def is_redelivered(self) -> bool:
        """Whether this is a message that the broker says it has delivered before.

        One that was published again to wait is a new message to the broker, and no other task.
        """
        if not self.from_message:
            return False
        by_broker = (self.request.delivery_info or {}).get("redelivered")
        return bool(by_broker or self.wait.get("is_copy"))

    @property
    def own_ids(self) -> FrozenSet[str]:
        """The ids of the tasks that are this one: its own, and that of the task it replaces.

        A chain or a group that replaces a task begins with tasks of other ids, and the body that
        published them may not have ended yet.
        """
        ids = [self.task_id]
        if self.is_traced and self.request.replaced_task_nesting:
            ids.append(self.request.parent_id)
        return frozenset(known for known in ids if known is not None)

    @property
    def retries(self) -> int:
        return self.request.retries if self.is_traced else 0

    @property
    def waited(self) -> float:
        """Seconds since the first ask of this task, also before it was published again."""
        since = self.wait.get("since")
        if isinstance(since, (int, float)):
            return max(0.0, time.time() - since)
        return self.sent.waited if self.sent else 0.0

    @property
    def attempt(self) -> int:
        """How often it was published again to wait."""
        attempt = self.wait.get("attempt")
        return attempt if isinstance(attempt, int) else 0

    def place_in(self, name: str) -> int:
        """The place that it had in a resource's line before this delivery, 0 for none."""
        places = self.wait.get("places")
        place = places.get(place_key(name)) if places and isinstance(places, Mapping) else None
        return place if isinstance(place, int) else 0

    def kept_name(self, retries: int) -> str:
        """The name under which a hold is kept for one retry of this task; no header claims it."""
        return hashlib.sha256(f"{self.task_id}/{retries}".encode()).hexdigest()[:32]


def place_key(name: str) -> str:
    """How a resource goes in a header: its name may say more of a call than others may read."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _is_fresh(request: Any) -> bool:
    """Whether the tracer made this request for this very call; marks it.

    A direct call in a body finds the body's request on the stack, or a copy that Celery made of it
    for another direct call around this one: both bear the mark.
    """
    is_fresh = _TRACED not in vars(request)
    vars(request)[_TRACED] = True
    return is_fresh


def worker_of(execution: Optional[Execution]) -> Optional[str]:
    """The node name of the worker that a body runs in, None outside of workers."""
    while execution is not None:
        hostname = execution.request.hostname if execution.request is not None else None
        # In eager mode, and where the tracer knows no node, it is the host's name alone.
        if hostname and "@" in hostname:
            return str(hostname)
        execution = execution.parent
    return None


def _take_header(request: Any, name: str) -> Any:
    if request.headers:
        request.headers.pop(name, None)
    return vars(request).pop(name, None)
