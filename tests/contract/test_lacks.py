"""The table of what Redlock lacks names tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

from tests.contract.redlock import lacks


def names() -> Iterator[str]:
    for path in Path(__file__).parent.glob("test_*.py"):
        yield path.stem
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from (each.name for each in tree.body if isinstance(each, ast.FunctionDef))


def test_every_test_that_redlock_lacks_exists() -> None:
    assert lacks() - set(names()) == set()
