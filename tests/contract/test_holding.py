"""Who is granted a resource, and what a hold is."""

from __future__ import annotations

import time
from typing import Tuple

import pytest

from celery_redlock.core.ports import (
    Beat,
    Busy,
    Closed,
    Extended,
    Granted,
    Queued,
    Refused,
    Renew,
    Store,
)
from tests.contract.conftest import Backend
from tests.contract.desk import LONG, SHORT, Desk


def test_a_free_resource_is_granted_with_a_fence_about_now_in_microseconds(desk: Desk) -> None:
    fence = desk.granted("a")
    assert abs(fence / 1e6 - time.time()) < 60
    assert desk.view().fence == fence
    holder = desk.holder("a")
    assert (holder.fence, holder.mode, holder.limit) == (fence, "exclusive", 1)
    assert (holder.state, holder.record) == ("confirmed", "record of a")
    assert 0 < holder.remaining_ms <= LONG


def test_a_second_request_of_the_same_token_is_the_same_hold(desk: Desk) -> None:
    fence = desk.granted("a")
    assert desk.granted("a") == fence
    assert desk.live() == ["a"]


def test_a_held_resource_is_busy_and_says_who_holds_it(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=LONG)
    answer = desk.ask("b", wait=False)
    assert isinstance(answer, Busy)
    assert answer.holders == (("a", fence, "confirmed", "record of a"),)
    assert 0 < answer.next_ms <= LONG
    assert not answer.full
    assert answer.waiting == 0
    assert desk.line() == []


def test_busy_lists_every_live_holder_the_longest_first(desk: Desk) -> None:
    fences = {token: desk.granted(token, limit=3) for token in "cab"}
    answer = desk.ask("d", wait=False, limit=3)
    assert isinstance(answer, Busy)
    assert [(seen.token, seen.fence) for seen in answer.holders] == list(fences.items())


def test_each_grant_has_a_greater_fence(desk: Desk) -> None:
    fences = []
    for number in range(20):
        fences.append(desk.granted(f"t{number}"))
        assert desk.leave(f"t{number}") == "holder"
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("orphans", [(), ("of an earlier task",)])
def test_fences_go_on_growing_after_all_data_is_lost(
    backend: Backend, orphans: Tuple[str, ...]
) -> None:
    store = backend.open()
    desk = Desk(store)
    before = desk.granted("a")
    desk = Desk(backend.wiped(store))
    assert desk.view().fence == 0
    assert desk.granted("b", orphans=orphans) > before


def test_resources_do_not_meet(store: Store) -> None:
    one, other = Desk(store, "one"), Desk(store, "other")
    one.granted("a")
    other.granted("b")
    assert (one.live(), other.live()) == (["a"], ["b"])


@pytest.mark.parametrize("resource", ["a:b", "ä/ß", "x" * 200, "{tag}:1", "%7B", "a b|c"])
def test_any_name_is_a_resource_of_its_own(store: Store, resource: str) -> None:
    desk = Desk(store, resource)
    fence = desk.granted("a", record='{"h":"hôst|1"}')
    assert isinstance(desk.ask("b", wait=False), Busy)
    assert desk.holder("a").record == '{"h":"hôst|1"}'
    assert desk.renew("a", fence) == Extended()
    assert desk.leave("a") == "holder"


def test_a_release_frees_at_once_and_is_repeatable(desk: Desk) -> None:
    desk.granted("a")
    assert desk.leave("a") == "holder"
    assert desk.leave("a") == "absent"
    assert desk.view().holders == ()
    desk.granted("b")


def test_a_foreign_token_releases_and_extends_nothing(desk: Desk) -> None:
    fence = desk.granted("a")
    before = desk.holder("a").remaining_ms
    assert desk.leave("z") == "absent"
    assert desk.renew("z", fence, lease_ms=2 * LONG) == desk.gone
    assert desk.bring_back("z", fence, lease_ms=2 * LONG) == Refused()
    assert desk.live() == ["a"]
    assert desk.holder("a").remaining_ms <= before


def test_a_renewal_extends_its_hold(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=1000)
    assert desk.renew("a", fence, lease_ms=LONG) == Extended()
    assert desk.holder("a").remaining_ms > LONG / 2


def test_a_renewal_with_another_fence_is_of_another_hold(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=1000)
    assert desk.renew("a", fence - 1) == desk.gone
    assert desk.renew("a", fence + 1) == desk.gone
    assert desk.holder("a").remaining_ms <= 1000


