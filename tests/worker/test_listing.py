"""Locks in words: what is shown of them, in which order, and what never reaches a terminal."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

import pytest

from celery_redlock.core.ports import ForcedView, HolderView, ResourceView, WaiterView
from celery_redlock.core.record import Record
from celery_redlock.integration.describing import describe
from celery_redlock.integration.listing import NOTHING, counts, lines, plain, selected, table

NOW = 1_700_000_000.0

#: A terminal's escape, its 8-bit form, a bidi override, a line break, a bell, a lone surrogate.
HOSTILE = "\x1b[31mred\x9b2J\u202egnp\u2066.\r\nfree\x07\x00\ud800\u2028\x7f"


def record(age: float = 5.0, **fields: Any) -> str:
    given = {"task": "shop.work", "task_id": "id-1", "worker": "w1@host", **fields}
    return Record(host="host", pid=7, since=NOW - age, **given).encode()


def holder(age: float = 5.0, left: float = 20.0, **fields: Any) -> HolderView:
    given = {"mode": "exclusive", "limit": 1, "state": "confirmed", **fields}
    return HolderView(
        token="secret",
        fence=41,
        remaining_ms=int(left * 1000),
        record=given.pop("record", record(age)),
        **given,
    )


def waiter(age: float = 2.0, left: float = 10.0) -> WaiterView:
    return WaiterView("secret", 1, int(left * 1000), record(age, task_id=f"waits {age}"))


def state(
    name: str = "account:42",
    holders: Optional[List[HolderView]] = None,
    waiters: Optional[List[WaiterView]] = None,
    forced: Optional[ForcedView] = None,
) -> Dict[str, Any]:
    view = ResourceView(41, tuple(holders or ()), tuple(waiters or ()), forced)
    return describe(name, view, NOW)


def names(states: List[Dict[str, Any]]) -> List[str]:
    return [each["resource"] for each in states]


# --- the order, and what is stale


def test_the_oldest_wait_comes_first_then_the_oldest_hold() -> None:
    states = [
        state("young", [holder(1)]),
        state("old", [holder(60)]),
        state("awaited", [holder(2)], [waiter(1)]),
        state("long awaited", [holder(3)], [waiter(2), waiter(9)]),
    ]
    assert names(selected(states, stale=False)) == ["long awaited", "awaited", "old", "young"]


def test_what_is_left_behind_is_stale_and_neither_held_nor_waited_for() -> None:
    states = [
        state("held", [holder()]),
        state("ghost", [holder(left=-3)]),
        state("silent", [holder()], [waiter(left=-1)]),
    ]
    assert names(selected(states, stale=False)) == ["held", "silent"]
    assert names(selected(states, stale=True)) == ["ghost", "silent"]


def test_the_last_line_counts() -> None:
    states = [state("a", [holder()], [waiter(), waiter()]), state("b", [holder()])]
    assert counts(states, 0) == "2 held, 1 waited for, by 2"
    assert counts([], 0) == NOTHING == "nothing is held or waited for"
    assert counts([], 3) == f"{NOTHING}; 3 stale (see --stale)"


# --- the table


def test_a_row_says_who_holds_it_where_and_how_many_wait() -> None:
    rows = table([state(holders=[holder(200)], waiters=[waiter(65), waiter(3)])], False, None)
    assert rows[0].split() == ["RESOURCE", "TASK", "HOLDER", "WORKER", "AGE", "LEASE", "WAITING"]
    told = ["account:42", "shop.work", "id-1", "w1@host", "3m20s", "20s", "2", "(1m05s)"]
    assert rows[1].split() == told


def test_columns_stand_below_their_headers() -> None:
    rows = table([state("a", [holder()]), state("account:long", [holder()])], False, None)
    at = rows[0].index("TASK")
    assert all(row[at - 1] == " " and row[at] != " " for row in rows)


def test_each_holder_has_a_row_with_the_resource_in_it() -> None:
    readers = [holder(mode="shared"), holder(mode="shared")]
    rows = table([state(holders=readers)], False, None)
    assert [row.split()[0] for row in rows[1:]] == ["account:42"] * 2


def test_what_is_waited_for_and_held_by_nobody_has_a_row() -> None:
    (_, row) = table([state(waiters=[waiter(1)])], False, None)
    assert row.split() == ["account:42", "-", "-", "-", "-", "-", "1", "(1s)"]


def test_stale_rows_say_for_how_long() -> None:
    told = state(holders=[holder(left=-70)], waiters=[waiter(left=-1)])
    (_, row) = table([told], True, None)
    assert row.split()[-3:] == ["-1m10s", "1", "silent"]


def test_a_usual_table_fits_a_hundred_columns() -> None:
    usual = record(task="shop.sync_account", task_id="8f14e45f-ceea-467f-9575-2a3b1c0d9e88")
    rows = table([state("account:1234", [holder(record=usual)], [waiter(100)])], False, 100)
    assert all(len(row) <= 100 for row in rows)
    assert "account:1234" in rows[1]


def test_what_does_not_fit_is_cut_but_never_the_resource() -> None:
    long = record(task="a.very.long.module.path.of.a.task", task_id="i" * 36, worker="w" * 40)
    name = "report:" + "x" * 60
    rows = table([state(name, [holder(record=long)])], False, 80)
    assert name in rows[1]
    assert "…" in rows[1]
    assert "i" * 36 in table([state(name, [holder(record=long)])], False, None)[1]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (3725, "1h02m"), (90_000, "1d01h")],
)
def test_ages_are_told_in_two_units(seconds: float, told: str) -> None:
    (_, row) = table([state(holders=[holder(seconds)])], False, None)
    assert row.split()[4] == told


# --- one resource


def test_a_resource_is_told_with_its_holder_its_line_and_its_fence() -> None:
    told = lines(state(holders=[holder(3)], waiters=[waiter(2.0), waiter(1.0)]))
    assert told == [
        "account:42  (last fence 41)",
        "  held by shop.work[id-1] on w1@host (pid 7) for 3.0 s, "
        "20.0 s of its lease left, fence 41",
        "  1. in line: shop.work[waits 2.0] on w1@host (pid 7) for 2.0 s",
        "  2. in line: shop.work[waits 1.0] on w1@host (pid 7) for 1.0 s",
    ]


def test_modes_limits_and_what_is_kept_are_told() -> None:
    told = "\n".join(
        lines(state(holders=[holder(mode="shared"), holder(limit=3), holder(state="kept")]))
    )
    assert "fence 41, shared" in told
    assert "one of at most 3" in told
    assert "kept over its retry by" in told


def test_what_is_left_of_others_is_told_apart() -> None:
    told = lines(
        state(
            holders=[holder(left=-2)],
            waiters=[waiter(left=-1)],
            forced=ForcedView("ops@desk", 3000),
        )
    )
    assert told[1] == "  free"
    assert "lapsed: shop.work[id-1]" in told[2]
    assert "2.0 s ago" in told[2]
    assert "silent" in told[3]
    assert told[4] == "  released by force 3.0 s ago by ops@desk"


def test_a_place_in_line_counts_those_who_are_silent() -> None:
    told = lines(state(holders=[holder()], waiters=[waiter(left=-1), waiter()]))
    assert [line for line in told if line.startswith("  2. in line")]


# --- hostile names and values


def hostile_state() -> Dict[str, Any]:
    everywhere = record(task=HOSTILE, task_id=HOSTILE, worker=HOSTILE)
    elsewhere = Record(host=HOSTILE, pid=7, since=NOW).encode()
    return state(
        HOSTILE,
        [holder(record=everywhere), holder(record=elsewhere), holder(record=everywhere, left=-1)],
        [WaiterView("secret", 1, 1000, everywhere), WaiterView("secret", 2, -1000, everywhere)],
        ForcedView(HOSTILE, 1),
    )


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    hostile = hostile_state()
    shown = lines(hostile) + table([hostile], False, None) + table([hostile], True, 80)
    assert all(line.isprintable() for line in shown)
    assert any("\\x1b[31mred" in line for line in shown)


def test_json_is_plain_ascii_and_says_what_is_there() -> None:
    text = json.dumps(hostile_state())
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["resource"] == HOSTILE


def test_no_token_is_told() -> None:
    told = state(holders=[holder()], waiters=[waiter()])
    assert "secret" not in json.dumps(told) + "\n".join(lines(told))


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "7",
        '{"h": 7}',
        '{"p": "7"}',
        '{"p": 7, "s": "now"}',
        '{"s": NaN}',
        '{"s": Infinity}',
        '{"s": 1e300}',
        '{"id": ["x"]}',
        '{"t": {"a": 1}}',
        '{"w": 3}',
        '{"h": null}',
        '{"p": 2147483648}',
        '{"p": -100000000000000000000}',
        '{"r": "many"}',
        "[" * 100_000,
    ],
)
def test_a_record_that_nobody_of_us_wrote_is_shown_as_unknown(text: str) -> None:
    told = state(holders=[holder(record=text)])
    assert told["holders"][0]["holder"] == "?"
    assert "held by ? on ?" in lines(told)[1]
    assert table([told], False, None)[1].split()[:4] == ["account:42", "-", "?", "?"]


def test_a_clock_that_is_behind_makes_no_negative_ages() -> None:
    assert state(holders=[holder(-30)])["holders"][0]["age"] == 0.0


def test_plain_leaves_what_people_write() -> None:
    assert plain("über/Ünïcode:名前 (42)") == "über/Ünïcode:名前 (42)"
