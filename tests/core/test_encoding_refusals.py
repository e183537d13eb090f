from __future__ import annotations

from decimal import Decimal
from typing import Any, List

import pytest

from celery_redlock.core.encoding import Unstable, canonical
from tests.core.strategies import Model, Point

NAN = float("nan")


def circular() -> List[Any]:
    ring: List[Any] = []
    ring.append({"ring": ring})
    return ring


def deep() -> List[Any]:
    nest: List[Any] = []
    for _ in range(100_000):
        nest = [nest]
    return nest


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (NAN, "NaN"),
        ([NAN], "NaN"),
        ({NAN: 1}, "NaN"),
        (Decimal("NaN"), "NaN"),
        (Decimal("sNaN"), "NaN"),
        (object(), "builtins.object has no stable encoding"),
        ([object()], "builtins.object has no stable encoding"),
        (lambda: 1, "function has no stable encoding"),
        (Point, "type has no stable encoding"),
        (Model, "type has no stable encoding"),
        (range(3), "range has no stable encoding"),
        ({1: "a", "1": "b"}, "written alike"),
        ({True: "a", "true": "b"}, "written alike"),
        (circular(), "contains itself"),
        (Point(circular()), "contains itself"),
    ],
)
def test_what_has_no_stable_encoding_is_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(Unstable, match=why):
        canonical(value)


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(Unstable, match="too deeply"):
        canonical(deep())


def test_the_reason_never_shows_the_value() -> None:
    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(Unstable) as caught:
        canonical({"password": ["hunter2", Secret()]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("pk", [None, (1, None)])
def test_a_model_that_was_never_saved_is_refused(pk: Any) -> None:
    with pytest.raises(Unstable, match="primary key"):
        canonical(Model(pk))
