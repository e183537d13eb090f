"""One byte string per value: what hashed names are made of.

Every encoding is a tag, a length and so many bytes (or so many encodings), so it tells by itself
where it ends: two different values never run together into the same bytes. Values are typed
(``1``, ``"1"``, ``True`` and ``1.0`` differ), but two values that are equal and of one type have
one encoding, and so have a value and its copy from a serializer: list and tuple are one kind, set
and frozenset, bytes and bytearray too, and mapping keys compare as JSON writes them.

Changing any of this renames locks: workers of the two versions would not exclude each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Callable, Dict, FrozenSet, List, Optional
from uuid import UUID

Inside = FrozenSet[int]


class Unstable(ValueError):
    """A value without a stable encoding; the text says what of it, and never shows the value."""


def canonical(value: Any) -> bytes:
    """The value's encoding, or Unstable.

    Aware datetimes and times are encoded by their instant, so equal ones agree; the two readings
    of an ambiguous wall clock differ, although Python calls them equal within one time zone.
    """
    try:
        return _encode(value, frozenset())
    except RecursionError:
        raise Unstable("it is nested too deeply") from None


def decimal_digits(value: int) -> str:
    """``str(value)`` for an int of any size; Python's own refuses more than 4300 digits."""
    try:
        return int.__repr__(value)
    except ValueError:
        return str(Decimal(value))


def _encode(value: Any, inside: Inside) -> bytes:
    kind = type(value)
    if kind in _SCALARS:
        return _SCALARS[kind](value)
    if id(value) in inside:
        raise Unstable("it contains itself")
    inside = inside | {id(value)}
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](value, inside)
    return _encode_instance(value, inside)


def _encode_instance(value: Any, inside: Inside) -> bytes:
    kind = type(value)
    if isinstance(value, Enum):  # before int and str, which members may also be
        return _encode_enum(value, inside)
    if dataclasses.is_dataclass(kind):
        return _encode_dataclass(value, inside)
    if _is_model(value):
        return _encode_model(value, inside)
    for base in kind.__mro__:
        if base in _SCALARS:
            return _SCALARS[base](value)
        if base in _CONTAINERS:
            return _CONTAINERS[base](value, inside)
    if isinstance(value, Mapping):
        return _encode_mapping(value, inside)
    raise Unstable(f"a {kind.__module__}.{kind.__qualname__} has no stable encoding")


def _frame(tag: bytes, payload: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(payload), payload)


def _frame_all(tag: bytes, items: List[bytes]) -> bytes:
    return b"%b%d:%b" % (tag, len(items), b"".join(items))


# What a subclass overrides (__str__, __repr__, isoformat, ...) is for people: its content is read
# through the base type, as serializers do.


def _encode_str(value: str) -> bytes:
    return _frame(b"s", str.encode(value, "utf-8", "surrogatepass"))


def _encode_int(value: int, tag: bytes = b"i") -> bytes:
    return _frame(tag, int.__format__(value, "x").encode())


def _encode_float(value: float) -> bytes:
    if value != value:
        raise Unstable("NaN equals nothing, not even itself")
    return _frame(b"f", float.hex(value + 0.0).encode())  # -0.0 + 0.0 is 0.0


def _encode_decimal(value: Decimal) -> bytes:
    """By sign, digits and exponent without trailing zeros: normalize() would round."""
    if value.is_nan():
        raise Unstable("NaN equals nothing, not even itself")
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return _frame(b"d", b"-inf" if sign else b"inf")
    text = "".join(map(str, digits))
    significant = text.rstrip("0")
    if not significant:
        return _frame(b"d", b"0")
    exponent += len(text) - len(significant)
    return _frame(b"d", f"{'-' if sign else ''}{significant.lstrip('0')}e{exponent}".encode())


def _encode_datetime(value: datetime) -> bytes:
    # Counted in integers: astimezone() overflows at both ends of the calendar.
    at = date.toordinal(value) * _DAY + _time_of_day(value)
    offset = value.utcoffset()
    return _encode_int(at, b"t") if offset is None else _encode_int(at - _us(offset), b"T")


