"""What to do when the resource is held: pure decisions over one Conflict.

A policy is a name, or a callable over the conflict that returns a name. Two rules stand above every
policy: a task is never in conflict with another copy of itself (a redelivery, a retry, a
replacement), and what cannot be published again waits in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import AbstractSet, Callable, Iterable, Optional, Union

from celery_redlock.core.ports import Seen
from celery_redlock.core.record import Record
from celery_redlock.exceptions import ConfigurationError


@dataclass(frozen=True)
class Conflict:
    """What a callable policy is told. Times are seconds; ``since`` is Unix time.

    ``holder`` is the task id of the longest holder, or ``host/pid`` for a ``Lock``, and ``since``
    when it was granted the lock, both None where that is not known; ``waiting`` is how many stand
    in line, ``waited`` how long this task has waited so far.
    """

    task: str
    task_id: Optional[str]
    resource: str
    holder: Optional[str]
    since: Optional[float]
    waiting: int
    waited: float


class Decision(str, Enum):
    WAIT = "wait"
    RETRY = "retry"
    SKIP = "skip"
    FAIL = "fail"


Policy = Union[str, Callable[[Conflict], str]]


def decide(policy: Policy, conflict: Conflict, *, own_copy: bool, republishable: bool) -> Decision:
    """What happens to a task that met a conflict.

    Raises ConfigurationError for a callable that returns no policy's name, and whatever it raises.
    """
    if own_copy:
        return Decision.WAIT
    name = policy(conflict) if callable(policy) else policy
    try:
        decision = Decision(name)
    except ValueError:
        expected = ", ".join(f'"{known.value}"' for known in Decision)
        raise ConfigurationError(
            f"task {conflict.task}: the callable lock_on_conflict must return one of {expected}, "
            f"got {name!r}; return one of them"
        ) from None
    if decision is Decision.RETRY and not republishable:
        return Decision.WAIT
    return decision


def asks_first(policy: Policy) -> bool:
    """Whether the policy must see a conflict before the task may stand in line."""
    return policy != Decision.WAIT


def has_own_copy(holders: Iterable[Seen], task_ids: AbstractSet[str]) -> bool:
    """Whether another copy of this very task is among the holders, by the ids that it goes by."""
    records = (Record.decode(holder.record) for holder in holders)
    return any(record is not None and record.task_id in task_ids for record in records)


def retry_countdown(attempt: int, random: Callable[[], float]) -> float:
    """Seconds until the next try: doubles from one to thirty, of which the half is jitter."""
    longest = float(min(2 ** min(attempt, 10), 30))
    return longest / 2 + random() * longest / 2
