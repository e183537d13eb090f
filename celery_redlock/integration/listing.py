"""Resources in words for a terminal: one in a few lines, many as a table.

Names and values come from whoever publishes tasks or writes to the server: nothing of them is shown
but through ``plain``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

State = Dict[str, Any]

_HEADER = ("RESOURCE", "TASK", "HOLDER", "WORKER", "AGE", "LEASE", "WAITING")

#: The columns that are cut where a terminal is too narrow, and to what; in this order. The
#: resource never is: other commands need it.
_CUT = (("HOLDER", 9), ("TASK", 16), ("WORKER", 12))

_GAP = 2


def plain(text: Any) -> str:
    """Without control characters, also those that only turn the direction of writing."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


# --- many resources


def selected(states: Sequence[State], stale: bool) -> List[State]:
    """Those that are held or waited for, or those with something stale; the oldest wait first."""
    keys = ("lapsed", "silent") if stale else ("holders", "waiting")
    return sorted((state for state in states if any(state[key] for key in keys)), key=_urgency)


def table(states: Sequence[State], stale: bool, width: Optional[int]) -> List[str]:
    """A header and a line for each holder, cut to ``width`` where that is possible."""
    rows = [_HEADER] + [row for state in states for row in _rows(state, stale)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADER))]
    for name, least in _CUT if width else ():
        at = _HEADER.index(name)
        excess = sum(widths) + _GAP * (len(widths) - 1) - (width or 0)
        widths[at] = max(min(widths[at], least), widths[at] - max(0, excess))
    return [_line(row, widths) for row in rows]


def counts(shown: Sequence[State], stale: int) -> str:
    """The last line: what there is, and what ``--stale`` would show."""
    held = sum(bool(state["holders"]) for state in shown)
    awaited = sum(bool(state["waiting"]) for state in shown)
    waiting = sum(len(state["waiting"]) for state in shown)
    line = f"{awaited} waited for, by {waiting}" if awaited else "none waited for"
    text = f"{held} held, {line}" if shown else NOTHING
    return f"{text}; {stale} stale (see --stale)" if stale else text


NOTHING = "nothing is held or waited for"


def _urgency(state: State) -> Tuple[float, float, str]:
    holders = state["holders"] or state["lapsed"]
    return -_oldest(state["waiting"]), -_oldest(holders), state["resource"]


def _oldest(people: Sequence[Dict[str, Any]]) -> float:
    return max((person["age"] or 0.0 for person in people), default=-1.0)


def _rows(state: State, stale: bool) -> List[Tuple[str, ...]]:
    holders = state["lapsed"] if stale else state["holders"]
    waiters = _waiters(state, stale)
    name = plain(state["resource"])
    if not holders:
        return [(name, "-", "-", "-", "-", "-", waiters)]
    return [
        (
            name,
            plain(holder["task"] or "-"),
            plain(holder["holder"]),
            plain(holder["worker"] or holder["host"]),
            "-" if holder["age"] is None else _span(holder["age"]),
            _lease(holder["lease_left"]),
            waiters,
        )
        for holder in holders
    ]


def _waiters(state: State, stale: bool) -> str:
    if stale:
        return f"{len(state['silent'])} silent" if state["silent"] else "-"
    if not state["waiting"]:
        return "-"
    return f"{len(state['waiting'])} ({_span(_oldest(state['waiting']))})"


def _lease(left: float) -> str:
    return _span(left) if left > 0 else f"-{_span(-left)}"


def _span(seconds: float) -> str:
    """A duration in its two greatest units."""
    whole = int(seconds)
    for size, unit, smaller, its_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{its_unit}"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (_cut(cell, width).ljust(width) for cell, width in zip(row, widths))
    return (" " * _GAP).join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


# --- one resource


def lines(state: State) -> List[str]:
    """Who holds it, who waits for it, and what is left of others."""
    told = [f"{plain(state['resource'])}  (last fence {state['fence'] or 'none'})"]
    if not state["holders"]:
        told.append("  free")
    told += [_held(holder) for holder in state["holders"]]
    told += [f"  {each['place']}. in line: {who(each)}" for each in state["waiting"]]
    told += [
        f"  lapsed: {who(each)}, its lease ended {-each['lease_left']:.1f} s ago, "
        f"fence {each['fence']}"
        for each in state["lapsed"]
    ]
    told += [f"  silent, to be passed over: {who(each)}" for each in state["silent"]]
    if state["forced"]:
        forced = state["forced"]
        told.append(f"  released by force {forced['ago']:.1f} s ago by {plain(forced['by'])}")
    return told


def who(person: Dict[str, Any]) -> str:
    """A holder or waiter in a few words: who it is, where it runs, for how long."""
    name = f"{person['task']}[{person['holder']}]" if person["task"] else person["holder"]
    age = "" if person["age"] is None else f" for {person['age']:.1f} s"
    place = person["worker"] or person["host"]
    return f"{plain(name)} on {plain(place)} (pid {plain(person['pid'])}){age}"


def _held(holder: Dict[str, Any]) -> str:
    how = "kept over its retry by" if holder["kept"] else "held by"
    terms = ", shared" if holder["mode"] == "shared" else ""
    terms += f", one of at most {holder['limit']}" if holder["limit"] > 1 else ""
    return (
        f"  {how} {who(holder)}, {holder['lease_left']:.1f} s of its lease left, "
        f"fence {holder['fence']}{terms}"
    )
