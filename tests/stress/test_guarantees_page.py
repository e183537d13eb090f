"""docs/guarantees.md names every sabotage under the guarantee it attacks, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Set

from tests.sabotage import SABOTAGES
from tests.stress.faults.provoked import NOTICED, PROVOCATIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()


def rows() -> Dict[str, List[List[str]]]:
    """The cells of each guarantee's table: promise, tests, sabotages."""
    sections = re.split(r"^## (G\d) .*$", PAGE, flags=re.MULTILINE)[1:]
    return {
        guarantee: [
            [cell.strip() for cell in line[1:-1].split("|")]
            for line in text.splitlines()
            if line.startswith("| ") and not line.startswith("| promise")
        ]
        for guarantee, text in zip(sections[::2], sections[1::2])
    }


def words(cell: str) -> List[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_sabotage_is_named_under_the_guarantee_that_it_attacks() -> None:
    told: Dict[str, Set[str]] = {
        guarantee: {name for row in table for name in words(row[2])}
        for guarantee, table in rows().items()
    }
    made: Dict[str, Set[str]] = {guarantee: set() for guarantee in told}
    for name, sabotage in SABOTAGES.items():
        made[sabotage.guarantee].add(name)
    assert told == made


def test_what_each_sabotage_breaks_is_provoked_by_chosen_faults() -> None:
    assert set(NOTICED) == set(SABOTAGES)
    assert set(NOTICED.values()) <= set(PROVOCATIONS)


def test_every_test_that_is_named_exists() -> None:
    named = {name for table in rows().values() for row in table for name in words(row[1])}
    named |= set(re.findall(r"`(tests/[^`]+\.py)`", PAGE))
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


def test_the_page_on_security_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/\S+\.py)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).is_file()] == []