def test_a_renewal_creates_nothing(desk: Desk) -> None:
    assert desk.renew("a", 5) == desk.gone
    assert desk.view().holders == ()


def test_a_lease_is_never_shortened(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=LONG)
    assert desk.renew("a", fence, lease_ms=SHORT) == Extended()
    assert desk.granted("a", lease_ms=SHORT) == fence
    assert desk.holder("a").remaining_ms > LONG / 2


def test_bringing_back_what_has_not_gone_shortens_no_lease(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=LONG)
    assert desk.bring_back("a", fence, lease_ms=SHORT) == Extended()
    assert desk.holder("a").remaining_ms > LONG / 2


def test_a_lease_that_ends_lets_the_next_in(desk: Desk) -> None:
    old = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    assert desk.granted("b") > old
    assert desk.live() == ["b"]


# --- limits and modes ---------------------------------------------------------------------------


def test_a_limit_admits_so_many(desk: Desk) -> None:
    for token in "abc":
        desk.granted(token, limit=3)
    assert isinstance(desk.ask("d", wait=False, limit=3), Busy)
    desk.leave("b")
    desk.granted("d", limit=3)
    assert desk.live() == ["a", "c", "d"]


def test_the_smallest_limit_counts_the_requesters(desk: Desk) -> None:
    desk.granted("a", limit=3)
    assert isinstance(desk.ask("b", wait=False, limit=1), Busy)
    desk.granted("b", limit=2)


def test_the_smallest_limit_counts_the_holders(desk: Desk) -> None:
    desk.granted("a", limit=1)
    assert isinstance(desk.ask("b", wait=False, limit=3), Busy)


def test_readers_share_whatever_their_limit(desk: Desk) -> None:
    for token in "abc":
        desk.granted(token, mode="shared")
    assert desk.live() == ["a", "b", "c"]


def test_readers_and_a_writer_exclude_each_other(desk: Desk) -> None:
    desk.granted("reader", mode="shared")
    assert isinstance(desk.ask("writer", wait=False), Busy)
    desk.leave("reader")
    desk.granted("writer")
    assert isinstance(desk.ask("reader 2", wait=False, mode="shared"), Busy)


def test_a_writer_with_room_for_many_still_excludes_readers(desk: Desk) -> None:
    desk.granted("writer", limit=5)
    assert isinstance(desk.ask("reader", wait=False, mode="shared"), Busy)


# --- ghosts -------------------------------------------------------------------------------------


