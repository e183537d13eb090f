"""Seeing everything at once: what every store tells of all that it knows."""

from __future__ import annotations

import sys
from typing import Dict, List, Sequence, Tuple

import pytest

from celery_redlock.core.ports import NoAnswer, ResourceView, Store
from celery_redlock.core.timing import LATE_MS
from celery_redlock.locking.oversight import survey
from celery_redlock.store.urls import open_store
from tests.contract.conftest import PREFIX, Backend
from tests.contract.desk import Desk

Part = Sequence[Tuple[str, ResourceView]]

ENDLESS = {
    "a deadline without end": f"{10**400}|1|x|1|c||",
    "a fence without end": f"1|{10**400}|x|1|c||",
}

HARD_NAMES = ["a:b/c", "{tag}x", "}:h", "*", "[a]?", "\\", "ünï", "task(0123)", " "]


def seen(store: Store, pattern: str = "*") -> Dict[str, ResourceView]:
    return {name: view for part in store.survey(pattern) for name, view in part}


def leave_fences(backend: Backend, count: int) -> None:
    """So many resources that nobody holds any more."""
    assert backend.server is not None
    with backend.server.client() as client, client.pipeline(transaction=False) as together:
        for number in range(count):
            together.hset(f"{PREFIX}{{left {number}}}:h", "f", "7")
        together.execute()


def test_what_is_held_and_what_is_waited_for_is_seen_as_inspect_tells_it(store: Store) -> None:
    held, awaited = Desk(store, "held"), Desk(store, "awaited")
    held.granted("a")
    awaited.granted("b")
    awaited.queued("c")
    found = seen(store)
    assert set(found) == {"held", "awaited"}
    assert [holder.token for holder in found["held"].holders] == ["a"]
    assert [waiter.token for waiter in found["awaited"].waiters] == ["c"]
    assert found["awaited"].fence == awaited.view().fence


@pytest.mark.parametrize("name", HARD_NAMES)
def test_whatever_a_resource_is_named_it_is_found_under_its_name(store: Store, name: str) -> None:
    Desk(store, name).granted("a")
    assert list(seen(store)) == [name]


def test_a_pattern_is_a_glob_over_names(store: Store) -> None:
    for name in ("account:1", "account:2", "report:1", "{account:1}"):
        Desk(store, name).granted("a")
    assert set(seen(store, "account:*")) == {"account:1", "account:2"}
    assert set(seen(store, "*:1")) == {"account:1", "report:1"}
    assert set(seen(store, "account:2")) == {"account:2"}
    assert seen(store, "ACCOUNT:*") == {}


def test_looking_changes_nothing(store: Store) -> None:
    desk = Desk(store)
    fence = desk.granted("a")
    desk.queued("b")
    seen(store)
    assert desk.holder("a").fence == fence
    assert desk.line() == ["b"]


def test_what_nobody_holds_or_awaits_is_no_part_of_a_survey(store: Store) -> None:
    desk = Desk(store)
    desk.granted("a")
    desk.leave("a")
    assert survey(store).resources == {}
    assert survey(store).is_complete


def test_a_survey_out_of_time_says_that_it_is_not_complete(store: Store) -> None:
    Desk(store).granted("a")
    assert not survey(store, within=-1.0).is_complete


def test_among_many_leftovers_each_part_is_small_and_the_held_one_is_found(real: Backend) -> None:
    store = real.open()
    Desk(store, "held").granted("a")
    leave_fences(real, 5000)
    parts: List[Part] = list(store.survey())
    # A step may give more than the server was asked for; it stays far from all.
    assert max(len(part) for part in parts) < 2500
    assert set(survey(store).resources) == {"held"}


def test_only_what_may_be_held_and_fits_is_looked_at_closely(real: Backend) -> None:
    store = real.open()
    for name in ("held", "another"):
        Desk(store, name).granted("a")
    leave_fences(real, 300)
    assert real.server is not None
    real.server.reset_stats()
    assert set(survey(store, "hel*").resources) == {"held"}
    assert real.server.calls("evalsha") <= 2  # once more where the server knew no script


