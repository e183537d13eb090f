"""The demo's verdict and picture, on runs made by hand: each claim can fail."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import pytest

pytest.importorskip("rich")

from rich.console import Console

from examples.demo import chart, report
from examples.demo.bodylog import Body
from examples.demo.run import Call, Run, seen
from examples.demo.verdict import claims

MS = 1_000_000

#: resource, start, end, fence
Row = Tuple[str, int, Optional[int], Optional[int]]

GOOD: List[Row] = [("a", 10, 50, 1), ("b", 12, 60, 1), ("a", 52, 90, 2)]


def run_of(rows: Sequence[Row], now: int = 100) -> Run:
    """A run whose tasks were all published at 0; times in milliseconds."""
    calls = [Call(n, row[0], str(n), 0) for n, row in enumerate(rows, 1)]
    bodies = [
        Body(name, start * MS, None if end is None else end * MS, 1, str(n), fence, False)
        for n, (name, start, end, fence) in enumerate(rows, 1)
    ]
    return seen(calls, bodies, now * MS)


def failed(rows: Sequence[Row], succeeded: Optional[int] = None) -> List[str]:
    published = len(rows)
    found = claims(run_of(rows), published, published if succeeded is None else succeeded)
    return [claim.text for claim in found if not claim.holds]


def test_a_run_that_kept_apart_passes() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*GOOD, ("a", 85, 95, 3)], "bodies of one resource overlapped: 1"),
        ([*GOOD, ("a", 91, 95, 2)], "the fence did not grow"),
        ([*GOOD, ("a", 91, 95, None)], "1 bodies had no fence"),
        ([*GOOD, ("a", 91, None, 3)], "not every task ended well"),
        ([("a", 10, 20, 1), ("a", 21, 30, 2)], "bodies of up to 1 resources ran side by side"),
        ([("a", 10, 20, 1), ("b", 11, 30, 1)], "0 tasks came while another one"),
    ],
)
def test_each_fault_is_told(rows: List[Row], says: str) -> None:
    (told,) = failed(rows)
    assert told.startswith(says)


def test_a_task_without_a_success_is_told() -> None:
    assert failed(GOOD, succeeded=2) == [
        "not every task ended well: 3 published, 3 bodies started, 3 ended, 2 succeeded"
    ]


def test_bodies_that_overlap_get_rows_of_their_own() -> None:
    apart, together = run_of(GOOD).lanes[0], run_of([*GOOD, ("a", 80, 95, 3)]).lanes[0]
    assert [len(row) for row in apart.rows()] == [2]
    assert [len(row) for row in together.rows()] == [2, 1]


def test_a_hand_over_is_the_gap_between_two_bodies() -> None:
    assert run_of(GOOD).lanes[0].hand_overs() == [2 * MS]


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("width", [60, 100, 140])
def test_the_lines_of_the_picture_are_aligned_and_no_bar_is_lost(colours: bool, width: int) -> None:
    rows: List[Row] = [("a", at, at + 3, at) for at in range(1, 9_000, 300)]
    lines = chart.timeline(run_of(rows, now=9_000), width, colours=colours)
    assert all(line.cell_len <= width for line in lines)
    assert all(line.plain[chart.LABEL] == " " for line in lines if line.plain)
    lane = lines[0].plain[chart.LABEL + 1 :]
    assert sum(char != " " for char in lane) >= len(rows)


def test_nothing_published_is_a_picture_too() -> None:
    console = Console(width=100, record=True, quiet=True)
    console.print(report.final(seen([], [], 0), 100, colours=True))
    console.print(report.live(seen([], [], 0), {}, 60, 100))
