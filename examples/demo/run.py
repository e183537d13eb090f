"""One run as it was: what was published, and what the bodies logged of it."""

from __future__ import annotations

from statistics import median
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from examples.demo.bodylog import Body


class Call(NamedTuple):
    """A published task; ``at`` in nanoseconds of the body log's clock."""

    number: int
    resource: str
    task_id: str
    at: int


class Bar(NamedTuple):
    """One body in its lane; ``end`` is the time of looking while it runs."""

    call: Call
    start: int
    end: int
    fence: Optional[int]
    is_running: bool

    @property
    def waited(self) -> int:
        return self.start - self.call.at


class Lane(NamedTuple):
    """One resource: its calls and its bodies, both in order of time."""

    resource: str
    calls: Sequence[Call]
    bars: Sequence[Bar]

    def running(self, at: int) -> int:
        """How many bodies ran."""
        return sum(bar.start <= at < bar.end for bar in self.bars)

    def waiting(self, at: int) -> int:
        """How many tasks were published and had not started."""
        published = sum(call.at <= at for call in self.calls)
        return published - sum(bar.start <= at for bar in self.bars)

    def rows(self) -> List[List[Bar]]:
        """The bars in as few rows as they need without touching: one, if no two overlap."""
        rows: List[List[Bar]] = []
        for bar in self.bars:
            row = next((row for row in rows if row[-1].end <= bar.start), None)
            if row is None:
                rows.append([bar])
            else:
                row.append(bar)
        return rows

    def overlaps(self) -> int:
        """How many bodies started while another one ran."""
        return sum(
            any(other.end > bar.start for other in self.bars[:place])
            for place, bar in enumerate(self.bars)
        )

    def hand_overs(self) -> List[int]:
        """From the end of a body to the start of the next, where the next was there already."""
        return [
            after.start - before.end
            for before, after in zip(self.bars, self.bars[1:])
            if after.call.at <= before.end <= after.start
        ]


class Run(NamedTuple):
    """All lanes, in the order in which their resources are named; ``now`` is when it was seen."""

    lanes: Sequence[Lane]
    start: int
    now: int

    @property
    def bars(self) -> List[Bar]:
        return [bar for lane in self.lanes for bar in lane.bars]

    @property
    def calls(self) -> List[Call]:
        return [call for lane in self.lanes for call in lane.calls]

    @property
    def ended(self) -> int:
        return sum(not bar.is_running for bar in self.bars)

    def at_once(self, at: int) -> int:
        """How many bodies of all lanes ran."""
        return sum(lane.running(at) for lane in self.lanes)

    def side_by_side(self) -> int:
        """The most resources whose bodies ran at one time."""
        starts = [bar.start for bar in self.bars]
        return max((sum(lane.running(at) > 0 for lane in self.lanes) for at in starts), default=0)


def seen(calls: Sequence[Call], bodies: Iterable[Body], now: int) -> Run:
    """The run as it is at ``now``; bodies of unknown tasks are left out."""
    by_id = {call.task_id: call for call in calls}
    bars: Dict[str, List[Bar]] = {}
    for body in bodies:
        call = by_id.get(body.task_id or "")
        if call is not None:
            end = now if body.end is None else body.end
            bar = Bar(call, body.start, end, body.fence, body.end is None)
            bars.setdefault(call.resource, []).append(bar)
    wanted: Dict[str, List[Call]] = {}
    for call in calls:
        wanted.setdefault(call.resource, []).append(call)
    lanes = [Lane(name, wanted[name], bars.get(name, [])) for name in sorted(wanted)]
    return Run(lanes, min((call.at for call in calls), default=now), now)


def middle_and_most(times: Sequence[int]) -> Optional[Tuple[float, float]]:
    """Median and maximum in milliseconds, None for no times."""
    if not times:
        return None
    return median(times) / 1e6, max(times) / 1e6
