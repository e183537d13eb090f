"""What an option may be: one Kind each, with the words for its errors.

A Kind reads a value into the form that the rest of the package uses (durations become seconds as
float) or refuses it.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, Mapping, Union

from celery_redlock.exceptions import ConfigurationError

#: Ten years in seconds: longer than any sensible wait, shorter than what overflows a clock.
LONGEST = 10 * 365 * 86400


@dataclass(frozen=True)
class Kind:
    """``read`` returns the normalised value, or raises ValueError for one that is unfit."""

    expected: str
    read: Callable[[Any], Any]
    advice: str
    secret: bool = False

    def check(self, where: str, value: Any) -> Any:
        """The normalised value; ConfigurationError says where, expected, got and what to do."""
        try:
            return self.read(value)
        except ValueError:
            got = _described(value) if self.secret else _shown(value)
            raise ConfigurationError(
                f"{where} must be {self.expected}, got {got}; {self.advice}"
            ) from None


def duration(least: float = 0, most: float = LONGEST, *, above: bool = False) -> Kind:
    """Seconds as int, float or timedelta; with ``above`` more than ``least``."""

    def read(value: Any) -> float:
        _require(isinstance(value, (int, float, timedelta)) and not isinstance(value, bool))
        length = value.total_seconds() if isinstance(value, timedelta) else value
        _require(least <= length <= most)  # false for NaN too
        _require(length > least or not above)
        return seconds(value)

    lower = f"of more than {least:g}" if above else f"of at least {least:g}"
    bounds = f"from {least:g} to {most:g} seconds"
    if most == LONGEST:
        bounds = f"{lower} seconds, and ten years at most"
    return Kind(f"a duration {bounds}", read, "write a number of seconds or a timedelta")


def seconds(value: Union[int, float, timedelta]) -> float:
    """A duration, however written, as a plain number."""
    return float(value.total_seconds() if isinstance(value, timedelta) else value)


def whole(advice: str) -> Kind:
    """An int of at least 1."""

    def read(value: Any) -> int:
        _require(isinstance(value, int) and not isinstance(value, bool) and value >= 1)
        return int(value)

    return Kind("a whole number of at least 1", read, advice)


def choice(*names: str, or_callable: bool = False) -> Kind:
    """One of the names, or where allowed a callable that decides for each case."""

    def read(value: Any) -> Any:
        if or_callable and isinstance(value, staticmethod):
            return value.__func__  # not callable itself before Python 3.10
        if or_callable and callable(value):
            return value
        _require(isinstance(value, str) and value in names)
        return str(value)

    listed = ", ".join(f'"{name}"' for name in names)
    extra = " or a callable" if or_callable else ""
    return Kind(f"one of {listed}{extra}", read, "write one of them")


def _read_key(value: Any) -> Any:
    known = isinstance(value, (str, tuple, list, staticmethod)) or callable(value)
    _require(value is None or known)
    return value


def _read_switch(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _read_url(value: Any) -> Any:
    if isinstance(value, str):
        _require(bool(value.strip()))
        return value
    _require(isinstance(value, (list, tuple)))
    _require(all(isinstance(url, str) and url.strip() for url in value))
    _require(len(value) >= 3 and len(value) % 2 == 1 and len(set(value)) == len(value))
    return list(value)


def _read_client_options(value: Any) -> Any:
    _require(isinstance(value, Mapping) and all(isinstance(name, str) for name in value))
    return dict(value)


def _read_prefix(value: Any) -> str:
    _require(isinstance(value, str) and value != "")
    # A brace would move the hash tag that keeps the keys of a resource on one server.
    _require(value.isprintable() and not any(char.isspace() or char in "{}" for char in value))
    return str(value)


KEY = Kind(
    "None, a tuple of argument names, a template, a list of templates or a callable",
    _read_key,
    'write for instance "account:{account_id}"',
)
SWITCH = Kind("True or False", _read_switch, "write one of them, without quotes")
URL = Kind(
    "a URL, or for Redlock a list of an odd number of different URLs, at least three",
    _read_url,
    'write for instance "redis://localhost/2"',
    secret=True,
)
CLIENT_OPTIONS = Kind(
    "a mapping of client options by name", _read_client_options, "write a dict", secret=True
)
PREFIX = Kind(
    "a text without braces, spaces and control characters",
    _read_prefix,
    'write for instance "redlock:shop:"',
)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with more digits than Python writes
        return _described(value)


def _described(value: Any) -> str:
    """The kind and size of a value that may hold a password."""
    size = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
    return f"a {type(value).__name__}{size}"
