from __future__ import annotations

import collections
import decimal
import enum
import pickle
import types
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, List
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from celery_redlock.core.encoding import canonical
from tests.core.strategies import (
    Colour,
    Model,
    Pair,
    Point,
    Right,
    Size,
    Spot,
    Word,
    alike,
    has_clashing_keys,
    json_values,
    same,
    values,
)

UTC = timezone.utc
NAN = float("nan")


def through(serializer: str, value: Any) -> Any:
    content_type, encoding, data = dumps(value, serializer=serializer)
    return loads(data, content_type, encoding, accept=[content_type])


@given(json_values)
def test_a_value_has_one_encoding_before_and_after_json(value: Any) -> None:
    try:
        back = through("json", value)
    except Exception:  # noqa: BLE001 - what kombu cannot bring back is not judged
        assume(False)
    assume(same(value, back))
    assert canonical(back) == canonical(value)


@given(values)
def test_a_value_has_one_encoding_before_and_after_pickle(value: Any) -> None:
    assume(not has_clashing_keys(value))
    back = through("pickle", value)
    assert alike(value, back)
    assert canonical(back) == canonical(value)


@given(values, values)
def test_values_share_an_encoding_only_if_they_are_alike(one: Any, other: Any) -> None:
    assume(not has_clashing_keys(one) and not has_clashing_keys(other))
    assert (canonical(one) == canonical(other)) == alike(one, other)


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_encodings_put_one_after_another_never_run_together(one: Any, other: Any) -> None:
    assume(not has_clashing_keys(one) and not has_clashing_keys(other))
    joined = [b"".join(map(canonical, items)) for items in (one, other)]
    assert (joined[0] == joined[1]) == alike(one, other)


@given(st.text(), st.text(), st.text())
def test_a_text_that_spells_an_encoding_forges_none(one: str, two: str, three: str) -> None:
    first = [one + canonical(two).decode(), three]
    second = [one, two + canonical(three).decode()]
    assert canonical(first) != canonical(second)


