"""Tasks that did not end: which of them Celery or the broker lost, and which are a fault of ours.

The last that was seen of a task decides. Nothing of ours runs before a worker's parent has received
a message, so one that was published and never came was lost on its way. One that a worker received
must end or be published again there; if the worker died, the broker must give it to another, unless
it was acknowledged early.

A Redis broker gives a message to a connection and forgets it before the worker, in a second step,
writes down that it has it: who is killed or cut off between the two has lost it. RabbitMQ loses
nothing that is not acknowledged.
"""

from __future__ import annotations

from collections import defaultdict
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from tests.stress.faults.mail import Event
from tests.stress.faults.plan import Variant


class Cut(NamedTuple):
    """Connections to the broker were cut by then: those of the processes ``pids``, or all."""

    at: int
    pids: Tuple[int, ...] = ()


class Lost:
    """``deaths`` says when processes were killed; their connections are among the ``cuts``.

    ``is_kept`` says whether a Redis broker has a task's message still, queued or as a worker's.
    """

    def __init__(
        self,
        variant: Variant,
        events: Iterable[Event],
        deaths: Mapping[int, int],
        cuts: Sequence[Cut],
        is_kept: Callable[[str], bool],
    ) -> None:
        self._variant = variant
        self._deaths = deaths
        self._cuts = cuts
        self._is_kept = is_kept
        self._by_task: Dict[str, List[Event]] = defaultdict(list)
        for event in events:
            self._by_task[event.task_id].append(event)

    def reason(self, task_id: str) -> Optional[str]:
        """How it was lost, in words; None if nothing explains that it has not ended."""
        events = self._by_task[task_id]
        if not events or self._is_under_way(events):
            return None
        last = _last(events)
        if self._variant.broker == "redis":
            if self._is_kept(task_id):
                return None if self._variant.gives_back else self._not_given_back(last)
            if self._was_taken_and_lost(last):
                return "lost on its way"
        # Also a message that was to be published again then.
        if not self._variant.acks_late and last.what != "finished":
            return "its worker was killed" if last.pid in self._deaths else None
        return None

    def told(self, task_id: str) -> str:
        """All that was seen of it."""
        lines = [f"{event.at} {event.pid} {event.what}" for event in self._by_task[task_id]]
        return "\n    ".join([task_id, *lines])

    def _is_under_way(self, events: Sequence[Event]) -> bool:
        """Whether a process that lives has begun it and not finished."""
        runs: Dict[int, int] = defaultdict(int)
        for event in events:
            runs[event.pid] += {"began": 1, "finished": -1}.get(event.what, 0)
        return any(runs[pid] > 0 and pid not in self._deaths for pid in runs)

    def _not_given_back(self, last: Event) -> Optional[str]:
        was_received = last.what in ("received", "began")
        is_gone = was_received and self._let_go(last) is not None
        return "not given back by a worker that is gone" if is_gone else None

    def _was_taken_and_lost(self, last: Event) -> bool:
        """Whether connections were cut while the message could be on its way to a worker."""
        if last.what == "finished":
            return False
        if last.what == "published":
            return any(cut.at > last.at for cut in self._cuts)
        since = self._let_go(last)
        # With that process its own connections were cut, before the message was given back.
        return since is not None and any(
            cut.at > since and last.pid not in cut.pids for cut in self._cuts
        )

    def _let_go(self, event: Event) -> Optional[int]:
        """Since when the message might be with the broker again, of a worker that lost it."""
        moments = [cut.at for cut in self._cuts if not cut.pids and cut.at > event.at]
        if event.pid in self._deaths:
            moments.append(self._deaths[event.pid])
        return min(moments, default=None)


def _last(events: Sequence[Event]) -> Event:
    """The last event, without the end of a run that had published the task again."""
    ends = {run[-1] for run in _runs(events) if any(event.what == "published" for event in run)}
    return [event for event in events if event not in ends][-1]


def _runs(events: Sequence[Event]) -> Iterator[List[Event]]:
    """What each process noted from the beginning to the end of a run."""
    runs: Dict[int, List[Event]] = defaultdict(list)
    for event in events:
        runs[event.pid].append(event)
        if event.what == "finished":
            yield runs.pop(event.pid)
