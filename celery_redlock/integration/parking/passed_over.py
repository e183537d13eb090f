"""Who has left a line for want of a slot, and waits for one to take up the place that it had.

One slot serves one after the other in the order in which they came to wait for it, which is not
that of a line: somebody who has not asked yet may wait for longer, and who has left more than once
waits behind who has left once. So whoever is served looks here who is before it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Dict, List, Optional, Tuple

from celery_redlock.integration.parking.parked import Parked

Entry = Tuple[float, int, str, Parked]


class PassedOver:
    """Used by the consumer's thread alone."""

    def __init__(self) -> None:
        #: By resource, the first in its line at the top. Who is removed stays until he is there.
        self._lines: Dict[str, List[Entry]] = {}
        self._entries: Dict[int, Entry] = {}
        self._numbers = itertools.count()

    def add(self, parked: Parked) -> None:
        """Of several resources it stood in line for the last that gave it a place."""
        places = [(name, parked.place_in(name)) for name in parked.names]
        had = [(name, place) for name, place in places if place < math.inf]
        if had:
            name, place = had[-1]
            entry = self._entries[id(parked)] = (place, next(self._numbers), name, parked)
            heapq.heappush(self._lines.setdefault(name, []), entry)

    def remove(self, parked: Parked) -> None:
        """It has a slot, or wants none any more; harmless for anybody else."""
        entry = self._entries.pop(id(parked), None)
        if entry is not None:
            self._first(entry[2])

    def first_before(self, parked: Parked) -> Optional[Parked]:
        """Who had an earlier place in the line of one of its resources."""
        for name in parked.names:
            first = self._first(name)
            if first is not None and first[3] is not parked and first[0] < parked.place_in(name):
                return first[3]
        return None

    def _first(self, name: str) -> Optional[Entry]:
        line = self._lines.get(name)
        while line:
            if self._entries.get(id(line[0][3])) is line[0]:
                return line[0]
            heapq.heappop(line)
        self._lines.pop(name, None)
        return None
