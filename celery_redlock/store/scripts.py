"""The server's scripts, as package files, and the frames that call them.

A frame is a whole request in the server's wire format (RESP), built by us: packing the twenty small
arguments of an acquire is most of what a client spends on it.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
import sys
from typing import Sequence

_INCLUDE = re.compile(r"^--@include (\w+\.lua)$", re.MULTILINE)


def source(file: str) -> str:
    """A script's text with its includes in place."""
    data = pkgutil.get_data(__package__, f"scripts/{file}")
    if data is None:  # pragma: no cover - a broken installation
        raise FileNotFoundError(f"celery_redlock is installed without its script {file}")
    return _INCLUDE.sub(lambda match: source(match.group(1)), data.decode("utf-8"))


def _sha1(data: bytes) -> str:
    # Names a script, protects nothing: FIPS machines allow it only when told so (Python 3.9).
    told = {"usedforsecurity": False} if sys.version_info >= (3, 9) else {}
    return hashlib.sha1(data, **told).hexdigest()


def bulk(*arguments: str) -> str:
    """Arguments in wire format; lengths are of bytes."""
    text = "".join([f"${len(argument)}\r\n{argument}\r\n" for argument in arguments])
    if text.isascii():
        return text
    return "".join([f"${len(argument.encode())}\r\n{argument}\r\n" for argument in arguments])


def command(*arguments: str) -> bytes:
    """A plain command of the server's as a request."""
    return f"*{len(arguments)}\r\n{bulk(*arguments)}".encode()


class Script:
    """One script: its text, its SHA-1 and how to call it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = source(f"{name}.lua")
        self.sha = _sha1(self.text.encode())
        self._evalsha = bulk("EVALSHA", self.sha)

    def head(self, keys: int, arguments: int) -> str:
        """The beginning of a request: so many keys, then so many arguments follow it."""
        return f"*{3 + keys + arguments}\r\n{self._evalsha}{bulk(str(keys))}"

    def frame(self, keys: int, arguments: Sequence[str]) -> bytes:
        """The request that calls it: the first ``keys`` of the arguments are keys."""
        return (self.head(keys, len(arguments) - keys) + bulk(*arguments)).encode()

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.sha[:8]}>"
