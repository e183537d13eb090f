"""An explanation in words for a terminal: what is, and what will come of it.

As in ``listing``, nothing of what others wrote is shown but through ``plain``.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional

from celery_redlock.integration.listing import lines, plain
from celery_redlock.integration.parking.shown import ASKING

Facts = Dict[str, Any]

#: So many of a line, or of those that are parked, are told one by one.
_MANY = 10


def reasons(facts: Facts) -> List[str]:
    """One screen: what ``explaining`` found of a resource or a task."""
    told = _of_resource(facts) if facts["kind"] == "resource" else _of_task(facts)
    return [*told, *(f"no answer from {plain(each)}" for each in facts["unanswered"])]


# --- one resource


def _of_resource(facts: Facts) -> Iterator[str]:
    if facts["is_seen"]:
        yield from _shown(facts, facts["waiting"])
    else:
        yield f"{plain(facts['resource'])}  (who holds it is not known)"
    for each in facts["parked"][:_MANY]:
        yield f"  {_parked(each)}"
    yield from _more(len(facts["parked"]) - _MANY, "parked")
    for reason in _outlook_of_holders(facts):
        yield f"  {reason}"
    if facts["waiting"] and not facts["holders"]:
        yield "  the head of the line is granted it within a moment"


def _shown(state: Facts, line: List[Facts]) -> Iterator[str]:
    """The resource as ``show`` has it, with no more of its line than fits."""
    silent = state["silent"][:_MANY]
    yield from lines({**state, "waiting": line[:_MANY], "silent": silent})
    yield from _more(len(line) - _MANY, "in line")


def _more(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield f"  and {count} more {what}"


# --- one task


def _of_task(facts: Facts) -> Iterator[str]:
    name = _named(facts["task"], facts["task_id"])
    for hold in facts["holds"]:
        yield from _hold(name, hold["resource"])
    for wait in facts["waits"]:
        yield from _wait(name, wait, facts)
    for each in facts["parked"]:
        yield from _place_in_worker(name, each, facts)
    if not (facts["holds"] or facts["waits"] or facts["parked"]):
        yield from _nothing(name, facts)


def _hold(name: str, state: Facts) -> Iterator[str]:
    yield f"{name} holds {plain(state['resource'])}"
    yield from list(_shown(state, []))[1:]
    if state["waiting"]:
        yield f"  {len(state['waiting'])} in line behind it"
    for reason in _outlook_of_holders(state):
        yield f"  {reason}"


def _wait(name: str, wait: Facts, facts: Facts) -> Iterator[str]:
    state = wait["resource"]
    since = "" if wait["age"] is None else f" for {wait['age']:.1f} s"
    place = f"{_ordinal(wait['place'])} of {wait['of']} in line"
    yield f"{name} waits for {plain(state['resource'])}{since}: {place}"
    before = [each for each in state["waiting"] if each["place"] < wait["place"]]
    yield from list(_shown(state, before))[1:]
    for held in facts["holds"]:
        if held["resource"]["resource"] != state["resource"]:
            yield f"  it holds {plain(held['resource']['resource'])} meanwhile"
    for reason in _outlook(wait, state, len(before)):
        yield f"  {reason}"
    if wait["wait_left"] is not None and not facts["parked"]:
        yield f"  {_gives_up(wait['wait_left'])}"


def _place_in_worker(name: str, parked: Facts, facts: Facts) -> Iterator[str]:
    awaits = "" if facts["waits"] else f" for {_all(parked['resources'])}"
    waited = parked["waited"]
    since = "" if waited is None else f", waited {waited:.1f} s so far"
    yield f"{name} is parked on {plain(parked['worker'])}: {_state(parked)}{awaits}{since}"
    if parked["state"] != ASKING:
        yield "  it takes no slot of the pool while it waits"
    for state in parked["of"]:
        yield from _shown(state, [])
    if parked["wait_left"] is not None:
        yield f"  {_gives_up(parked['wait_left'])}"
    if parked["expires_in"] is not None:
        left = parked["expires_in"]
        yield f"  it expires in {left:.1f} s" if left > 0 else "  it has expired: it will not run"


def _nothing(name: str, facts: Facts) -> Iterator[str]:
    if facts["unanswered"]:
        yield f"{name}: those who answered know nothing of it"
    else:
        yield f"{name} neither holds a lock nor waits for one; nor is it a resource in use"
    if facts["result"]:
        said = _SAID.get(facts["result"], "a state of the task's own")
        yield f"  the result backend says {plain(facts['result'])}: {said}"


_SAID = {
    "PENDING": "it has not begun, or there is no such task",
    "RECEIVED": "a worker has it, and it has not begun",
    "STARTED": "it runs, and is not under its lock, or not yet",
    "RETRY": "it was published again, and asks once more when it comes back",
    "SUCCESS": "it has ended",
    "FAILURE": "it has ended",
    "REVOKED": "it was revoked, has expired, or stood behind a task that was skipped",
    "REJECTED": "a worker has rejected it",
    "IGNORED": "its outcome is not kept",
}


# --- what will come of it


def _outlook(wait: Facts, state: Facts, before: int) -> Iterator[str]:
    if wait["is_silent"]:
        yield (
            "it was not heard of in time, and its turn is passed on: its worker is gone, or cut "
            "off from the lock server"
        )
        return
    if wait["is_copy"]:
        yield (
            "that is another delivery of the same task: it waits for that one to end, and takes "
            "over if it dies"
        )
    yield _granted_when(state, before)
    yield from _outlook_of_holders(state)


def _granted_when(state: Facts, before: int) -> str:
    holders = state["holders"]
    ends = [f"the {before} before it"] if before else []
    most = min((holder["limit"] for holder in holders), default=1)
    if most > 1:
        ends.insert(0, f"one of the at most {most} holders")
    elif holders:
        ends.insert(0, "the holder" if len(holders) == 1 else f"all {len(holders)} holders")
    if not ends:
        return "it is granted within a moment"
    is_one = len(ends) == 1 and (len(holders) == 1 or most > 1 or before == 1)
    has = "has" if is_one else "have"
    return f"it is granted when {' and '.join(ends)} {has} ended"


def _outlook_of_holders(state: Facts) -> Iterator[str]:
    """What ends the holds if nothing else does; of many the first ones."""
    for holder in state["holders"][:_MANY]:
        of = f" of {plain(holder['holder'])}"
        left = f"{holder['lease_left']:.1f} s"
        if holder["fence"] in state["dead"]:
            yield f"the process{of} is dead: a process of ours on its host frees the lock"
        elif holder["kept"]:
            yield f"the hold{of} is kept for its retry, and ends in {left} if that does not come"
        else:
            yield f"the lease{of} ends in {left} if it is not renewed, as it is while it runs"
        if holder["hold_left"] is not None:
            yield f"its renewal ends in {holder['hold_left']:.1f} s (lock_max_hold)"


def _gives_up(left: float) -> str:
    return f"it gives up in {left:.1f} s (lock_wait_timeout)"


# --- words


def _named(task: Optional[str], task_id: str) -> str:
    return plain(f"{task}[{task_id}]" if task else task_id)


def _parked(each: Facts) -> str:
    name = _named(each["task"], each["task_id"] or "?")
    return f"parked on {plain(each['worker'])}: {name}, {_state(each)}"


def _state(parked: Facts) -> str:
    place = f", {_ordinal(parked['place'])}" if parked["place"] else ""
    return f"{plain(parked['state'])}{place}"


def _all(names: List[str]) -> str:
    return ", ".join(plain(name) for name in names) or "a lock that is not named yet"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"
