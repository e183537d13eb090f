"""A hold kept over its task's retry."""

from __future__ import annotations

from celery_redlock.core.ports import Busy, Extended
from tests.contract.desk import LONG, SHORT, Desk

NAME = "task-id/1"


def keep(desk: Desk, token: str = "a", lease_ms: int = LONG) -> int:
    fence = desk.granted(token)
    assert desk.renew(token, fence, lease_ms=lease_ms, kept=NAME) == Extended()
    return fence


def test_a_kept_hold_blocks_everybody_else(desk: Desk) -> None:
    keep(desk)
    assert desk.holder("a").state == "kept"
    assert isinstance(desk.ask("b", wait=False), Busy)
    assert isinstance(desk.ask("b", wait=False, kept="task-id/2"), Busy)
    assert isinstance(desk.ask("b", wait=False, kept="another/1"), Busy)


def test_the_retry_takes_it_over_with_its_fence(desk: Desk) -> None:
    fence = keep(desk)
    assert desk.granted("b", kept=NAME) == fence
    holder = desk.holder("b")
    assert (holder.state, holder.record) == ("confirmed", "record of b")
    assert desk.live() == ["b"]


def test_a_second_copy_of_the_retrys_request_is_the_same_hold(desk: Desk) -> None:
    fence = keep(desk)
    for _ in range(2):
        assert desk.granted("b", kept=NAME) == fence
    assert desk.live() == ["b"]


def test_only_one_takes_it_over(desk: Desk) -> None:
    keep(desk)
    desk.granted("b", kept=NAME)
    assert isinstance(desk.ask("c", kept=NAME, wait=False), Busy)


def test_the_retry_passes_the_line(desk: Desk) -> None:
    fence = keep(desk)
    desk.queued("waiter")
    assert desk.granted("b", kept=NAME) == fence
    assert desk.line() == ["waiter"]


def test_who_holds_already_takes_nothing_over(desk: Desk) -> None:
    kept, own = desk.granted("a", limit=2), desk.granted("b", limit=2)
    desk.renew("a", kept, kept=NAME)
    assert desk.granted("b", limit=2, kept=NAME) == own
    assert desk.live() == ["a", "b"]


def test_the_old_token_has_nothing_left_of_it(desk: Desk) -> None:
    fence = keep(desk)
    desk.granted("b", kept=NAME)
    assert desk.renew("a", fence) == desk.gone
    assert desk.leave("a") == "absent"
    assert desk.live() == ["b"]


def test_a_late_renewal_does_not_make_a_kept_hold_an_ordinary_one(desk: Desk) -> None:
    fence = keep(desk)
    assert desk.renew("a", fence) == Extended()
    assert desk.holder("a").state == "kept"
    assert desk.granted("b", kept=NAME) == fence


def test_a_lapsed_kept_hold_is_taken_over_while_nobody_needed_its_place(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    desk.renew("a", fence, lease_ms=SHORT, kept=NAME)
    desk.lapse("a")
    assert desk.granted("b", kept=NAME) == fence
    assert desk.live() == ["b"]


def test_a_retry_that_comes_too_late_queues_like_anybody(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    desk.renew("a", fence, lease_ms=SHORT, kept=NAME)
    desk.lapse("a")
    desk.granted("rival")
    assert desk.queued("b", kept=NAME).rank == 0


def test_a_kept_hold_can_be_released_by_its_token(desk: Desk) -> None:
    keep(desk)
    assert desk.leave("a") == "holder"
    desk.granted("b")


def test_who_takes_a_kept_hold_over_is_no_longer_in_line(desk: Desk) -> None:
    fence = desk.granted("a")
    desk.queued("b", kept=NAME)
    desk.renew("a", fence, kept=NAME)
    assert desk.granted("b", kept=NAME) == fence
    assert desk.line() == []
    desk.leave("b")
    assert desk.view().holders == ()
