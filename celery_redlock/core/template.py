"""Templates name resources for people: ``"account:{account_id}"``.

A rendered value keeps only ``A-Za-z0-9._@-``; everything else is percent-encoded, so no argument
can produce a separator, a parenthesis (hashed names have them) or a control character. What the
template's author wrote stands as it is. Literal text with a character that no rendered value can
have keeps neighbouring values apart; ``-``, ``.``, ``_``, ``@`` and ``%`` are no such characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from typing import Any, List, Mapping, Optional, Tuple
from uuid import UUID

from celery_redlock.core.encoding import decimal_digits
from celery_redlock.exceptions import ConfigurationError

#: The longest name in UTF-8 bytes, and what is kept of a longer one.
LONGEST = 200
KEPT = 120

#: What no name may begin with: in the braces of its keys it would make an empty hash tag, and a
#: cluster would keep the keys of one resource in several places.
NO_TAG = "}"

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NOT_IN_VALUE = re.compile(r"[^A-Za-z0-9._@-]+")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._@:/-]+")


@dataclass(frozen=True)
class Template:
    """A parsed template; ``parts`` are pairs of literal text and the argument that follows it."""

    text: str
    parts: Tuple[Tuple[str, str], ...]
    fields: Tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ConfigurationError for anything but text, ``{argument}``, ``{{`` and ``}}``."""
        _check_text(text)
        parts: List[Tuple[str, str]] = []
        literal, at = "", 0
        for token in _TOKEN.finditer(text):
            literal += text[at : token.start()]
            at = token.end()
            if token.group() in ("{{", "}}"):
                literal += token.group()[0]
            else:
                parts.append((literal, _field(text, token.group(1))))
                literal = ""
        parts.append((literal + text[at:], ""))
        fields = dict.fromkeys(field for _, field in parts if field)
        return cls(text, tuple(parts), tuple(fields))

    def render(self, arguments: Mapping[str, Any]) -> str:
        """The name for these arguments; ConfigurationError names the argument that is unfit."""
        name = "".join([literal + self._value(field, arguments) for literal, field in self.parts])
        if not name:
            raise ConfigurationError(
                f"template {self.text!r} gives an empty name for this call; "
                f"put text around the placeholder"
            )
        if name.startswith(NO_TAG):
            raise ConfigurationError(
                f"template {self.text!r} gives a name for this call that begins with a closing "
                f"brace; put text before it"
            )
        return fit(name)

    def _value(self, field: str, arguments: Mapping[str, Any]) -> str:
        if not field:
            return ""
        if field not in arguments:
            raise ConfigurationError(
                f"template {self.text!r} needs the argument {field!r}, which this call does not "
                f"give; give it, or take it out of the template"
            )
        text = _rendered(arguments[field])
        if text is None:
            raise ConfigurationError(
                f"template {self.text!r}: expected argument {field!r} to be a str, int, bool, "
                f"UUID, date, datetime, Decimal or Enum of these, got "
                f"{type(arguments[field]).__name__}; name the resource with a callable, or by "
                f"({field!r},)"
            )
        return _escape(_NOT_IN_VALUE, text)


def resource(template: str, /, **arguments: Any) -> str:
    """The resource's name, as a task with this ``lock_key`` gives it: for use with ``Lock``.

    Raises ConfigurationError for a template or a value that cannot be, and for arguments that the
    template does not name.
    """
    parsed = Template.parse(template)
    unknown = sorted(set(arguments) - set(parsed.fields))
    if unknown:
        raise ConfigurationError(
            f"template {template!r}: expected no arguments but its placeholders, got "
            f"{', '.join(unknown)}; leave out what the template does not name"
        )
    return parsed.render(arguments)


def escape_name(text: str) -> str:
    """A name from a callable or of a task: escaped like a value, with ``:`` and ``/`` kept."""
    return _escape(_NOT_IN_NAME, text)


def fit(name: str) -> str:
    """The name itself, or for one over 200 bytes its beginning and the hash of the whole."""
    # Four bytes are the most that a character takes.
    if len(name) * 4 <= LONGEST:
        return name
    encoded = name.encode()
    if len(encoded) <= LONGEST:
        return name
    head = encoded[:KEPT].decode("utf-8", "ignore")  # drops the half of a character at its end
    percent = head.find("%", len(head) - 2)
    if percent >= 0:
        head = head[:percent]
    return f"{head}(~{sha256(encoded).hexdigest()})"


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise ConfigurationError(
            f"expected a template to be a str, got {type(text).__name__}; "
            f'write text such as "account:{{account_id}}"'
        )
    if not text:
        raise ConfigurationError("expected a template to have some text, got ''; name the resource")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"expected template {text!a} to be text that UTF-8 can write, got a lone surrogate; "
            f"take it out"
        ) from None


def _field(text: str, name: Optional[str]) -> str:
    if name is None:
        raise ConfigurationError(
            f"template {text!r}: expected every brace to be part of a placeholder, got a single "
            f'one; write "{{{{" or "}}}}" for a brace'
        )
    if not name.isidentifier():
        raise ConfigurationError(
            f"template {text!r}: expected a placeholder to be the plain name of an argument, got "
            f"{'{' + name + '}'!r}; attributes, indexes, conversions and formats need a callable"
        )
    return name


def _rendered(value: Any) -> Optional[str]:
    """The value as text, or None for a kind that is not rendered.

    Read through the base type, not by what a subclass makes of it: a serializer returns the base.
    """
    if isinstance(value, Enum):
        return _rendered(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return decimal_digits(value)
    if isinstance(value, datetime):
        return datetime.isoformat(value)
    if isinstance(value, date):
        return date.isoformat(value)
    return str(value) if isinstance(value, (UUID, Decimal)) else None


def _escape(unsafe: re.Pattern[str], text: str) -> str:
    return unsafe.sub(_percent, text)


def _percent(found: re.Match[str]) -> str:
    return "".join([f"%{byte:02X}" for byte in found.group().encode("utf-8", "surrogatepass")])
