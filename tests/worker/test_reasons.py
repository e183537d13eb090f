"""Why a task waits, in words: what is told of it, what will come of it, and what never is."""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, Optional

import pytest

from celery_redlock.core.options import LockOptions
from celery_redlock.core.ports import ForcedView, HolderView, ResourceView, WaiterView
from celery_redlock.core.record import Record
from celery_redlock.integration import explaining
from celery_redlock.integration.reasons import reasons

NOW = 1_700_000_000.0

#: A terminal's escape, its 8-bit form, a bidi override, a line break, a lone surrogate.
HOSTILE = "\x1b[31mred\x9b2J\u202egnp\r\nfree\ud800\u2028\x7f"

OPTIONS = {"shop.bounded": LockOptions(wait_timeout=60.0, max_hold=3600.0)}


def record(task_id: Optional[str], age: float = 5.0, **fields: Any) -> str:
    given = {"task": "shop.work", "worker": "w1@host", "host": "host", "pid": 7, **fields}
    return Record(since=NOW - age, task_id=task_id, **given).encode()


def holder(task_id: Optional[str] = "holds", left: float = 20.0, **fields: Any) -> HolderView:
    given = {"mode": "exclusive", "limit": 1, "state": "confirmed", "fence": 41, **fields}
    text = given.pop("record", record(task_id))
    return HolderView(token="secret", remaining_ms=int(left * 1000), record=text, **given)


def waiter(task_id: str, left: float = 10.0, **fields: Any) -> WaiterView:
    return WaiterView("secret", 1, int(left * 1000), record(task_id, **fields))


def state(
    holders: List[HolderView],
    waiters: Optional[List[WaiterView]] = None,
    name: str = "account:42",
    forced: Optional[ForcedView] = None,
    is_dead: Any = lambda record: False,
) -> Dict[str, Any]:
    view = ResourceView(41, tuple(holders), tuple(waiters or ()), forced)
    return explaining.state(name, view, NOW, is_dead)


def parked(task_id: str = "waits", **fields: Any) -> Dict[str, Any]:
    told = {"task": "shop.work", "task_id": task_id, "resources": ["account:42"], **fields}
    (entry,) = explaining.parked_by("w2@web", {"parked": [{"state": "in line", **told}]})
    return entry


def facts_of_task(
    task_id: str,
    *states: Dict[str, Any],
    parked: Any = (),
    unanswered: Any = (),
    result: Optional[str] = None,
) -> Dict[str, Any]:
    found = explaining.Found(task_id, states, parked, unanswered)
    return {**explaining.of_task(found, lambda name: OPTIONS.get(name or "")), "result": result}


def of_task(task_id: str, *states: Dict[str, Any], **more: Any) -> List[str]:
    return reasons(facts_of_task(task_id, *states, **more))


def of_resource(own: Optional[Dict[str, Any]], parked: Any = (), unanswered: Any = ()) -> List[str]:
    found = explaining.Found("account:42", (), parked, unanswered)
    return reasons(explaining.of_resource(found, own, lambda name: OPTIONS.get(name or "")))


# --- a task that waits


def test_a_waiting_task_is_told_its_resource_its_place_and_its_holder() -> None:
    line = [waiter("first"), waiter("second"), waiter("third")]
    told = of_task("second", state([holder()], line))
    assert told[0] == "shop.work[second] waits for account:42 for 5.0 s: 2nd of 3 in line"
    assert told[1].startswith("  held by shop.work[holds] on w1@host (pid 7)")
    assert "20.0 s of its lease left" in told[1]
    assert told[2].startswith("  1. in line: shop.work[first]")
    assert "third" not in " ".join(told)
    assert told[3] == "  it is granted when the holder and the 1 before it have ended"
    assert told[4] == (
        "  the lease of holds ends in 20.0 s if it is not renewed, as it is while it runs"
    )


@pytest.mark.parametrize(
    ("number", "place"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (22, "22nd")]
)
def test_places_are_read_as_people_say_them(number: int, place: str) -> None:
    line = [waiter(str(each)) for each in range(1, number + 1)]
    assert of_task(str(number), state([holder()], line))[0].endswith(f"{place} of {number} in line")


def test_of_a_long_line_no_more_is_told_than_a_screen_has() -> None:
    line = [waiter(f"waits {each}") for each in range(500)]
    told = of_task("waits 499", state([holder()], line))
    assert told[0].endswith("500th of 500 in line")
    assert "  and 489 more in line" in told
    assert len(told) < 24


