"""Who is in the parking place, and who of them stands in line."""

from __future__ import annotations

from typing import Dict, List

from celery_redlock.integration.parking.parked import Parked


class Residents:
    """Used by the consumer's thread alone. The lists may be walked while somebody leaves."""

    def __init__(self) -> None:
        self._parked: Dict[int, Parked] = {}
        self._in_line: Dict[int, Parked] = {}

    @property
    def all(self) -> List[Parked]:
        """In the order in which they came."""
        return list(self._parked.values())

    @property
    def in_line(self) -> List[Parked]:
        """In the order in which they joined their lines."""
        return list(self._in_line.values())

    @property
    def count(self) -> int:
        return len(self._parked)

    @property
    def count_in_line(self) -> int:
        return len(self._in_line)

    def add(self, parked: Parked) -> None:
        self._parked[id(parked)] = parked

    def remove(self, parked: Parked) -> None:
        parked.is_gone = True
        self._parked.pop(id(parked), None)
        self.leave_line(parked)

    def enter_line(self, parked: Parked) -> bool:
        """Whether it was not in line before."""
        enters = not parked.is_in_line
        parked.is_in_line = True
        self._in_line[id(parked)] = parked
        return enters

    def leave_line(self, parked: Parked) -> None:
        parked.is_in_line = False
        self._in_line.pop(id(parked), None)
