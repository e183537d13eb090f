"""Why a task waits, or a resource is not free, ready for JSON: pure, from what was found.

Durations are seconds, and None is what is not known.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from celery_redlock.core.options import LockOptions
from celery_redlock.core.ports import ResourceView
from celery_redlock.core.record import Record
from celery_redlock.integration.describing import describe

State = Dict[str, Any]
Parked = Dict[str, Any]

#: The options of a task by its name; None for one that this app does not know.
OptionsOf = Callable[[Optional[str]], Optional[LockOptions]]


class Found(NamedTuple):
    """What was found of one name: its own state, whatever else there is, and who was silent.

    ``states`` are of all resources, as ``state`` makes them; ``parked`` is what the workers keep,
    as ``parked_by`` makes it.
    """

    asked: str
    states: Sequence[State]
    parked: Sequence[Parked]
    unanswered: Sequence[str] = ()


def state(
    resource: str, view: ResourceView, now: float, is_dead: Callable[[Record], bool]
) -> State:
    """A resource as ``describe`` has it; ``dead`` are the fences of holders that have died."""
    return {
        **describe(resource, view, now),
        "dead": [
            held.fence
            for held in view.holders
            # What is kept over a retry belongs to no process.
            if held.remaining_ms > 0 and held.state != "kept" and _has_died(held.record, is_dead)
        ],
    }


def _has_died(text: str, is_dead: Callable[[Record], bool]) -> bool:
    record = Record.decode(text)
    return record is not None and is_dead(record)


def is_known(state: State) -> bool:
    """Whether the server knows such a resource."""
    return any(state[key] for key in ("fence", "holders", "waiting", "lapsed", "silent", "forced"))


# --- one resource


def of_resource(found: Found, own: Optional[State], options_of: OptionsOf) -> Dict[str, Any]:
    """Who has it, who waits for it, in line or kept by a worker, and what bounds its holders.

    ``is_seen``: the server has told of it; otherwise nobody knows whether it is free.
    """
    view = own or state(found.asked, ResourceView(0, (), ()), 0.0, lambda record: False)
    standing = {each["task_id"] for each in view["waiting"]}
    return {
        "kind": "resource",
        "is_seen": own is not None or not found.unanswered,
        **_with_bounds(view, options_of),
        "parked": [
            each
            for each in found.parked
            if found.asked in each["resources"] and each["task_id"] not in standing
        ],
        "unanswered": list(found.unanswered),
    }


def _with_bounds(state: State, options_of: OptionsOf) -> State:
    """The same; ``hold_left`` is for how long a holder may be kept alive by renewal."""
    holders = [
        {**each, "hold_left": _left(options_of(each["task"]), "max_hold", each["age"])}
        for each in state["holders"]
    ]
    return {**state, "holders": holders}


def _left(options: Optional[LockOptions], bound: str, spent: Optional[float]) -> Optional[float]:
    most: Optional[float] = getattr(options, bound, None)
    return None if most is None or spent is None else max(0.0, most - spent)


# --- one task


def of_task(found: Found, options_of: OptionsOf) -> Dict[str, Any]:
    """What a task (or a Lock, by its ``host/pid``) holds and waits for, and where it is parked.

    ``result``, its state in the result backend, is left to whoever finds nothing else.
    """
    states = [_with_bounds(each, options_of) for each in found.states]
    holds = [{"resource": each} for each in states if _own(each["holders"], found.asked)]
    waits = [_wait(each, found.asked, options_of) for each in states]
    parked = [each for each in found.parked if each["task_id"] == found.asked]
    told = [wait for wait in waits if wait is not None]
    return {
        "kind": "task",
        "task_id": found.asked,
        "task": _name(found.asked, states, parked),
        "holds": holds,
        "waits": told,
        "parked": [_with_resources(each, states, told) for each in parked],
        "result": None,
        "unanswered": list(found.unanswered),
    }


def _own(people: Sequence[Dict[str, Any]], asked: str) -> List[Dict[str, Any]]:
    return [person for person in people if person["holder"] == asked]


def _name(asked: str, states: Sequence[State], parked: Sequence[Parked]) -> Optional[str]:
    people = [
        person
        for each in states
        for key in ("holders", "waiting", "silent")
        for person in _own(each[key], asked)
    ]
    names = [person["task"] for person in [*people, *parked]]
    return next((name for name in names if name), None)


def _wait(state: State, asked: str, options_of: OptionsOf) -> Optional[Dict[str, Any]]:
    """Its wait for this resource; ``is_copy``: another delivery of the same task holds it."""
    own = _own(state["waiting"], asked) or _own(state["silent"], asked)
    if not own:
        return None
    line = [*state["waiting"], *state["silent"]]
    return {
        "place": own[0]["place"],
        "of": len(line),
        "age": own[0]["age"],
        "worker": own[0]["worker"],
        "is_silent": own[0] in state["silent"],
        "is_copy": bool(_own(state["holders"], asked)),
        "wait_left": _left(options_of(own[0]["task"]), "wait_timeout", own[0]["age"]),
        "resource": state,
    }


def _with_resources(
    parked: Parked, states: Sequence[State], waits: Sequence[Dict[str, Any]]
) -> Parked:
    """A parked task; ``of`` are the states of what it will ask for, where it is in no line yet."""
    shown = {wait["resource"]["resource"] for wait in waits}
    names = set(parked["resources"]) - shown
    return {**parked, "of": [each for each in states if each["resource"] in names]}


# --- what workers say


def parked_by(worker: str, answer: Any) -> List[Parked]:
    """A worker's answer to ``inspect redlock_parked``, each entry with its worker.

    Anybody who can publish may have sent it: what is not as expected is left out.
    """
    entries = answer.get("parked") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return []
    return [{"worker": worker, **_sound(each)} for each in entries if isinstance(each, dict)]


def _sound(entry: Dict[str, Any]) -> Parked:
    texts = ("task", "task_id", "awaited", "holder", "state")
    numbers = ("waited", "wait_left", "expires_in")
    lists = ("resources", "held")
    return {
        **{key: _of_kind(entry.get(key), str) for key in texts},
        **{key: _of_kind(entry.get(key), (int, float)) for key in numbers},
        "place": _of_kind(entry.get("place"), int),
        **{key: [str(each) for each in _of_kind(entry.get(key), list) or ()] for key in lists},
    }


def _of_kind(value: Any, kind: Any) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