def test_what_bounds_the_wait_and_the_hold_is_told() -> None:
    text = record("waits", task="shop.bounded")
    line = [WaiterView("secret", 1, 9000, text)]
    told = of_task("waits", state([holder(record=record("holds", task="shop.bounded"))], line))
    assert "  it gives up in 55.0 s (lock_wait_timeout)" in told
    assert "  its renewal ends in 3595.0 s (lock_max_hold)" in told


def test_the_head_of_a_line_that_nobody_holds_is_granted_within_a_moment() -> None:
    assert of_task("waits", state([], [waiter("waits")]))[-1].strip() == (
        "it is granted within a moment"
    )


def test_of_several_holders_one_must_end() -> None:
    holders = [holder(f"holds {each}", limit=2) for each in range(2)]
    told = of_task("waits", state(holders, [waiter("waits")]))
    assert "  it is granted when one of the at most 2 holders has ended" in told


def test_a_writer_waits_for_all_readers() -> None:
    holders = [holder(f"reads {each}", mode="shared") for each in range(3)]
    told = of_task("waits", state(holders, [waiter("waits")]))
    assert "  it is granted when all 3 holders have ended" in told


def test_a_redelivered_copy_is_told_to_wait_for_its_first_delivery() -> None:
    told = of_task("same", state([holder("same")], [waiter("same")]))
    assert told[0].startswith("shop.work[same] holds account:42")
    assert any("another delivery of the same task" in line for line in told)


def test_a_task_that_holds_one_and_waits_for_another_tells_both() -> None:
    told = of_task(
        "both",
        state([holder("both")], name="account:1"),
        state([holder()], [waiter("both")], name="account:2"),
    )
    assert told[0] == "shop.work[both] holds account:1"
    assert any(line.startswith("shop.work[both] waits for account:2") for line in told)
    assert "  it holds account:1 meanwhile" in told
    assert not any("another delivery" in line for line in told)


def test_a_waiter_that_was_not_heard_of_is_told_that_its_turn_is_passed_on() -> None:
    told = of_task("silent", state([holder()], [waiter("silent", left=-1.0)]))
    assert any("not heard of in time" in line for line in told)
    assert not any("granted" in line for line in told)


# --- what ends a hold


def test_a_dead_holder_is_called_dead() -> None:
    own = state([holder()], [waiter("waits")], is_dead=lambda record: record.task_id == "holds")
    for told in (of_task("waits", own), of_resource(own)):
        assert (
            "  the process of holds is dead: a process of ours on its host frees the lock" in told
        )


def test_what_is_kept_over_a_retry_belongs_to_no_process_and_ends_by_itself() -> None:
    own = state([holder(state="kept")], [waiter("waits")], is_dead=lambda record: True)
    told = of_task("waits", own)
    assert (
        "  the hold of holds is kept for its retry, and ends in 20.0 s if that does not come"
        in told
    )


def test_a_lapsed_lease_and_a_release_by_force_are_told() -> None:
    told = of_task(
        "waits",
        state([holder(left=-3.0)], [waiter("waits")], forced=ForcedView("ops@desk", 3000)),
    )
    assert any("its lease ended 3.0 s ago" in line for line in told)
    assert "  released by force 3.0 s ago by ops@desk" in told


# --- a task that is parked


def test_a_parked_task_is_told_its_worker_and_what_it_waits_for() -> None:
    entry = parked(state="waits for a slot", waited=3.0, wait_left=7.0, expires_in=90.0)
    told = of_task("waits", state([holder()]), parked=[entry])
    assert told[0] == (
        "shop.work[waits] is parked on w2@web: waits for a slot for account:42, waited 3.0 s so far"
    )
    assert any("held by shop.work[holds]" in line for line in told)
    assert told[-2:] == ["  it gives up in 7.0 s (lock_wait_timeout)", "  it expires in 90.0 s"]


def test_that_a_task_takes_no_slot_is_told_where_it_waits_and_not_while_it_asks() -> None:
    words = "  it takes no slot of the pool while it waits"
    assert words in of_task("waits", parked=[parked(state="in line")])
    assert words not in of_task("waits", parked=[parked(state="asking")])


def test_a_parked_task_in_line_is_told_once_how_long_it_may_wait() -> None:
    text = record("waits", task="shop.bounded")
    entry = parked(place=1, waited=20.0, wait_left=40.0)
    told = of_task(
        "waits", state([holder()], [WaiterView("secret", 1, 9000, text)]), parked=[entry]
    )
    assert sum("lock_wait_timeout" in line for line in told) == 1
    assert "  it gives up in 40.0 s (lock_wait_timeout)" in told
    assert any("is parked on w2@web: in line, 1st" in line for line in told)


