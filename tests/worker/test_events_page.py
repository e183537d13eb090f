"""docs/events.md says what the code does: events, lines, levels, signals and fields."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import List

import pytest

from celery_redlock import signals as public
from celery_redlock.core import events
from celery_redlock.integration.lock_signals import SENT_AS, SIGNALS
from celery_redlock.observe.fields import fields_of
from celery_redlock.observe.logs import LINES
from tests.worker.samples import SAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def rows(heading: str) -> List[List[str]]:
    """The cells of the table's rows whose heading begins so."""
    table = PAGE.read_text().split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def words(cell: str) -> List[str]:
    return re.findall(r"\w+", cell)


def test_the_page_has_every_event_with_its_line_level_signal_and_fields() -> None:
    told = [
        [
            f"`{kind.__name__}`",
            f"`{line.name}`",
            logging.getLevelName(line.level),
            f"`{SENT_AS[kind].name}`" if kind in SENT_AS else "",
            ", ".join(kind.__dataclass_fields__),
        ]
        for kind, line in LINES.items()
    ]
    page = [[row[0], row[1], row[2], row[3], row[5]] for row in rows("event")]
    assert sorted(page) == sorted(told)


def test_every_event_is_logged_and_has_a_sample() -> None:
    assert set(LINES) == set(events.Event.__args__)  # type: ignore[attr-defined]
    assert {type(event) for event in SAMPLES} == set(LINES)


def test_the_page_explains_every_field_and_no_other() -> None:
    flat = {field for event in SAMPLES for field in fields_of(event)}
    assert {word for row in rows("field") for word in words(row[0])} == flat
    spread = {row[0].split(":")[0].strip("`"): words(row[1]) for row in rows("in the event")}
    for event in SAMPLES:
        own = [name for name in vars(event) if name not in spread]
        parts = [field for name in vars(event) for field in spread.get(name, [])]
        assert set(fields_of(event)) == {*own, *parts}


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_the_fields_of_every_event_are_flat_and_ready_for_json(event: events.Event) -> None:
    fields = fields_of(event)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert not any(isinstance(value, (dict, list, tuple)) for value in fields.values())


def test_the_public_signals_are_all_that_there_are() -> None:
    assert {name: getattr(public, name) for name in public.__all__} == {
        each.name: each for each in SIGNALS
    }
