"""The timeline: one lane per resource, one bar per body, all on one axis of time.

A cell of the terminal is some twenty milliseconds wide, a body a few cells. Bars are drawn to an
eighth of a cell with block characters; without colours neighbours differ by their fill.

Bars of a lane that overlap cannot share a row: the lane grows a row for each body at once.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from rich.style import Style
from rich.text import Text

from examples.demo.run import Bar, Lane, Run

LABEL = 12
PALETTE = ("#7aa2f7", "#e0af68", "#9ece6a", "#bb9af7", "#7dcfff", "#f5a97f", "#73daca", "#f5bde6")
INK = "#16161e"
FILLS = "█▒"
LEVELS = " ▁▂▃▄▅▆▇█"
LEFT = " ▏▎▍▌▋▊▉█"
PARTS = 8


class Axis(NamedTuple):
    """Time to columns: nanoseconds from ``start`` on, over ``width`` columns."""

    start: int
    length: int
    width: int

    def part(self, at: int) -> float:
        """A time in eighths of a column."""
        return (at - self.start) * self.width * PARTS / self.length

    def middle(self, column: int) -> int:
        """The time in the middle of a column."""
        return self.start + int((column + 0.5) * self.length / self.width)

    def middles(self, until: int) -> List[int]:
        """The middles of the columns that have begun by then."""
        columns = min(self.width, math.ceil(self.part(until) / PARTS))
        return [self.middle(column) for column in range(columns)]

    def ticks(self) -> Text:
        step = next(
            step
            for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
            if step * 1e9 * self.width / self.length >= 9
        )
        line = [" "] * self.width
        for count in range(int(self.length / 1e9 / step) + 1):
            column = int(count * step * 1e9 * self.width / self.length)
            mark = f"╵{count * step:.1f} s"
            if column + len(mark) <= self.width:
                line[column : column + len(mark)] = mark
        return Text("".join(line), style="dim")


def colour_of(place: int) -> str:
    """The colour of the n-th body of a lane; those next to it have others."""
    return PALETTE[place % len(PALETTE)]


def timeline(run: Run, width: int, *, colours: bool, at_least: float = 0.0) -> List[Text]:
    """The picture, line by line; the axis is at least so many seconds long."""
    length = max(run.now - run.start, int(at_least * 1e9), 1)
    axis = Axis(run.start, length, max(20, width - LABEL - 1))
    most_waiting = max((_most_waiting(lane) for lane in run.lanes), default=0)
    lines: List[Text] = []
    for lane in run.lanes:
        lines += _lane(lane, axis, colours)
        if len(lane.calls) > 1:
            lines += [_under(lane, axis.middles(run.now), most_waiting), Text()]
    most = max((run.at_once(bar.start) for bar in run.bars), default=0)
    if lines and lines[-1].plain:
        lines.append(Text())
    running = _levels([run.at_once(at) for at in axis.middles(run.now)], most)
    lines.append(_labelled("all at once", Text(running, "green"), "green"))
    lines.append(_labelled("", axis.ticks()))
    return lines


def legend(colours: bool, overlapping: bool) -> Text:
    text = Text(" " * (LABEL + 1))
    if colours:
        text.append(" 7 ", Style(bgcolor=PALETTE[0], color=INK, bold=True))
        text.append("▌", Style(bgcolor=PALETTE[1], color=PALETTE[0]))
        text.append("12 ", Style(bgcolor=PALETTE[1], color=INK, bold=True))
    else:
        text.append(FILLS[0] * 3 + FILLS[1] * 3)
    text.append(" bodies" + (", numbered as published" if colours else ""), "dim")
    text.append("   ▂▄▆", "cyan").append(" waiting", "dim")
    text.append("   ▂▄▆", "green").append(" running", "dim")
    if overlapping:
        text.append("   ━━━", "bold red").append(" overlapping", "dim")
    return text


def _lane(lane: Lane, axis: Axis, colours: bool) -> Iterator[Text]:
    draw = _coloured if colours else _plain
    places = {id(bar): place for place, bar in enumerate(lane.bars)}
    rows = lane.rows() or [[]]
    style = "bold red" if len(rows) > 1 else "bold"
    for number, row in enumerate(rows):
        cells = draw(row, [places[id(bar)] for bar in row], axis)
        yield _labelled(lane.resource if number == 0 else "", cells, style)


def _under(lane: Lane, times: Sequence[int], most_waiting: int) -> Text:
    """How many waited; where bodies overlapped, that."""
    if len(lane.rows()) > 1:
        marks = "".join("━" if lane.running(at) > 1 else " " for at in times)
        return _labelled("  overlap", Text(marks, "bold red"), "red")
    waiting = _levels([lane.waiting(at) for at in times], most_waiting)
    return _labelled("  waiting", Text(waiting, "cyan"), "cyan")


def _levels(counts: Iterable[int], most: int) -> str:
    """A column for each count, none empty but that of zero."""
    steps = len(LEVELS) - 1
    return "".join(LEVELS[-(-steps * max(0, count) // max(1, most))] for count in counts)


def _most_waiting(lane: Lane) -> int:
    return max((lane.waiting(call.at) for call in lane.calls), default=0)


def _labelled(label: str, cells: Text, style: str = "") -> Text:
    return Text.assemble((f"{label:>{LABEL}} ", style), cells)


def _plain(row: Sequence[Bar], places: Sequence[int], axis: Axis) -> Text:
    """Whole cells, at least one for each bar."""
    cells = [" "] * axis.width
    for bar, place in zip(row, places):
        first = round(axis.part(bar.start) / PARTS)
        last = max(first + 1, round(axis.part(bar.end) / PARTS))
        for column in range(first, min(last, axis.width)):
            cells[column] = FILLS[place % len(FILLS)]
    return Text("".join(cells))


def _coloured(row: Sequence[Bar], places: Sequence[int], axis: Axis) -> Text:
    parts: List[Optional[int]] = [None] * (axis.width * PARTS)
    for index, bar in enumerate(row):
        first = round(axis.part(bar.start))
        for part in range(
            max(0, first), min(len(parts), max(first + 1, round(axis.part(bar.end))))
        ):
            parts[part] = index
    cells = [_cell(parts[at : at + PARTS], places) for at in range(0, len(parts), PARTS)]
    for index, bar in enumerate(row):
        _write(cells, parts, index, str(bar.call.number))
    return Text.assemble(*((char, style) for char, style in cells))


Cell = Tuple[str, Style]


def _cell(parts: Sequence[Optional[int]], places: Sequence[int]) -> Cell:
    """One character for eight parts: of more than two stretches the two longest are kept."""
    stretches = [(index, len(list(some))) for index, some in groupby(parts)]
    if len(stretches) > 2:
        kept = sorted(range(len(stretches)), key=lambda at: -stretches[at][1])[:2]
        stretches = [stretches[at] for at in sorted(kept)]
        whole = sum(length for _, length in stretches)
        first = round(stretches[0][1] * PARTS / whole)
        stretches = [(stretches[0][0], first), (stretches[1][0], PARTS - first)]
    colours = [None if i is None else colour_of(places[i]) for i, _ in stretches]
    if len(stretches) == 1:
        return " ", Style(bgcolor=colours[0])
    left = LEFT[stretches[0][1]]
    if colours[0] is None:
        # There are no blocks that fill the right: the left one, inverted.
        return left, Style(color=colours[1], reverse=True)
    return left, Style(color=colours[0], bgcolor=colours[1])


def _write(cells: List[Cell], parts: Sequence[Optional[int]], index: int, text: str) -> None:
    """The text into the cells that are all this bar's, if there are enough of them."""
    own = [
        column
        for column in range(len(cells))
        if all(part == index for part in parts[column * PARTS : (column + 1) * PARTS])
    ]
    if len(own) < len(text):
        return
    first = own[0] + (len(own) - len(text)) // 2
    for column, char in enumerate(text, first):
        cells[column] = (char, cells[column][1] + Style(color=INK, bold=True))
