"""A request may run twice, late, or after what overtook it: it does no harm."""

from __future__ import annotations

from celery_redlock.core.ports import Busy, Closed, Confirm, Extended, Unknown
from tests.contract.desk import LONG, SHORT, Desk, said

LATE = 60_000


# --- tombstones ---------------------------------------------------------------------------------


def test_a_late_copy_of_a_request_does_not_revive_a_released_hold(desk: Desk) -> None:
    desk.granted("a")
    assert desk.leave("a", tomb_ms=LATE) == "holder"
    assert desk.ask("a") == Closed("left")
    assert desk.ask("a", wait=False) == Closed("left")
    assert desk.view().holders == ()
    assert desk.line() == []


def test_a_release_that_overtakes_its_request_still_counts(desk: Desk) -> None:
    assert desk.leave("a", tomb_ms=LATE) == "absent"
    assert desk.ask("a") == Closed("left")
    desk.granted("b")


def test_a_late_copy_does_not_rejoin_the_line(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    assert desk.leave("b", tomb_ms=LATE) == "waiter"
    assert desk.ask("b") == Closed("left")
    assert desk.beat("b") == Closed("left")
    assert desk.line() == []


def test_a_late_copy_of_a_buried_token_lets_the_line_move(desk: Desk) -> None:
    desk.leave("buried", tomb_ms=LATE)
    desk.granted("a", lease_ms=SHORT)
    desk.queued("b")
    desk.lapse("a")
    assert desk.ask("buried") == Closed("left")
    assert desk.live() == ["b"]


def test_a_tombstone_tells_its_holder_why(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a", tomb_ms=LATE, why="forced")
    assert desk.renew("a", fence) == Closed("forced")
    assert desk.ask("a") == Closed("forced")


def test_a_tombstone_tells_who_comes_back_why(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a", tomb_ms=LATE, why="forced")
    assert desk.bring_back("a", fence) == Closed("forced")
    assert desk.beat("a") == Closed("forced")


def test_the_first_reason_stays(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a", tomb_ms=LATE, why="forced")
    desk.leave("a", tomb_ms=LATE, why="left")
    assert desk.renew("a", fence) == Closed("forced")


def test_a_tombstone_ends(desk: Desk) -> None:
    desk.leave("a", tomb_ms=SHORT)
    clock = Desk(desk.store, "a clock")
    clock.granted("tick", lease_ms=2 * SHORT)
    assert desk.ask("a") == Closed("left")
    clock.lapse("tick")
    desk.granted("a")


def test_a_tombstone_buries_one_token_only(desk: Desk) -> None:
    desk.granted("a")
    desk.leave("a", tomb_ms=LATE)
    desk.granted("b")


def test_a_release_of_several_tokens_answers_for_the_first(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    assert desk.leave("z", "b", tomb_ms=LATE) == "absent"
    assert desk.leave("a", "z") == "holder"
    assert desk.ask("b") == Closed("left")
    assert desk.view().holders == ()


def test_a_late_release_of_an_old_hold_leaves_the_new_one_alone(desk: Desk) -> None:
    desk.granted("a")
    desk.leave("a")
    desk.granted("b")
    assert desk.leave("a", tomb_ms=LATE) == "absent"
    assert desk.live() == ["b"]


# --- orphans ------------------------------------------------------------------------------------


def test_what_a_process_left_behind_is_replaced_in_the_same_request(desk: Desk) -> None:
    old = desk.granted("orphan")
    assert desk.granted("a", orphans=("orphan",)) > old
    assert desk.live() == ["a"]
    assert desk.ask("orphan") == Closed("replaced")
    assert desk.renew("orphan", old) == Closed("replaced")


def test_the_room_of_an_orphan_goes_to_the_line_first(desk: Desk) -> None:
    desk.granted("orphan")
    desk.queued("b")
    assert desk.queued("a", orphans=("orphan",)).rank == 0
    assert desk.live() == ["b"]


def test_an_orphan_that_never_arrived_is_buried_too(desk: Desk) -> None:
    desk.granted("a", orphans=("never seen", "nor this"))
    desk.leave("a")
    assert desk.ask("never seen") == Closed("replaced")
    assert desk.ask("nor this") == Closed("replaced")


def test_an_orphan_leaves_the_line(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("orphan")
    desk.queued("b", orphans=("orphan",))
    assert desk.line() == ["b"]


def test_orphans_are_dropped_though_the_request_itself_is_answered_at_once(desk: Desk) -> None:
    desk.granted("orphan", limit=2)
    desk.granted("a", limit=2)
    desk.queued("b", limit=2)
    desk.granted("a", limit=2, orphans=("orphan",))
    assert desk.live() == ["a", "b"]


def test_orphans_are_dropped_by_a_token_that_is_itself_dead(desk: Desk) -> None:
    desk.granted("orphan")
    desk.queued("b")
    desk.leave("a", tomb_ms=LATE)
    assert desk.ask("a", orphans=("orphan",)) == Closed("left")
    assert desk.live() == ["b"]


# --- copies of a single ask, of a join ----------------------------------------------------------


def test_a_late_copy_that_asks_once_does_not_harm_the_place_taken_since(desk: Desk) -> None:
    desk.granted("a")
    assert isinstance(desk.ask("b", wait=False), Busy)
    desk.queued("b", inbox="in")
    desk.queued("c")
    desk.ask("b", wait=False)
    assert desk.line() == ["b", "c"]
    assert min(waiter.remaining_ms for waiter in desk.view().waiters) > LONG / 2
    subscription = desk.store.subscribe("in")
    desk.leave("a")
    assert said(subscription.get(5)) == "G b"
    subscription.close()


def test_a_late_copy_that_asks_once_for_a_silent_waiter_is_busy_or_in_line(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", waiter_ttl_ms=SHORT)
    desk.queued("c")
    desk.lapse("b")
    assert isinstance(desk.ask("b", wait=False), Busy)
    assert desk.line() == ["c"]


def test_a_late_copy_of_a_join_confirms_what_was_granted_since(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.leave("a")
    fence = desk.holder("b").fence
    assert desk.granted("b") == fence
    assert desk.granted("b") == fence
    assert desk.line() == []


def test_a_late_heartbeat_does_not_bring_a_cancelled_waiter_back(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.leave("b")
    assert desk.beat("b") == Unknown()
    assert desk.line() == []
    desk.leave("a")
    assert desk.view().holders == ()


def test_a_late_renewal_does_not_bring_a_released_hold_back(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a")
    assert desk.renew("a", fence) == desk.gone
    assert desk.view().holders == ()


def test_a_late_renewal_of_an_earlier_hold_does_not_extend_the_later_one(desk: Desk) -> None:
    old = desk.granted("a")
    desk.leave("a")
    desk.granted("a", lease_ms=1000)
    assert desk.renew("a", old) == desk.gone
    assert desk.holder("a").remaining_ms <= 1000


# --- every request twice ------------------------------------------------------------------------


def test_every_request_answers_the_same_when_it_is_sent_twice(desk: Desk) -> None:
    fence = desk.granted("a")
    assert desk.granted("a") == fence
    place = desk.queued("b")
    again = desk.queued("b")
    assert (again.seq, again.rank, again.holders) == (place.seq, place.rank, place.holders)
    assert [desk.renew("a", fence) for _ in range(2)] == [Extended(), Extended()]
    assert [desk.bring_back("a", fence) for _ in range(2)] == [Extended(), Extended()]
    assert [desk.leave("a") for _ in range(2)] == ["holder", "absent"]
    assert [desk.beat("b") for _ in range(2)] == [Confirm(), Confirm()]
    assert desk.live() == ["b"]


def test_a_second_copy_of_a_release_takes_nothing_from_the_next_holder(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    for _ in range(3):
        desk.leave("a", tomb_ms=LATE)
    assert desk.live() == ["b"]
    assert desk.line() == ["c"]
