"""Holds that come back to a server that does not know them any more."""

from __future__ import annotations

import pytest

from celery_redlock.core.ports import Busy, Closed, Extended, Gone, Granted, Refused
from tests.contract.conftest import Backend
from tests.contract.desk import LONG, SHORT, Desk, until

OLD = 1_000_000  # a fence from before the restart
GRACE = 20.0


@pytest.fixture
def restarted(backend: Backend) -> Desk:
    """One resource of a server that restarted empty a moment ago, in its grace."""
    return Desk(backend.restarted(GRACE))


# --- in the grace -------------------------------------------------------------------------------


def test_a_server_that_restarted_empty_does_not_grant_what_it_does_not_know(
    restarted: Desk,
) -> None:
    answer = restarted.ask("b", wait=False)
    assert isinstance(answer, Busy)
    assert answer.holders == ()
    assert 0 < answer.next_ms <= GRACE * 1000
    place = restarted.queued("b")
    assert 0 < place.next_ms <= GRACE * 1000


def test_a_holder_that_trusts_comes_back_with_its_fence(restarted: Desk) -> None:
    assert restarted.renew("a", OLD) == Gone()
    assert restarted.bring_back("a", OLD) == Extended()
    assert restarted.holder("a").fence == OLD
    assert restarted.renew("a", OLD) == Extended()
    assert isinstance(restarted.ask("b", wait=False), Busy)


def test_a_holder_whose_trust_is_over_does_not_come_back(restarted: Desk) -> None:
    assert restarted.bring_back("a", OLD, trusted=False) == Refused()
    assert restarted.view().holders == ()


def test_of_two_that_think_they_hold_it_the_second_is_refused(restarted: Desk) -> None:
    assert restarted.bring_back("a", OLD) == Extended()
    assert restarted.bring_back("b", OLD + 1) == Refused()


def test_holders_of_a_limit_do_not_refuse_each_other(restarted: Desk) -> None:
    for token, fence in [("b", OLD + 1), ("a", OLD), ("c", OLD + 2)]:
        assert restarted.bring_back(token, fence, limit=3) == Extended()
    assert restarted.live() == ["a", "b", "c"]
    assert restarted.bring_back("d", OLD + 3, limit=3) == Refused()


def test_readers_come_back_beside_each_other_and_a_writer_does_not(restarted: Desk) -> None:
    for token in "ab":
        assert restarted.bring_back(token, OLD, mode="shared") == Extended()
    assert restarted.bring_back("writer", OLD + 1) == Refused()


def test_one_that_came_back_and_left_admits_nobody_while_others_may_come(restarted: Desk) -> None:
    for token, fence in [("a", OLD + 1), ("b", OLD)]:
        assert restarted.bring_back(token, fence, mode="shared") == Extended()
        assert restarted.leave(token) == "holder"
        assert isinstance(restarted.ask("writer", wait=False), Busy)


def test_coming_back_twice_is_coming_back_once(restarted: Desk) -> None:
    for _ in range(2):
        assert restarted.bring_back("a", OLD) == Extended()
    assert restarted.live() == ["a"]


def test_a_forced_release_also_counts_for_one_that_comes_back(restarted: Desk) -> None:
    restarted.leave("a", tomb_ms=LONG, why="forced")
    assert restarted.bring_back("a", OLD) == Closed("forced")


def test_a_waiter_of_the_grace_is_granted_when_it_is_over(backend: Backend) -> None:
    desk = Desk(backend.restarted(restart_grace=1.0))
    desk.queued("b")
    until(lambda: isinstance(desk.ask("b"), Granted), "the grace ends")
    assert desk.live() == ["b"]


def test_nobody_passes_those_who_waited_through_the_grace(backend: Backend) -> None:
    store = backend.restarted(restart_grace=1.0)
    desk, clock = Desk(store), Desk(store, "a clock")
    desk.queued("b")
    until(lambda: isinstance(clock.ask("tick", wait=False), Granted), "the grace ends")
    assert isinstance(desk.ask("newcomer", wait=False), Busy)
    assert desk.live() == ["b"]


def test_nobody_passes_them_by_not_knowing_of_the_grace(real: Backend) -> None:
    desk = Desk(real.restarted(restart_grace=GRACE))
    desk.queued("b")
    assert isinstance(Desk(real.open()).ask("newcomer", wait=False), Busy)
    assert desk.live() == ["b"]


def test_after_the_grace_nobody_comes_back_to_an_empty_server(backend: Backend) -> None:
    desk = Desk(backend.restarted(restart_grace=1.0))
    other = Desk(desk.store, "other")
    until(lambda: isinstance(other.ask("b", wait=False), Granted), "the grace ends")
    assert desk.bring_back("a", OLD) == Refused()


def test_after_the_grace_fences_go_on_above_one_that_came_back(backend: Backend) -> None:
    desk = Desk(backend.restarted(restart_grace=3.0))
    ahead = 8_000_000_000_000_000  # a fence from a clock that ran ahead
    assert desk.bring_back("a", ahead) == Extended()
    desk.leave("a")
    until(lambda: isinstance(desk.ask("b", wait=False), Granted), "the grace ends")
    assert desk.granted("b") == ahead + 1


# --- without a restart --------------------------------------------------------------------------


def test_without_grace_an_empty_server_takes_nobody_back(desk: Desk) -> None:
    assert desk.bring_back("a", OLD) == Refused()
    assert desk.view().holders == ()


def test_a_hold_comes_back_if_nobody_was_granted_the_place(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a")
    assert desk.bring_back("a", fence, trusted=False) == Extended()
    assert desk.holder("a").fence == fence
    assert desk.renew("a", fence) == Extended()


def test_a_hold_does_not_come_back_after_a_rival_whose_hold_is_over(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a")
    desk.granted("b")
    desk.leave("b")
    assert desk.bring_back("a", fence) == Refused()
    assert desk.view().holders == ()


def test_a_hold_comes_back_only_without_evicting_anybody(desk: Desk) -> None:
    first = desk.granted("a", lease_ms=SHORT)
    desk.lapse("a")
    assert desk.bring_back("b", first + 1) == Refused()
    assert desk.renew("a", first) == Extended()


def test_a_fence_that_came_back_counts_though_it_was_not_issued_here(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.leave("a")
    ahead = 8_000_000_000_000_000
    assert desk.bring_back("b", ahead) == Extended()
    assert desk.view().fence == fence
    desk.leave("b")
    assert desk.granted("c") == ahead + 1
