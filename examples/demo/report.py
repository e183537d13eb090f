"""What is printed: the picture while it runs, the picture of the whole run, the verdict."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, List, Mapping, Optional, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo import chart
from examples.demo.run import Lane, Run, middle_and_most
from examples.demo.verdict import Claim

#: Seconds that the axis has from the beginning, so that the picture grows to the right.
FIRST_AXIS = 2.5


def live(run: Run, states: Mapping[str, Any], published: int, width: int) -> RenderableType:
    """The run so far; ``states`` are the contended resources as the lock server sees them."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{(run.now - run.start) / 1e9:4.1f} s", "bold"),
        ProgressBar(total=published, completed=run.ended, width=40, complete_style="green"),
        Text(f"{run.ended} of {published} tasks done", "dim"),
    )
    now = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    now.add_column("", width=chart.LABEL, justify="right", style="bold")
    now.add_column("runs now", min_width=9)
    now.add_column("in line", min_width=16)
    now.add_column("last fence", min_width=17)
    now.add_column("done", justify="right", min_width=6)
    for lane in run.lanes:
        if lane.resource in states:
            now.add_row(*_now(lane, states[lane.resource]))
    lines = chart.timeline(run, width, colours=True, at_least=FIRST_AXIS)
    return Group(Text(), head, Text(), now, Text(), *lines)


def _now(lane: Lane, state: Any) -> List[RenderableType]:
    running = Text()
    for place, bar in enumerate(lane.bars):
        if bar.is_running:
            chip = f"{bar.call.number:^4}"
            running.append(chip, f"bold {chart.INK} on {chart.colour_of(place)}").append(" ")
    line = Text("●" * min(state.waiting, 12), "cyan").append(f" {state.waiting}", "dim")
    fence = Text(str(state.fence or "none"), "dim")
    ended = sum(not bar.is_running for bar in lane.bars)
    return [lane.resource, running, line, fence, f"{ended}/{len(lane.calls)}"]


def final(run: Run, width: int, *, colours: bool) -> RenderableType:
    """The timeline of the whole run and, resource by resource, its numbers."""
    overlapping = any(lane.overlaps() for lane in run.lanes)
    lines = chart.timeline(run, width, colours=colours)
    picture = [*lines, Text(), chart.legend(colours, overlapping)]
    return Group(Text(), *picture, Text(), _numbers(run), Text())


def verdict(claims: Sequence[Claim]) -> RenderableType:
    marks = {True: ("  ✓ ", "bold green"), False: ("  ✗ ", "bold red")}
    lines = [Text.assemble(marks[c.holds], (c.text, "" if c.holds else "red")) for c in claims]
    return Group(*lines)


def _numbers(run: Run) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", width=chart.LABEL, justify="right", style="bold", no_wrap=True)
    table.add_column("\nbodies", justify="right")
    table.add_column("\nfences", no_wrap=True)
    table.add_column("waited\nmedian / max ms", justify="right", no_wrap=True)
    table.add_column("hand-over\nmedian / max ms", justify="right", no_wrap=True)
    table.add_column("\noverlaps", justify="right")
    known = _shared_digits([str(bar.fence) for bar in run.bars if bar.fence])
    shared = [lane for lane in run.lanes if len(lane.calls) > 1]
    for lane in shared:
        table.add_row(lane.resource, *_row([lane], _fences(lane, known)))
    table.add_row("others", *_row([lane for lane in run.lanes if lane not in shared], Text()))
    table.add_row("all", *_row(run.lanes, Text()), style="dim")
    return table


def _row(lanes: Sequence[Lane], fences: Text) -> List[RenderableType]:
    bars = [bar for lane in lanes for bar in lane.bars]
    overlaps = sum(lane.overlaps() for lane in lanes)
    return [
        str(len(bars)),
        fences,
        _times([bar.waited for bar in bars]),
        # Bodies that overlap hand nothing over.
        "" if overlaps else _times([gap for lane in lanes for gap in lane.hand_overs()]),
        Text(str(overlaps), "bold red" if overlaps else "green"),
    ]


def _fences(lane: Lane, known: int) -> Text:
    """First and last fence, without the digits that all fences of the run share."""
    fences: List[Optional[int]] = [bar.fence for bar in lane.bars if bar.fence]
    if not fences:
        return Text("none", "dim")
    first, last = (f"…{str(fence)[known:]}" for fence in (fences[0], fences[-1]))
    return Text(f"{first} → {last}")


def _shared_digits(numbers: Sequence[str]) -> int:
    """How many digits all the numbers begin with."""
    columns = zip(*numbers)
    return sum(1 for _ in takewhile(lambda digits: len(set(digits)) == 1, columns))


def _times(times: Sequence[int]) -> str:
    found = middle_and_most(times)
    return "" if found is None else f"{found[0]:.1f} / {found[1]:.1f}"
