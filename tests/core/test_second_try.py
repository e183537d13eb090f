"""A test that fails gets a second try, unless it has seen what must never happen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.demo.bodylog import BodyLog
from tests.conftest import UNFORGIVABLE


def is_forgiven(told: str) -> bool:
    return not any(re.search(pattern, told) for pattern in UNFORGIVABLE)


def test_bodies_at_once_are_not_forgiven_however_they_are_told(tmp_path: Path) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    with log.body("a"), log.body("a"):
        pass
    assert not is_forgiven(repr(log.overlaps()))
    with pytest.raises(AssertionError) as told:
        log.assert_exclusive()
    assert not is_forgiven(str(told.value))


def test_what_fails_for_another_reason_is_forgiven_once() -> None:
    assert is_forgiven("AssertionError: assert 'PENDING' == 'SUCCESS'")
