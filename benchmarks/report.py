"""What the benchmarks print: the machine, a table of figures, the ratios beside their goals."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import List, NamedTuple, Sequence

from benchmarks.measure import Middle

_WIDTH = 16


class Goal(NamedTuple):
    """A measured ratio (or count) and what it should be; the bound is inclusive."""

    what: str
    measured: Middle
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        # As printed: a third digit is not what a noisy machine can tell.
        value = round(self.measured.median, 2)
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        value, low, high = self.measured
        side = "at least" if self.at_least else "at most"
        met = "met" if self.is_met else "not met"
        spread = f"(quartiles {low:.2f} to {high:.2f})"
        return f"{self.what}: {value:.2f} {spread}; goal {side} {self.bound:.2f}: {met}"


def machine(server: str) -> str:
    """What the figures were measured with; ``server`` is the lock server's name and version."""
    parts = [f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("celery", "redis", "hiredis")]
    parts += [server, f"{os.cpu_count()} CPUs", f"{platform.system()} {platform.machine()}"]
    return ", ".join(parts)


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of a name and its figures."""
    lines: List[str] = [title, _row("", columns)]
    lines += [_row(str(name), [_cell(cell) for cell in cells]) for name, *cells in rows]
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"  {name:<18}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _cell(cell: object) -> str:
    value = cell.median if isinstance(cell, Middle) else cell
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