def _encode_time(value: time) -> bytes:
    offset = value.utcoffset()
    at = _time_of_day(value)
    return _encode_int(at, b"h") if offset is None else _encode_int(at - _us(offset), b"H")


def _time_of_day(value: Any) -> int:
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return int(seconds * 1_000_000 + value.microsecond)


def _us(value: timedelta) -> int:
    return int(timedelta.__floordiv__(value, timedelta(microseconds=1)))


_DAY = 86_400_000_000


def _encode_list(value: Any, inside: Inside) -> bytes:
    return _frame_all(b"l", [_encode(item, inside) for item in value])


def _encode_set(value: Any, inside: Inside) -> bytes:
    return _frame_all(b"z", sorted(_encode(item, inside) for item in value))


def _encode_mapping(value: Any, inside: Inside) -> bytes:
    entries: Dict[bytes, bytes] = {}
    for key, item in value.items():
        name = _encode_key(key, inside)
        if name in entries:
            raise Unstable("two keys of one mapping are written alike")
        entries[name] = _encode(item, inside)
    return _frame_all(b"m", [name + entries[name] for name in sorted(entries)])


def _encode_key(key: Any, inside: Inside) -> bytes:
    text = _json_key(key)
    return b"k" + _encode(key, inside) if text is None else _encode_str(text)


def _json_key(key: Any) -> Optional[str]:
    """The key as JSON writes it, or None for one that JSON cannot write."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return decimal_digits(key)
    if isinstance(key, float):
        if key != key:
            raise Unstable("NaN equals nothing, not even itself")
        return float.__repr__(key).replace("inf", "Infinity")
    return None


def _encode_enum(value: Enum, inside: Inside) -> bytes:
    # A combination of flags has a name in some versions of Python only.
    member = value._value_ if isinstance(value, Flag) else value._name_
    return _frame_all(b"e", [*_type_name(value), _encode(member, inside)])


def _encode_dataclass(value: Any, inside: Inside) -> bytes:
    """By the fields that its equality looks at."""
    items = _type_name(value)
    for field in dataclasses.fields(value):
        if not field.compare:
            continue
        if not hasattr(value, field.name):
            raise Unstable(f"field {field.name} of a {type(value).__qualname__} is not set")
        items += (_encode_str(field.name), _encode(getattr(value, field.name), inside))
    return _frame_all(b"c", items)


def _type_name(value: Any) -> List[bytes]:
    return [_encode_str(type(value).__module__), _encode_str(type(value).__qualname__)]


def _is_model(value: Any) -> bool:
    """A Django model instance, told by its shape: Django is not imported for this."""
    if isinstance(value, type):
        return False
    label = getattr(getattr(value, "_meta", None), "label_lower", None)
    return isinstance(label, str) and hasattr(value, "pk")


def _encode_model(value: Any, inside: Inside) -> bytes:
    """By model and primary key; which database it was read from does not matter."""
    label, pk = value._meta.label_lower, value.pk
    if pk is None or (isinstance(pk, tuple) and None in pk):
        raise Unstable(f"a {label} that has no primary key yet cannot be told from another")
    return _frame_all(b"o", [_encode_str(label), _encode(pk, inside)])


_SCALARS: Dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"n0:",
    bool: lambda value: b"b1:1" if value else b"b1:0",
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    bytes: lambda value: _frame(b"y", bytes(value)),
    bytearray: lambda value: _frame(b"y", bytes(value)),
    UUID: lambda value: _frame(b"u", value.bytes),
    datetime: _encode_datetime,
    date: lambda value: _encode_int(date.toordinal(value), b"a"),
    time: _encode_time,
    timedelta: lambda value: _encode_int(_us(value), b"g"),
    Decimal: _encode_decimal,
}

_CONTAINERS: Dict[type, Callable[[Any, Inside], bytes]] = {
    list: _encode_list,
    tuple: _encode_list,
    set: _encode_set,
    frozenset: _encode_set,
    dict: _encode_mapping,
}