def test_a_task_that_has_expired_while_it_waits_is_told_so() -> None:
    assert of_task("waits", parked=[parked(expires_in=-1.0)])[-1] == (
        "  it has expired: it will not run"
    )


def test_what_anybody_may_have_answered_is_taken_for_what_it_is() -> None:
    nonsense = [
        None,
        "x",
        {"parked": "x"},
        {"parked": [None, 7]},
        {"error": "no such method"},
    ]
    assert [explaining.parked_by("w@x", answer) for answer in nonsense] == [[]] * 5
    wrong = {"task_id": "waits", "place": "2", "waited": True, "resources": 7, "held": [None]}
    told = of_task("waits", parked=explaining.parked_by("w@x", {"parked": [wrong, {}]}))
    assert told[0].startswith("waits is parked on w@x")
    endless = parked(waited=math.nan, wait_left=math.inf, expires_in=math.nan)
    assert of_task("waits", parked=[endless])


# --- a task of which nothing is known


@pytest.mark.parametrize("result", ["PENDING", "RETRY", "SUCCESS", "HALFWAY"])
def test_a_task_without_a_lock_is_told_so_and_what_its_result_says(result: str) -> None:
    told = of_task("other", state([holder()], [waiter("waits")]), result=result)
    assert told[0].startswith("other neither holds a lock nor waits for one")
    assert told[1].startswith(f"  the result backend says {result}: ")
    assert len(told) == 2


def test_a_server_that_is_silent_makes_nothing_certain() -> None:
    silent = ["the lock server: redis://127.0.0.1:1/0"]
    told = of_task("other", unanswered=silent)
    assert told == [
        "other: those who answered know nothing of it",
        "no answer from the lock server: redis://127.0.0.1:1/0",
    ]
    told = of_task("waits", parked=[parked(state="waits for the lock server")], unanswered=silent)
    assert "waits for the lock server" in told[0]
    assert told[-1].startswith("no answer from the lock server")


# --- a resource


def test_a_resource_is_told_with_its_holder_its_line_and_what_will_come() -> None:
    told = of_resource(state([holder()], [waiter("waits")]))
    assert told[0].startswith("account:42  (last fence")
    assert "held by shop.work[holds]" in told[1]
    assert "1. in line: shop.work[waits]" in told[2]
    assert "the lease of holds ends in 20.0 s" in told[3]


def test_tasks_that_are_parked_for_a_resource_and_not_in_its_line_are_told() -> None:
    entries = [parked("waits"), parked("later", state="waits for a slot")]
    other = parked("elsewhere", resources=["account:1"])
    told = of_resource(state([holder()], [waiter("waits")]), parked=[*entries, other])
    assert [line for line in told if "parked" in line] == [
        "  parked on w2@web: shop.work[later], waits for a slot"
    ]


def test_a_resource_that_nobody_could_tell_of_is_not_called_free() -> None:
    told = of_resource(None, parked=[parked()], unanswered=["the lock server: x"])
    assert told[0] == "account:42  (who holds it is not known)"
    assert "free" not in " ".join(told)
    assert of_resource(None, parked=[parked()])[1] == "  free"


# --- hostile names and values


def hostile_facts() -> List[Dict[str, Any]]:
    text = record(HOSTILE, task=HOSTILE, worker=HOSTILE, host=HOSTILE)
    held = HolderView("secret", 1, "exclusive", 1, "confirmed", 1000, text)
    line = [WaiterView("secret", 1, 1000, text)]
    own = state([held], line, HOSTILE, ForcedView(HOSTILE, 1))
    fields = {"task": HOSTILE, "resources": [HOSTILE], "state": HOSTILE, "holder": HOSTILE}
    entries = explaining.parked_by(HOSTILE, {"parked": [{"task_id": HOSTILE, **fields}]})
    found = explaining.Found(HOSTILE, (own,), entries, (HOSTILE,))
    return [
        facts_of_task(HOSTILE, own, parked=entries, unanswered=[HOSTILE]),
        facts_of_task(HOSTILE, result=HOSTILE),
        explaining.of_resource(found, own, lambda name: None),
        explaining.of_resource(found, None, lambda name: None),
    ]


def test_nothing_that_a_terminal_obeys_is_told_and_no_token() -> None:
    for facts in hostile_facts():
        told = reasons(facts)
        assert all(line.isprintable() for line in told), told
        assert any("\\x1b[31mred" in line for line in told)
        assert "secret" not in " ".join(told) + json.dumps(facts)
        assert json.dumps(facts).isascii()
