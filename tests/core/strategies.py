"""Values as task arguments have them, and equality that sees types."""

from __future__ import annotations

import dataclasses
import enum
import types
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(str, enum.Enum):
    A = "a"
    B = "b"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass(frozen=True)
class Spot:
    x: Any
    y: Any = 0


class Label:
    label_lower = "shop.account"


class Model:
    """Shaped like a Django model instance."""

    _meta = Label

    def __init__(self, pk: Any, db: str = "default") -> None:
        self.pk = pk
        self._state = types.SimpleNamespace(db=db)


zones = st.none() | st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
datetimes = st.datetimes(timezones=zones)
times = st.builds(time.replace, st.times(), tzinfo=zones)

json_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.uuids(),
    st.dates(),
    datetimes,
    times,
    st.decimals(allow_nan=False),
)
scalars = st.one_of(
    json_scalars,
    # Values that look alike, so that confusions are found.
    st.sampled_from([0, 1, False, True, 0.0, 1.0, "0", "1", b"1", "", b"", "True", "None", None]),
    st.sampled_from([Decimal(1), Decimal("1.00"), Decimal("-0"), Decimal(0), UUID(int=1)]),
    st.text(st.characters(min_codepoint=0xD7FE, max_codepoint=0xE001)),
    st.integers(2**64, 2**200),
    st.timedeltas(),
    st.sampled_from([*Colour, *Size, *Word, Right.READ, Right.READ | Right.WRITE]),
)
keys = st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.none() | st.floats(-2, 2)


def _containers(items: st.SearchStrategy[Any], keyed_by: Any) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(items, max_size=4),
        st.lists(items, max_size=4).map(tuple),
        st.dictionaries(keyed_by, items, max_size=4),
    )


def _more_containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        _containers(items, keys),
        st.sets(scalars, max_size=4),
        st.frozensets(scalars, max_size=4),
        st.builds(Pair, items, items),
        st.builds(Point, items, items),
        st.builds(Spot, items, items),
    )


json_values = st.recursive(json_scalars, lambda items: _containers(items, st.text(max_size=3)))
values = st.recursive(scalars, _more_containers, max_leaves=12)


def same(one: Any, other: Any) -> bool:
    """Equal and of the same type, all the way down."""
    if type(one) is not type(other) or not alike(one, other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return not isinstance(one, (list, tuple)) or all(map(same, one, other))


def alike(one: Any, other: Any) -> bool:
    """The equality of names: list is tuple, set is frozenset, keys compare as JSON writes them."""
    if isinstance(one, enum.Enum) or isinstance(other, enum.Enum):
        return one is other
    if dataclasses.is_dataclass(one) or dataclasses.is_dataclass(other):
        return type(one) is type(other) and alike(vars(one), vars(other))
    if _kind(one) is not _kind(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(alike(a, b) for b in other) for a in one)
    if isinstance(one, dict):
        mine, theirs = _by_json_key(one), _by_json_key(other)
        return mine.keys() == theirs.keys() and all(alike(mine[k], theirs[k]) for k in mine)
    if isinstance(one, (datetime, time)) and (one.utcoffset() is None) != (
        other.utcoffset() is None
    ):
        return False
    return bool(one == other)


def has_clashing_keys(value: Any) -> bool:
    if isinstance(value, dict):
        clash = len(_by_json_key(value)) != len(value)
        return clash or any(map(has_clashing_keys, value.values()))
    if dataclasses.is_dataclass(value):
        return any(map(has_clashing_keys, vars(value).values()))
    return isinstance(value, (list, tuple)) and any(map(has_clashing_keys, value))


def _kind(value: Any) -> type:
    for kind in (bool, int, float, str, datetime, date):
        if isinstance(value, kind):
            return kind
    for kinds in ((list, tuple), (set, frozenset), (bytes, bytearray)):
        if isinstance(value, kinds):
            return kinds[0]
    return type(value)


def _by_json_key(value: Any) -> Any:
    words = {None: "null", True: "true", False: "false"}

    def written(key: Any) -> str:
        if isinstance(key, str):
            return key
        return words[key] if key is None or isinstance(key, bool) else repr(key)

    return {written(key): item for key, item in value.items()}
