"""When the bodies ran, by the "begin x" and "end x" lines that they log.

All processes of a worker append to one file, one line a write. A body's last line is written before
its lock is released and its first after it was granted: so the order of the lines is proof.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Set, Tuple

_LINE = re.compile(
    r"\[(?P<task>[0-9a-f-]{36})\]: (?P<event>begin|end) (?P<what>\S+)$", re.MULTILINE
)


class Line(NamedTuple):
    task: str
    event: str
    what: str


def lines_of(log: str) -> List[Line]:
    return [Line(**found.groupdict()) for found in _LINE.finditer(log)]


def count_ended(log: str) -> int:
    return sum(line.event == "end" for line in lines_of(log))


def together(log: str) -> Set[Tuple[str, str]]:
    """Each pair of names that bodies running at one time had: (x, x) is an overlap."""
    pairs: Set[Tuple[str, str]] = set()
    running: Dict[str, str] = {}
    for line in lines_of(log):
        if line.event == "end":
            running.pop(line.task, None)
            continue
        pairs.update((min(other, line.what), max(other, line.what)) for other in running.values())
        running[line.task] = line.what
    return pairs