def test_a_lapsed_hold_comes_back_while_nobody_needed_its_place(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    assert desk.live() == []
    assert desk.renew("a", fence) == Extended()
    assert desk.live() == ["a"]


def test_a_lapsed_hold_comes_back_by_asking_with_its_fence(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    assert desk.granted("a") == fence


def test_a_lapsed_hold_is_gone_once_another_was_granted_its_place(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    desk.granted("b")
    desk.leave("b")
    assert desk.renew("a", fence) == desk.gone
    assert desk.bring_back("a", fence) == Refused()


def test_asking_again_after_a_rival_is_another_hold(desk: Desk) -> None:
    old = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    rival = desk.granted("b")
    desk.leave("b")
    new = desk.granted("a")
    assert new > rival > old
    assert desk.renew("a", old) == desk.gone
    assert desk.bring_back("a", old) == Refused()
    assert desk.renew("a", new) == Extended()


def test_a_ghost_stays_while_there_is_room_beside_it(desk: Desk) -> None:
    fence = desk.granted("a", limit=2, lease_ms=SHORT)
    desk.lapse("a")
    desk.granted("b", limit=2)
    assert desk.renew("a", fence) == Extended()
    assert desk.live() == ["a", "b"]


def test_the_oldest_ghost_is_evicted_first(desk: Desk) -> None:
    oldest = desk.granted("a", limit=2, lease_ms=SHORT)
    newer = desk.granted("b", limit=2, lease_ms=SHORT + 100)
    desk.lapse("a", "b")
    desk.granted("c", limit=2)
    assert desk.renew("a", oldest) == desk.gone
    assert desk.renew("b", newer) == Extended()
    assert desk.live() == ["b", "c"]


def test_ghosts_and_holders_together_never_exceed_the_smallest_limit(desk: Desk) -> None:
    fences = {token: desk.granted(token, limit=3, lease_ms=SHORT) for token in "ab"}
    desk.lapse("a", "b")
    desk.granted("c", limit=1)
    assert [desk.renew(token, fences[token]) for token in "ab"] == [desk.gone, desk.gone]


def test_a_ghost_with_a_small_limit_makes_room_for_a_larger_one(desk: Desk) -> None:
    fence = desk.granted("a", limit=1, lease_ms=SHORT)
    desk.lapse("a")
    desk.granted("b", limit=3)
    assert desk.renew("a", fence) == desk.gone


def test_a_writer_evicts_the_ghosts_of_readers(desk: Desk) -> None:
    fences = {t: desk.granted(t, mode="shared", lease_ms=SHORT) for t in "ab"}
    desk.lapse("a", "b")
    desk.granted("writer")
    assert [desk.renew(token, fences[token]) for token in "ab"] == [desk.gone, desk.gone]


def test_a_reader_evicts_the_ghost_of_a_writer_but_not_of_readers(desk: Desk) -> None:
    writer = desk.granted("writer", lease_ms=SHORT)
    desk.lapse("writer")
    reader = desk.granted("r1", mode="shared", lease_ms=SHORT)
    desk.lapse("r1")
    desk.granted("r2", mode="shared")
    assert desk.renew("writer", writer) == desk.gone
    assert desk.renew("r1", reader) == Extended()


def test_a_ghost_is_nobody_that_one_waits_for(desk: Desk) -> None:
    desk.granted("a", limit=2, lease_ms=SHORT)
    desk.lapse("a")
    desk.granted("b", limit=2, lease_ms=LONG)
    answer = desk.ask("c", wait=False, limit=1)
    assert isinstance(answer, Busy)
    assert [seen.token for seen in answer.holders] == ["b"]
    assert answer.next_ms > SHORT


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_answers_each_part_in_its_place(store: Store) -> None:
    desks = [Desk(store, f"r{number}") for number in range(230)]
    fences = [desk.granted("a") for desk in desks]
    for desk in desks[::3]:
        desk.leave("a", tomb_ms=1000, why="forced")
    answers = store.renew([Renew(d.resource, "a", f, LONG) for d, f in zip(desks, fences)])
    expected = [Closed("forced") if number % 3 == 0 else Extended() for number in range(230)]
    assert list(answers) == expected
    for desk in desks[1::3]:
        desk.queued("b")
    beats = store.heartbeat([Beat(desk.resource, "b", LONG) for desk in desks])
    assert [isinstance(beat, Queued) for beat in beats] == [n % 3 == 1 for n in range(230)]


def test_an_empty_batch_is_no_request(store: Store) -> None:
    assert list(store.renew([])) == []
    assert list(store.heartbeat([])) == []


def test_a_batch_may_name_a_resource_twice(desk: Desk) -> None:
    fences = {token: desk.granted(token, limit=2) for token in "ab"}
    renewals = [Renew(desk.resource, token, fence, LONG) for token, fence in fences.items()]
    assert list(desk.store.renew(renewals)) == [Extended(), Extended()]
    for token in "cd":
        desk.queued(token, limit=2)
    beats = desk.store.heartbeat([Beat(desk.resource, token, LONG) for token in "dcz"])
    assert [getattr(beat, "rank", None) for beat in beats] == [1, 0, None]


def test_a_renewal_may_bring_another_record(desk: Desk) -> None:
    fence = desk.granted("a", record="the parent's")
    (answer,) = desk.store.renew([Renew(desk.resource, "a", fence, LONG, record="the child's")])
    assert answer == Extended()
    assert desk.holder("a").record == "the child's"
    assert desk.renew("a", fence) == Extended()
    assert desk.holder("a").record == "the child's"
    (answer,) = desk.store.renew([Renew(desk.resource, "a", fence + 1, LONG, record="another's")])
    assert answer != Extended()
    assert desk.holder("a").record == "the child's"


def test_inspecting_changes_nothing(desk: Desk) -> None:
    desk.granted("a", lease_ms=SHORT)
    desk.queued("b")
    desk.lapse("a")
    for _ in range(3):
        view = desk.view()
        assert [holder.token for holder in view.holders] == ["a"]
        assert [waiter.token for waiter in view.waiters] == ["b"]
    assert isinstance(desk.ask("b"), Granted)
