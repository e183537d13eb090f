"""What a check says of something: how bad it is, in one sentence, and what to do."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Severity(Enum):
    OK = "ok"
    #: It works, and something may go wrong one day.
    WARNING = "warning"
    #: Locks do not work, or a guarantee does not hold.
    PROBLEM = "problem"


class Finding(NamedTuple):
    """``name`` is the check's, and stable; ``where`` a server's address, "" for the app."""

    name: str
    severity: Severity
    sentence: str
    advice: str = ""
    where: str = ""


def ok(name: str, sentence: str) -> Finding:
    return Finding(name, Severity.OK, sentence)


def warning(name: str, sentence: str, advice: str) -> Finding:
    return Finding(name, Severity.WARNING, sentence, advice)


def problem(name: str, sentence: str, advice: str) -> Finding:
    return Finding(name, Severity.PROBLEM, sentence, advice)
