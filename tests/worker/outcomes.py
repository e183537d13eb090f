"""What a caller sees of a canvas in which one task meets a conflict: data, and the docs' tables.

Both the tests and the tables of docs/outcomes.md are made from ``ROWS``.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, NamedTuple, Tuple

from celery import states

from celery_redlock import LockConflict, LockTimeout, is_skipped
from tests.worker.shapes import SHAPES, Shape

#: The result backends, and which of them have chords.
BACKENDS = ("redis", "database", "rpc")
CHORDS = ("redis", "database")


class Ending(NamedTuple):
    """How the task that met the conflict ended; ``became`` is the word for it."""

    name: str
    heading: str
    text: str
    became: str


class Policy(NamedTuple):
    """``task`` is the one in locked_tasks that has it."""

    name: str
    task: str
    ending: str


ENDINGS = (
    Ending(
        "skipped",
        "Skipped",
        'By `lock_on_conflict="skip"`, a full line or a newcomer that took the place.',
        "marker",
    ),
    Ending(
        "failed",
        "Failed",
        'By `lock_on_conflict="fail"` (LockConflict) or `lock_wait_timeout` (LockTimeout).',
        "failed",
    ),
    Ending(
        "ran",
        "Ran after a wait",
        'By `lock_on_conflict="wait"` or `"retry"`: as if nobody had held the lock.',
        "ran",
    ),
)

POLICIES = (
    Policy("skip", "work_or_skip", "skipped"),
    Policy("fail", "work_or_fail", "failed"),
    Policy("timeout", "work_soon", "failed"),
    Policy("wait", "work", "ran"),
    Policy("retry", "work_later", "ran"),
)


class Row(NamedTuple):
    """``gives`` is what the ``.get()`` of the whole gives, ``others`` what other steps became."""

    ending: str
    shape: str
    gives: str
    others: str = ""
    only: Tuple[str, ...] = ()


_REVOKED = "TaskRevokedError"
_ERROR = "the error"

ROWS = (
    Row("skipped", "alone", "marker"),
    Row("skipped", "callback", "marker", "next revoked"),
    Row("skipped", "chain-head", _REVOKED, "next revoked, last revoked"),
    Row("skipped", "chain-middle", _REVOKED, "first ran, last revoked"),
    Row("skipped", "group-tail", _REVOKED, "left revoked, right revoked"),
    Row("skipped", "chord-tail", _REVOKED, "left revoked, right revoked, body revoked"),
    Row("skipped", "group", "[marker, beside]", "beside ran"),
    Row("skipped", "chord-member", "[marker, beside]", "beside ran, body ran"),
    Row(
        "skipped",
        "chord-member-chain",
        "[marker, beside]",
        "next revoked, last marker, beside ran, body ran",
        ("redis",),
    ),
    Row(
        "skipped",
        "chord-member-chain",
        "[marker, beside]",
        "next marker, last marker, beside ran, body ran",
        ("database",),
    ),
    Row(
        "skipped",
        "chord-member-group-tail",
        "[[marker, marker], beside]",
        "next marker, left marker, right marker, beside ran, body ran",
    ),
    Row(
        "skipped",
        "chord-member-chord",
        "[marker, beside]",
        "left marker, right marker, inner marker, beside ran, body ran",
    ),
    Row("skipped", "chord-body", "marker", "left ran, right ran"),
    Row("failed", "alone", _ERROR),
    Row("failed", "callback", _ERROR, "next pending"),
    Row("failed", "chain-head", _ERROR, "next failed, last failed"),
    Row("failed", "chain-middle", _ERROR, "first ran, last failed"),
    Row("failed", "group-tail", _ERROR, "left failed, right failed"),
    Row("failed", "chord-tail", _ERROR, "left failed, right failed, body failed"),
    Row("failed", "group", _ERROR, "beside ran"),
    Row("failed", "chord-member", _ERROR, "beside ran, body failed"),
    Row(
        "failed", "chord-member-chain", _ERROR, "next failed, last failed, beside ran, body failed"
    ),
    Row(
        "failed",
        "chord-member-group-tail",
        _ERROR,
        "next failed, left failed, right failed, beside ran, body failed",
    ),
    Row(
        "failed",
        "chord-member-chord",
        _ERROR,
        "left failed, right failed, inner failed, beside ran, body failed",
    ),
    Row("failed", "chord-body", _ERROR, "left ran, right ran"),
    Row("ran", "alone", "done"),
    Row("ran", "callback", "done", "next ran", ("redis", "database")),
    Row("ran", "callback", "done", "next pending", ("rpc",)),
    Row("ran", "chain-head", "last", "next ran, last ran"),
    Row("ran", "chain-middle", "last", "first ran, last ran"),
    Row("ran", "group-tail", "[left, right]", "left ran, right ran"),
    Row("ran", "chord-tail", "[left, right]", "left ran, right ran, body ran"),
    Row("ran", "group", "[done, beside]", "beside ran"),
    Row("ran", "chord-member", "[done, beside]", "beside ran, body ran"),
    Row("ran", "chord-member-chain", "[last, beside]", "next ran, last ran, beside ran, body ran"),
    Row(
        "ran",
        "chord-member-group-tail",
        "[[left, right], beside]",
        "next ran, left ran, right ran, beside ran, body ran",
    ),
    Row(
        "ran",
        "chord-member-chord",
        "[[left, right], beside]",
        "left ran, right ran, inner ran, beside ran, body ran",
    ),
    Row("ran", "chord-body", "done", "left ran, right ran"),
)


class Case(NamedTuple):
    backend: str
    policy: Policy
    shape: Shape
    row: Row

    @property
    def name(self) -> str:
        return f"{self.policy.name}-{self.shape.name}"


def cases(backend: str) -> List[Case]:
    """Every policy in every shape that Celery supports on this backend."""
    return [
        Case(backend, policy, _shape(row), row)
        for policy in POLICIES
        for row in ROWS
        if row.ending == policy.ending and backend in backends_of(row)
    ]


def backends_of(row: Row) -> Tuple[str, ...]:
    return row.only or (CHORDS if _shape(row).has_chord else BACKENDS)


def told(value: Any) -> str:
    """A result, or the error that ``.get()`` raised, in the words of the rows."""
    if isinstance(value, (LockConflict, LockTimeout)):
        return _ERROR
    if isinstance(value, BaseException):
        return type(value).__name__
    if is_skipped(value):
        return "marker"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(told(one) for one in value)}]"
    return str(value)


def became(result: Any) -> str:
    """What became of one task, in the words of the rows."""
    state = result.state
    if state == states.SUCCESS:
        return "marker" if is_skipped(result.result) else "ran"
    return {states.FAILURE: "failed"}.get(state, state.lower())


def told_others(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {became(result)}" for name, result in found.items())


def tables() -> str:
    """The tables of docs/outcomes.md."""
    return "\n".join(line for ending in ENDINGS for line in _table(ending))


def _table(ending: Ending) -> Iterator[str]:
    yield f"## {ending.heading}"
    yield ""
    yield ending.text
    yield ""
    yield "| canvas | `.get()` gives | the other steps | backends |"
    yield "|---|---|---|---|"
    for row in ROWS:
        if row.ending == ending.name:
            backends = ", ".join(backends_of(row))
            yield f"| {_shape(row).text} | {row.gives} | {row.others} | {backends} |"
    yield ""


def _shape(row: Row) -> Shape:
    return next(shape for shape in SHAPES if shape.name == row.shape)
