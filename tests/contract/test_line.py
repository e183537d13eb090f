"""The line of a busy resource: its order, its bounds, its wake-ups."""

from __future__ import annotations

from typing import Iterator, List

import pytest

from celery_redlock.core.ports import (
    Beat,
    Busy,
    Closed,
    Confirm,
    Message,
    Queued,
    Store,
    Subscription,
    Unknown,
)
from celery_redlock.core.record import Record
from tests.contract.desk import LONG, SHORT, Desk, said

HEARD_WITHIN = 5.0
NOTHING_WITHIN = 0.05


class Ear:
    """Hears one inbox."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def hears(self, *expected: str) -> None:
        """Exactly these messages, in any order, and nothing more."""
        heard: List[str] = []
        while len(heard) < len(expected):
            text = self._subscription.get(HEARD_WITHIN)
            assert text is not None, f"expected {expected}, heard {heard}"
            heard.append(said(text) or "")
        assert sorted(heard) == sorted(expected)
        self.hears_nothing()

    def hears_nothing(self) -> None:
        assert self._subscription.get(NOTHING_WITHIN) is None


@pytest.fixture
def ear(store: Store) -> Iterator[Ear]:
    subscription = store.subscribe("in")
    yield Ear(subscription)
    subscription.close()


# --- order --------------------------------------------------------------------------------------


def test_waiters_stand_in_the_order_they_came(desk: Desk) -> None:
    fence = desk.granted("a")
    places = [desk.queued(token) for token in "bcd"]
    assert [place.rank for place in places] == [0, 1, 2]
    assert [place.seq for place in places] == sorted({place.seq for place in places})
    assert {place.holders for place in places} == {(("a", fence, "confirmed", "record of a"),)}
    assert all(0 < place.next_ms <= LONG for place in places)
    assert desk.line() == ["b", "c", "d"]


def test_asking_again_keeps_the_place(desk: Desk) -> None:
    desk.granted("a")
    first, _ = desk.queued("b"), desk.queued("c")
    again = desk.queued("b")
    assert (again.seq, again.rank) == (first.seq, 0)
    assert desk.line() == ["b", "c"]


def test_a_place_in_line_names_the_longest_holder_and_at_the_head_all(desk: Desk) -> None:
    for token in "ab":
        desk.granted(token, limit=2)
    assert [seen.token for seen in desk.queued("c", limit=2).holders] == ["a", "b"]
    assert [seen.token for seen in desk.queued("d", limit=2).holders] == ["a"]


def test_a_release_grants_the_head_before_anybody_asks(desk: Desk) -> None:
    old = desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    desk.leave("a")
    holder = desk.holder("b")
    assert (holder.state, holder.record) == ("granted", "record of b")
    assert holder.fence > old
    assert desk.line() == ["c"]
    assert desk.granted("b") == holder.fence
    assert desk.holder("b").state == "confirmed"


def test_nobody_passes_the_line(desk: Desk) -> None:
    desk.granted("a", lease_ms=SHORT)
    desk.queued("b")
    desk.queued("c")
    desk.lapse("a")
    answer = desk.ask("newcomer", wait=False)
    assert isinstance(answer, Busy)
    assert answer.waiting == 1
    assert desk.live() == ["b"]


def test_a_waiter_whose_head_lapses_gets_it_by_asking(desk: Desk) -> None:
    desk.granted("a", lease_ms=SHORT)
    desk.queued("b")
    desk.lapse("a")
    desk.granted("b")


def test_a_rejoin_takes_its_old_place(desk: Desk) -> None:
    desk.granted("a")
    place = desk.queued("b")
    desk.queued("c")
    assert desk.leave("b") == "waiter"
    assert desk.beat("b") == Unknown()
    again = desk.queued("b again", seq=place.seq)
    assert (again.rank, again.seq) == (0, place.seq)
    assert desk.line() == ["b again", "c"]


def test_a_newcomer_stands_behind_one_whose_place_is_from_a_clock_ahead(desk: Desk) -> None:
    ahead = 8_000_000_000_000_000
    desk.granted("a")
    desk.queued("b", seq=ahead)
    assert desk.queued("c").seq == ahead + 1
    assert desk.line() == ["b", "c"]


def test_leaving_the_line_lets_the_next_move_up(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    assert desk.leave("b") == "waiter"
    assert desk.queued("c").rank == 0
    desk.leave("a")
    assert desk.live() == ["c"]


def test_a_grant_that_raced_a_cancellation_is_passed_on(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    desk.leave("a")
    assert desk.leave("b") == "holder"
    assert desk.live() == ["c"]


def test_a_grant_that_nobody_confirms_ends_soon(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", grant_ttl_ms=SHORT)
    desk.queued("c")
    desk.leave("a")
    desk.lapse("b")
    assert desk.beat("c") == Confirm()


def test_a_renewal_confirms_a_grant(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", grant_ttl_ms=SHORT)
    desk.leave("a")
    desk.renew("b", desk.holder("b").fence)
    assert desk.holder("b").state == "confirmed"
    assert desk.holder("b").remaining_ms > LONG / 2


# --- heartbeats ---------------------------------------------------------------------------------


def test_a_heartbeat_tells_the_place(desk: Desk) -> None:
    desk.granted("a")
    places = [desk.queued(token) for token in "bc"]
    beats = [desk.beat(token) for token in "bc"]
    for beat, place in zip(beats, places):
        assert isinstance(beat, Queued)
        assert (beat.seq, beat.rank) == (place.seq, place.rank)
        assert 0 < beat.next_ms <= LONG


def test_a_heartbeat_names_the_longest_holder_to_the_first_that_it_is_for(store: Store) -> None:
    desks = Desk(store, "one"), Desk(store, "other")
    for desk in desks:
        desk.granted("a", limit=2)
        desk.granted("b", limit=2)
        for token in ("head", "c", "d"):
            desk.queued(token, limit=2)
    beats = [Beat(desk.resource, token, LONG) for desk in desks for token in ("c", "head", "d")]
    answers = store.heartbeat(beats)
    told = [[seen.token for seen in getattr(answer, "holders", ())] for answer in answers]
    # Of a cluster each may be asked about by itself.
    lasts = [told.pop(5), told.pop(2)]
    assert told == 2 * [["a"], ["a", "b"]]
    assert all(last in ([], ["a"]) for last in lasts)


def test_a_heartbeat_never_adds_a_waiter(desk: Desk) -> None:
    desk.granted("a")
    assert desk.beat("b") == Unknown()
    assert desk.line() == []


def test_a_heartbeat_tells_a_grant_whose_message_was_lost(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.leave("a")
    assert desk.beat("b") == Confirm()
    assert desk.holder("b").state == "granted"


def test_any_heartbeat_lets_the_line_move(desk: Desk) -> None:
    desk.granted("a", lease_ms=SHORT)
    desk.queued("b")
    desk.queued("c")
    desk.lapse("a")
    beat = desk.beat("c")
    assert isinstance(beat, Queued)
    assert beat.rank == 0
    assert desk.live() == ["b"]


def test_a_silent_waiter_loses_its_place(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("dead", waiter_ttl_ms=SHORT)
    desk.queued("b")
    desk.lapse("dead")
    desk.leave("a")
    assert desk.live() == ["b"]
    assert desk.beat("dead") == Unknown()


def test_a_heartbeat_keeps_a_waiter_alive(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", waiter_ttl_ms=SHORT)
    desk.queued("c", waiter_ttl_ms=SHORT)
    desk.beat("b", LONG)
    desk.lapse("c")
    desk.leave("a")
    assert desk.live() == ["b"]


def test_a_silent_head_that_asks_at_last_is_alive_again(desk: Desk) -> None:
    desk.granted("a", lease_ms=2 * SHORT)
    desk.queued("b", waiter_ttl_ms=SHORT)
    desk.queued("c")
    desk.lapse("b")
    desk.lapse("a")
    desk.granted("b")
    assert desk.line() == ["c"]


def test_a_patient_waiter_outlives_the_silence_of_a_hasty_one(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("patient")
    desk.queued("hasty", waiter_ttl_ms=SHORT)
    desk.beat("hasty", SHORT)
    clock = Desk(desk.store, "a clock")
    clock.granted("tick", lease_ms=3 * SHORT)
    clock.lapse("tick")
    desk.leave("a")
    assert desk.live() == ["patient"]


# --- readers and writers, limits ----------------------------------------------------------------


def test_a_waiting_writer_is_not_starved_by_readers(desk: Desk) -> None:
    desk.granted("r1", mode="shared")
    desk.queued("writer")
    assert desk.queued("r2", mode="shared").rank == 1
    assert isinstance(desk.ask("r3", mode="shared", wait=False), Busy)
    desk.leave("r1")
    assert desk.live() == ["writer"]
    desk.leave("writer")
    assert desk.live() == ["r2"]


def test_a_release_wakes_the_leading_readers_up_to_the_next_writer(desk: Desk, ear: Ear) -> None:
    desk.granted("writer")
    for token, mode in [("r1", "shared"), ("r2", "shared"), ("w", "exclusive"), ("r3", "shared")]:
        desk.queued(token, mode=mode)
    desk.leave("writer")
    assert desk.live() == ["r1", "r2"]
    assert desk.line() == ["w", "r3"]
    ear.hears("G r1", "G r2", "H w")


def test_a_release_grants_as_many_as_fit(desk: Desk) -> None:
    desk.granted("a", limit=1)
    for token in "bcde":
        desk.queued(token, limit=3)
    desk.leave("a")
    assert desk.live() == ["b", "c", "d"]
    assert desk.line() == ["e"]


def test_confirming_lets_another_in_that_fits(desk: Desk) -> None:
    """Else a head that fits would wait for a heartbeat."""
    for token in "ab":
        desk.granted(token, limit=2, lease_ms=LONG if token == "a" else SHORT)
    desk.queued("c", limit=2)
    desk.lapse("b")
    desk.granted("a", limit=2)
    assert desk.live() == ["a", "c"]


def test_strict_order_a_small_one_behind_does_not_pass_a_large_one(desk: Desk) -> None:
    desk.granted("a", limit=2)
    desk.queued("alone", limit=1)
    assert desk.queued("b", limit=2).rank == 1
    assert desk.live() == ["a"]


def test_a_reader_that_rejoins_before_a_writer_is_granted_at_once(desk: Desk) -> None:
    desk.granted("r1", mode="shared")
    place = desk.queued("writer")
    desk.granted("r2", mode="shared", seq=place.seq - 1)
    assert desk.live() == ["r1", "r2"]
    assert desk.line() == ["writer"]


# --- bounds -------------------------------------------------------------------------------------


def test_a_full_line_takes_no_more(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.queued("b", max_waiting=1)
    answer = desk.ask("c", max_waiting=1)
    assert isinstance(answer, Busy)
    assert (answer.full, answer.waiting) == (True, 1)
    assert answer.holders == (("a", fence, "confirmed", "record of a"),)
    assert desk.line() == ["b"]


def test_who_is_in_a_full_line_keeps_its_place(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", max_waiting=1)
    assert desk.queued("b", max_waiting=1).rank == 0


def test_dead_waiters_do_not_fill_a_line(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", max_waiting=2)
    desk.queued("dead", max_waiting=2, waiter_ttl_ms=SHORT)
    desk.lapse("dead")
    assert desk.queued("c", max_waiting=2).rank == 1
    assert desk.line() == ["b", "c"]


def test_the_oldest_makes_way_for_the_newest(desk: Desk, ear: Ear) -> None:
    desk.granted("a")
    desk.queued("b", max_waiting=2, overflow="drop_oldest")
    desk.queued("c", max_waiting=2, overflow="drop_oldest")
    assert desk.queued("d", max_waiting=2, overflow="drop_oldest").rank == 1
    assert desk.line() == ["c", "d"]
    ear.hears("O b", "H c")
    assert desk.beat("b") == Closed("overflow")
    assert desk.ask("b") == Closed("overflow")


def test_the_dropped_one_is_told_which_task_took_its_place(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", max_waiting=1, overflow="drop_oldest")
    newcomer = Record(host='"id":"no"', pid=1, since=0.0, task='"id":"nor this"', task_id="c's")
    desk.queued("c", max_waiting=1, overflow="drop_oldest", record=newcomer.encode())
    assert desk.ask("b") == Closed("overflow by c's")


def test_a_full_line_does_not_refuse_who_comes_back(desk: Desk) -> None:
    desk.granted("a")
    place = desk.queued("b", max_waiting=1)
    desk.leave("b")
    desk.queued("c", max_waiting=1)
    assert desk.queued("b again", max_waiting=1, seq=place.seq).rank == 0
    assert desk.line() == ["b again", "c"]


def test_who_comes_back_does_not_drop_the_newer(desk: Desk) -> None:
    latest = {"max_waiting": 1, "overflow": "drop_oldest"}
    desk.granted("a")
    place = desk.queued("b", **latest)
    desk.leave("b")
    newcomer = Record(host="h", pid=1, since=0.0, task_id="c's").encode()
    desk.queued("c", record=newcomer, **latest)
    assert desk.ask("b again", seq=place.seq, **latest) == Closed("overflow by c's")
    assert desk.line() == ["c"]


def test_several_make_way_for_one_with_a_smaller_bound(desk: Desk, ear: Ear) -> None:
    desk.granted("a")
    for token in "bcd":
        desk.queued(token)
    desk.queued("e", max_waiting=1, overflow="drop_oldest")
    assert desk.line() == ["e"]
    ear.hears("O b", "O c", "O d", "H e")


def test_dropping_the_writer_at_the_head_lets_readers_in(desk: Desk, ear: Ear) -> None:
    desk.granted("r1", mode="shared")
    desk.queued("writer")
    desk.queued("r2", mode="shared")
    desk.granted("r3", mode="shared", max_waiting=2, overflow="drop_oldest")
    assert desk.live() == ["r1", "r2", "r3"]
    ear.hears("O writer", "G r2", "G r3")


# --- wake-ups -----------------------------------------------------------------------------------


def test_a_release_wakes_one_waiter_and_tells_the_next_that_it_is_the_head(
    desk: Desk, ear: Ear
) -> None:
    desk.granted("a")
    for token in "bcd":
        desk.queued(token)
    ear.hears_nothing()
    for holder, woken, head in (("a", "b", "c"), ("b", "c", "d")):
        desk.leave(holder)
        ear.hears(f"G {woken}", f"H {head}")
        desk.granted(woken)
    desk.leave("c")
    ear.hears("G d")
    desk.leave("d")
    ear.hears_nothing()


def test_a_wake_up_says_what_was_granted_and_when(desk: Desk) -> None:
    subscription = desk.store.subscribe("in")
    desk.granted("a")
    place = desk.queued("b")
    desk.leave("a")
    message = Message.read(subscription.get(HEARD_WITHIN) or "")
    assert (message.kind, message.token) == ("G", "b")
    assert message.fence == desk.holder("b").fence
    assert place.at_ms <= message.at_ms <= place.at_ms + 10_000
    subscription.close()


def test_the_head_that_leaves_the_line_has_the_next_told(desk: Desk, ear: Ear) -> None:
    desk.granted("a")
    for token in "bcd":
        desk.queued(token)
    desk.leave("c")
    ear.hears_nothing()
    desk.leave("b")
    ear.hears("H d")


def test_the_head_is_told_that_a_kept_hold_has_another_owner(desk: Desk, ear: Ear) -> None:
    fence = desk.granted("a")
    desk.renew("a", fence, kept="a's retry")
    assert [seen.token for seen in desk.queued("b").holders] == ["a"]
    assert desk.granted("a again", kept="a's retry") == fence
    ear.hears("H b")


def test_a_message_reaches_its_own_inbox_only(store: Store) -> None:
    desk = Desk(store)
    mine, other = store.subscribe("mine"), store.subscribe("other")
    desk.granted("a")
    desk.queued("b", inbox="mine")
    desk.leave("a")
    Ear(mine).hears("G b")
    Ear(other).hears_nothing()
    mine.close()
    other.close()


def test_a_release_without_waiters_sends_nothing(desk: Desk, ear: Ear) -> None:
    desk.granted("a")
    desk.leave("a")
    ear.hears_nothing()


def test_an_inbox_can_be_closed_and_opened_again(store: Store) -> None:
    desk = Desk(store)
    store.subscribe("in").close()
    desk.granted("a")
    desk.queued("b")
    again = store.subscribe("in")
    desk.leave("a")
    Ear(again).hears("G b")
    again.close()