@given(st.dictionaries(st.text(), st.integers()), st.randoms())
def test_the_order_of_a_mapping_does_not_matter(value: Any, random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(value)


@given(st.datetimes(), st.integers(-1439, 1439), st.integers(-1439, 1439))
def test_equal_aware_datetimes_agree(naive: datetime, one: int, other: int) -> None:
    try:
        here = naive.replace(tzinfo=timezone(timedelta(minutes=one)))
        there = here.astimezone(timezone(timedelta(minutes=other)))
    except OverflowError:
        assume(False)
    assert canonical(here) == canonical(there)
    assert canonical(naive) != canonical(here)


@given(st.decimals(allow_nan=False), st.integers(0, 40))
def test_equal_decimals_agree_at_any_precision(value: Decimal, zeros: int) -> None:
    assume(value.is_finite())
    sign, digits, exponent = value.as_tuple()
    longer = Decimal((sign, digits + (0,) * zeros, exponent - zeros))  # type: ignore[operator]
    with decimal.localcontext() as context:
        context.prec = 3
        assert canonical(longer) == canonical(value)


ALIKE: List[Any] = [
    ([1, 2], (1, 2)),
    (Pair(1, 2), (1, 2)),
    ({1, 2}, frozenset([2, 1])),
    (b"ab", bytearray(b"ab")),
    (0.0, -0.0),
    ({1: "a"}, {"1": "a"}),
    ({True: "a", None: "b", 1.5: "c"}, {"true": "a", "null": "b", "1.5": "c"}),
    ({float("inf"): 1}, {"Infinity": 1}),
    ({Size.SMALL: 1, Word.A: 2}, {"1": 1, "a": 2}),
    ({10**5000: 1}, {"1" + "0" * 5000: 1}),
    ({"a": 1}, collections.OrderedDict(a=1)),
    ({"a": 1}, types.MappingProxyType({"a": 1})),
    (Decimal("1.0"), Decimal("1.00")),
    (Decimal("1E+2"), Decimal("100")),
    (Decimal("0"), Decimal("-0.00")),
    (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    (time(12, tzinfo=UTC), time(13, tzinfo=timezone(timedelta(hours=1)))),
    (type("Text", (str,), {"__str__": lambda self: "other"})("a"), "a"),
    (type("Number", (int,), {"__str__": lambda self: "other"})(7), 7),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_counts_as_one_value(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)


DIFFERENT: List[Any] = [
    1,
    "1",
    True,
    1.0,
    b"1",
    Decimal(1),
    None,
    "None",
    [],
    {},
    set(),
    "",
    b"",
    [1],
    [[1]],
    [1, [2]],
    [[1], 2],
    [[1, 2]],
    [1, 2],
    ["ab", "c"],
    ["a", "bc"],
    {"a": 1},
    [["a", 1]],
    Colour.RED,
    Colour.BLUE,
    Size.SMALL,
    Word.A,
    "RED",
    Right.READ,
    Right.READ | Right.WRITE,
    Point(1),
    Spot(1),
    Point(1, 1),
    date(2020, 1, 1),
    datetime(2020, 1, 1),
    datetime(2020, 1, 1, tzinfo=UTC),
    time(1),
    time(1, tzinfo=UTC),
    timedelta(1),
    UUID(int=1),
    UUID(int=1).bytes,
    float("inf"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    10**5000,
    10**5000 + 1,
    "?",
    "\ud800",
    "\ud801",
    "\ud800\udc00",
    "\U00010000",
    {(1, 2): 3},
    {UUID(int=1): 3},
]


def test_what_counts_as_different_values() -> None:
    encodings = [canonical(value) for value in DIFFERENT]
    assert len(set(encodings)) == len(DIFFERENT)


def test_a_model_is_its_label_and_primary_key_whatever_the_database() -> None:
    assert canonical(Model(1)) == canonical(Model(1, db="replica"))
    assert canonical(Model(1)) != canonical(Model(2))
    assert canonical(Model(1)) != canonical(Model("1"))


def test_a_dataclass_is_what_its_equality_looks_at() -> None:
    @dataclass
    class Order:
        number: int
        cache: Any = field(default=None, compare=False)

    assert canonical(Order(1, cache=object())) == canonical(Order(1))
    assert canonical(Order(1)) != canonical(Order(2))


def test_one_value_twice_is_no_circle() -> None:
    shared = [1]
    assert canonical([shared, shared]) == canonical([[1], [1]])


def test_a_copy_of_a_set_is_encoded_alike_whatever_its_order() -> None:
    first = {"a", "b", "c", ("d", 1), None, Colour.RED}
    assert canonical(pickle.loads(pickle.dumps(first))) == canonical(first)


def test_the_encoding_is_pinned_because_a_change_would_rename_locks() -> None:
    value = {
        "a": [None, True, 1, -255, 1.5, "ü", b"\x00"],
        "b": {UUID(int=1), Decimal("10.50")},
        "c": [date(2020, 1, 2), datetime(2020, 1, 2, 3, 4, 5, 6), time(1, 2, 3), timedelta(1)],
        "d": datetime(2020, 1, 2, tzinfo=UTC),
        "e": Point(Colour.RED, Right.WRITE),
        "f": Model(7),
        "g": time(1, tzinfo=UTC),
    }
    assert canonical(value) == PINNED


PINNED = (
    b"m7:s1:al7:n0:b1:1i1:1i3:-fff20:0x1.8000000000000p+0s2:\xc3\xbcy1:\x00s1:bz2:d6:10"
    b"5e-1u16:\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01s1:cl4:a5:b4092t14:e25b328f2a1346h8:dde878c0g10:"
    b"141dd76000s1:dT14:e25b2ffcd4c000s1:ec6:s21:tests.core.strategiess5:Point"
    b"s1:xe3:s21:tests.core.strategiess6:Colours3:REDs1:ye3:s21:tests.core.str"
    b"ategiess5:Righti1:2s1:fo2:s12:shop.accounti1:7s1:gH8:d693a400"
)


class Plain(enum.Enum):
    """Its members are told by name, not by value: a value may be anything."""

    THING = object()


def test_an_enum_is_its_class_and_the_members_name() -> None:
    assert canonical(Plain.THING) == canonical(Plain["THING"])
