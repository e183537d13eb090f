"""What the demo claims, judged from the body log alone; the picture only shows it."""

from __future__ import annotations

from typing import List, NamedTuple

from examples.demo.run import Lane, Run


class Claim(NamedTuple):
    holds: bool
    text: str


def claims(run: Run, published: int, succeeded: int) -> List[Claim]:
    """Every claim with whether it holds; ``published`` tasks of which ``succeeded`` say so."""
    return [
        _never_overlap(run),
        _fences_grow(run),
        _all_ended(run, published, succeeded),
        _side_by_side(run),
        _contended(run),
    ]


def _never_overlap(run: Run) -> Claim:
    overlaps = sum(lane.overlaps() for lane in run.lanes)
    if overlaps:
        return Claim(
            False, f"bodies of one resource overlapped: {overlaps} started while another ran"
        )
    return Claim(True, f"no two bodies of one resource overlapped ({len(run.bars)} bodies)")


def _fences_grow(run: Run) -> Claim:
    bare = sum(bar.fence is None for bar in run.bars)
    if bare:
        return Claim(False, f"{bare} bodies had no fence: they ran without a lock")
    fallen = sum(not _grows(lane) for lane in run.lanes)
    if fallen:
        return Claim(False, f"the fence did not grow from body to body on {fallen} resources")
    return Claim(True, "the fence grew from body to body on every resource")


def _grows(lane: Lane) -> bool:
    fences = [bar.fence or 0 for bar in lane.bars]
    return all(before < after for before, after in zip(fences, fences[1:]))


def _all_ended(run: Run, published: int, succeeded: int) -> Claim:
    ids = [bar.call.task_id for bar in run.bars if not bar.is_running]
    holds = len(ids) == len(set(ids)) == succeeded == published
    if holds:
        return Claim(True, f"every task ended: {published} published, each ran once and succeeded")
    return Claim(
        False,
        f"not every task ended well: {published} published, {len(run.bars)} bodies started, "
        f"{len(ids)} ended, {succeeded} succeeded",
    )


def _side_by_side(run: Run) -> Claim:
    most = run.side_by_side()
    return Claim(most > 1, f"bodies of up to {most} resources ran side by side")


def _contended(run: Run) -> Claim:
    """Without tasks that were in each other's way, nothing would be shown."""
    met = sum(
        any(other.start < bar.start and bar.call.at < other.end for other in lane.bars)
        for lane in run.lanes
        for bar in lane.bars
    )
    return Claim(met > 0, f"{met} tasks came while another one had their resource")
