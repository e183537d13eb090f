"""Whose turn it was, judged where nothing but what is provoked keeps anybody from taking it.

A place that is free does not stay empty while somebody waits for it, and who has waited clearly
longer comes first. One hand-over may be late on a busy machine; the median of many is not.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, median
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence

from examples.demo.bodylog import Body
from tests.stress.faults.app import SECOND
from tests.stress.faults.judge import Harm, Key
from tests.stress.faults.mail import Event

#: Seconds by which one has waited clearly, or clearly longer than another: what is between two
#: places on a busy machine has come by then.
CLEARLY = 1.0

#: Seconds: the median of the hand-overs takes some hundredths of one.
AT_ONCE = 0.3

#: Seconds: where a few places are blocked for a second, the mean tells it. A sound run has some
#: thousandths of one.
ON_AVERAGE = 0.04

#: Fewer hand-overs than these say nothing.
ENOUGH = 5

#: What can be judged: how long a place is empty after an end, after a death, and for a ``Lock``;
#: the mean of the ends; and who comes first.
ENDS, DEATHS, LOCKS, MEAN, ORDER = "ends", "deaths", "locks", "mean", "order"


class Waits(NamedTuple):
    """Since when they wait: tasks, by what was sent and received, and those that ask themselves.

    ``asked`` is of a ``Lock``, which logs no task.
    """

    published: Mapping[str, int]
    received: Mapping[str, int]
    asked: Mapping[Key, int]

    @classmethod
    def of(cls, events: Iterable[Event], asked: Mapping[Key, int]) -> Waits:
        first: Dict[str, Dict[str, int]] = {"published": {}, "received": {}}
        for event in events:
            if event.what in first:
                first[event.what].setdefault(event.task_id, event.at)
        return cls(first["published"], first["received"], asked)


class Turns:
    """``end_of`` says when a body ended, ``deaths`` when processes were killed."""

    def __init__(
        self,
        bodies: Iterable[Body],
        waits: Waits,
        end_of: Callable[[Body], float],
        deaths: Mapping[int, int],
        harms: Sequence[Harm] = (),
    ) -> None:
        self._waits = waits
        self._end_of = end_of
        self._deaths = deaths
        self._harms = harms
        self._by_resource: Dict[str, List[Body]] = defaultdict(list)
        for body in sorted(bodies, key=lambda body: body.start):
            self._by_resource[body.resource].append(body)

    def faults(self, judged: Sequence[str]) -> List[str]:
        """What was not kept of what is ``judged``, in words."""
        found: List[str] = []
        for after, times in self.empty().items():
            if len(times) < ENOUGH:
                continue
            if after in judged and median(times) > AT_ONCE:
                told = f"{median(times):.3f} s in the median of {len(times)} {after}"
                found.append(f"a free place stayed empty for {told}")
            if after == ENDS and MEAN in judged and mean(times) > ON_AVERAGE:
                told = f"{mean(times):.3f} s in the mean of {len(times)} {after}"
                found.append(f"a free place stayed empty for {told}")
        return [*found, *(self._inversions() if ORDER in judged else ())]

    def empty(self) -> Dict[str, List[float]]:
        """Seconds for which a place was free while the next one waited, by what had freed it."""
        found: Dict[str, List[float]] = {ENDS: [], DEATHS: [], LOCKS: []}
        for bodies in self._by_resource.values():
            for before, body in zip(bodies, bodies[1:]):
                ended = self._end_of(before)
                asked = self._waits.asked.get((body.resource, body.fence or 0))
                if asked is not None:
                    found[LOCKS].append((body.start - max(ended, asked)) / SECOND)
                elif self._waited_clearly(body, ended) and not self._was_harmed(body, ended):
                    kind = DEATHS if before.end is None and before.pid in self._deaths else ENDS
                    found[kind].append((body.start - ended) / SECOND)
        return found

    def _inversions(self) -> Iterator[str]:
        for bodies in self._by_resource.values():
            for at, body in enumerate(bodies):
                came = self._came(body)
                for later in bodies[at + 1 :]:
                    if self._waited_clearly(later, came) and not self._was_harmed(later, came):
                        yield f"came before one that had waited for longer:\n  {body}\n  {later}"

    def _came(self, body: Body) -> float:
        """The earliest moment at which it may have begun to wait."""
        asked = self._waits.asked.get((body.resource, body.fence or 0))
        if asked is not None:
            return asked
        return self._waits.published.get(body.task_id or "", body.start)

    def _waited_clearly(self, body: Body, until: float) -> bool:
        received = self._waits.received.get(body.task_id or "")
        return received is not None and received + CLEARLY * SECOND < until

    def _was_harmed(self, body: Body, since: float) -> bool:
        """Whether its process was stopped between then and its start."""
        return any(
            harm.pid in (None, body.pid) and harm.begin < body.start and harm.end > since
            for harm in self._harms
        )
