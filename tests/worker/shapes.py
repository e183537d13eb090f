"""The shapes of a canvas in which one task meets a conflict.

Each is built around one signature, ``locked``; its other steps are named, so that what became of
them can be told.
"""

from __future__ import annotations

import uuid
from typing import Any, Callable, Dict, NamedTuple, Tuple

from celery import chain, chord, group


class Steps:
    """Makes the other steps of a canvas, and remembers under which task id each was sent."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.ids: Dict[str, str] = {}

    def note(self, name: str) -> Any:
        """A step that returns its name."""
        return self._named(name, self._app.tasks["shop.note"].si(name))

    def collect(self, name: str) -> Any:
        """A chord's body that returns what it was given."""
        return self._named(name, self._app.tasks["shop.collect"].s())

    def _named(self, name: str, signature: Any) -> Any:
        self.ids[name] = str(uuid.uuid4())
        return signature.set(task_id=self.ids[name])


Build = Callable[[Any, Steps], Any]


class Shape(NamedTuple):
    """``text`` is how the table writes it, the task that meets the conflict in bold."""

    name: str
    text: str
    build: Build
    has_chord: bool = False


def _alone(locked: Any, steps: Steps) -> Any:
    return locked


def _with_callback(locked: Any, steps: Steps) -> Any:
    locked.link(steps.note("next"))
    return locked


def _chain_head(locked: Any, steps: Steps) -> Any:
    return chain(locked, steps.note("next"), steps.note("last"))


def _chain_middle(locked: Any, steps: Steps) -> Any:
    return chain(steps.note("first"), locked, steps.note("last"))


def _group_tail(locked: Any, steps: Steps) -> Any:
    return chain(locked, group(steps.note("left"), steps.note("right")))


def _chord_tail(locked: Any, steps: Steps) -> Any:
    header = [steps.note("left"), steps.note("right")]
    return chain(locked, chord(header, steps.collect("body")))


def _group(locked: Any, steps: Steps) -> Any:
    return group(locked, steps.note("beside"))


def _chord_member(locked: Any, steps: Steps) -> Any:
    return chord([locked, steps.note("beside")], steps.collect("body"))


def _chord_member_chain(locked: Any, steps: Steps) -> Any:
    member = chain(locked, steps.note("next"), steps.note("last"))
    return chord([member, steps.note("beside")], steps.collect("body"))


def _chord_member_group_tail(locked: Any, steps: Steps) -> Any:
    member = chain(locked, steps.note("next"), group(steps.note("left"), steps.note("right")))
    return chord([member, steps.note("beside")], steps.collect("body"))


def _chord_member_chord(locked: Any, steps: Steps) -> Any:
    inner = chord([steps.note("left"), steps.note("right")], steps.collect("inner"))
    return chord([chain(locked, inner), steps.note("beside")], steps.collect("body"))


def _chord_body(locked: Any, steps: Steps) -> Any:
    return chord([steps.note("left"), steps.note("right")], locked)


SHAPES: Tuple[Shape, ...] = (
    Shape("alone", "**task**", _alone),
    Shape("callback", "**task**, `link` next", _with_callback),
    Shape("chain-head", "chain(**task**, next, last)", _chain_head),
    Shape("chain-middle", "chain(first, **task**, last)", _chain_middle),
    Shape("group-tail", "chain(**task**, group(left, right))", _group_tail),
    Shape("chord-tail", "chain(**task**, chord([left, right], body))", _chord_tail, True),
    Shape("group", "group(**task**, beside)", _group),
    Shape("chord-member", "chord([**task**, beside], body)", _chord_member, True),
    Shape(
        "chord-member-chain",
        "chord([chain(**task**, next, last), beside], body)",
        _chord_member_chain,
        True,
    ),
    Shape(
        "chord-member-group-tail",
        "chord([chain(**task**, next, group(left, right)), beside], body)",
        _chord_member_group_tail,
        True,
    ),
    Shape(
        "chord-member-chord",
        "chord([chain(**task**, chord([left, right], inner)), beside], body)",
        _chord_member_chord,
        True,
    ),
    Shape("chord-body", "chord([left, right], **task**)", _chord_body, True),
)