def test_a_hold_that_came_back_to_an_empty_server_is_seen(backend: Backend) -> None:
    store = backend.restarted(restart_grace=60)
    Desk(store).bring_back("a", 1_000_000)
    assert [holder.token for holder in seen(store)["desk"].holders] == ["a"]


def test_a_line_before_a_restarted_server_grants_anything_is_seen(backend: Backend) -> None:
    store = backend.restarted(restart_grace=60)
    Desk(store).queued("a")
    assert [waiter.token for waiter in seen(store)["desk"].waiters] == ["a"]


def test_keys_are_walked_over_and_never_listed_at_once(real: Backend) -> None:
    store = real.open()
    Desk(store).granted("a")
    assert real.server is not None
    real.server.reset_stats()
    seen(store)
    assert real.server.calls("keys") == 0
    assert real.server.calls("scan") >= 1


def test_a_server_that_has_forgotten_the_scripts_is_surveyed(real: Backend) -> None:
    store = real.open()
    Desk(store, "held").granted("a")
    assert real.server is not None
    with real.server.client() as client:
        client.script_flush()
    assert list(seen(store)) == ["held"]


@pytest.mark.parametrize("prefix", ["te*t:", "te[s]t:", "te?t:", "te\\st:"])
def test_only_what_is_under_the_prefix_itself_is_seen(real: Backend, prefix: str) -> None:
    Desk(real.open(), "another's").granted("a")
    assert real.server is not None
    with real.server.client() as client:
        client.hset("test:{x}:h", "f", "1")
        client.hset("tesst:{x}:h", "f", "1")
    store = open_store(real.server.url, prefix=prefix, restart_grace=0)
    Desk(store, "own").granted("a")
    assert list(seen(store)) == ["own"]
    store.close()


def test_entries_that_no_version_of_ours_wrote_are_passed_over(real: Backend) -> None:
    store = real.open()
    Desk(store, "held").granted("a")
    assert real.server is not None
    with real.server.client() as client:
        client.set(f"{PREFIX}{{a string}}:h", "1")
        client.hset(f"{PREFIX}{{a bad holder}}:h", "h:x", "gibberish")
        client.hset(f"{PREFIX}{{a bad fence}}:h", "f", "gibberish")
        client.hset(f"{PREFIX}{{a bad mode}}:h", "h:x", "1|1|q|1|c||")
        client.hset(f"{PREFIX}{{a bad tombstone}}:h", "x:x", "soon")
        for name, holder in ENDLESS.items():
            client.hset(f"{PREFIX}{{{name}}}:h", mapping={"f": "1", "h:x": holder})
        for place in ("inf", "-inf", "1e300"):
            client.zadd(f"{PREFIX}{{a place at {place}}}:q", {"x": float(place)})
        client.execute_command("HSET", PREFIX.encode() + b"{\xff}:h", "h:x", "1|1|x|1|c||")
    assert list(seen(store)) == ["held"]


def test_a_hold_of_as_many_as_a_number_can_say_is_seen(real: Backend) -> None:
    store = real.open()
    Desk(store, "held").granted("a", limit=sys.maxsize)
    assert list(seen(store)) == ["held"]


def test_a_user_without_the_right_to_scan_is_told_so(real: Backend) -> None:
    assert real.server is not None
    with real.server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "clerk", "on", ">secret", "allkeys", "+@all", "-scan"
        )
    try:
        url = real.server.url.replace("redis://", "redis://clerk:secret@")
        store = open_store(url, prefix=PREFIX, restart_grace=0)
        with pytest.raises(NoAnswer, match="scan"):
            seen(store)
        Desk(store).granted("a")  # locking needs no such right
        store.close()
    finally:
        with real.server.client() as client:
            client.execute_command("ACL", "DELUSER", "clerk")


def test_tombstones_alone_are_not_held(store: Store) -> None:
    Desk(store).leave("a", tomb_ms=LATE_MS)
    assert survey(store).resources == {}
