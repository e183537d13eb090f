"""A release by force: ended for certain, fenced off, and told to whoever held it."""

from __future__ import annotations

import time
from typing import List, Tuple

import pytest

from celery_redlock.core import events
from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Closed, Granted, HolderView, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.core.timing import LATE_MS
from celery_redlock.core.why import forced_by
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held
from celery_redlock.locking.oversight import force
from tests.contract.conftest import PREFIX, Backend
from tests.contract.desk import Desk, said, until

WHY = forced_by("ops@desk")
TOLD = Closed(WHY)


def forced(desk: Desk, *tokens: str) -> str:
    return desk.leave(*tokens, tomb_ms=LATE_MS, why=WHY)


def test_the_fence_moves_past_the_holder_although_nobody_is_granted(desk: Desk) -> None:
    fence = desk.granted("a")
    assert forced(desk, "a") == "holder"
    view = desk.view()
    assert view.holders == ()
    assert view.fence > fence


def test_the_fence_moves_without_a_tombstone_too(desk: Desk) -> None:
    fence = desk.granted("a")
    assert desk.leave("a", why=WHY) == "holder"
    assert desk.view().fence > fence


def test_the_next_grant_is_above_the_fence_that_was_moved(desk: Desk) -> None:
    desk.granted("a")
    forced(desk, "a")
    moved = desk.view().fence
    assert desk.granted("b") > moved


def test_the_holder_is_told_at_its_next_renewal_or_ask(desk: Desk) -> None:
    fence = desk.granted("a")
    forced(desk, "a")
    assert desk.renew("a", fence) == TOLD
    assert desk.ask("a") == TOLD
    assert desk.live() == []


def test_the_holder_is_told_when_it_tries_to_come_back(desk: Desk) -> None:
    fence = desk.granted("a")
    forced(desk, "a")
    assert desk.bring_back("a", fence) == TOLD
    assert desk.live() == []


def test_the_first_in_line_is_granted_and_woken(store: Store) -> None:
    desk = Desk(store)
    inbox = store.subscribe("in")
    fence = desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    forced(desk, "a")
    assert said(inbox.get(2)) == "G b"
    assert desk.live() == ["b"]
    assert desk.line() == ["c"]
    assert desk.holder("b").fence > fence
    inbox.close()


def test_a_hold_whose_lease_is_over_and_a_kept_one_end_too(desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=100)
    desk.lapse("a")
    assert forced(desk, "a") == "holder"
    assert desk.renew("a", fence) == TOLD
    desk.renew("b", desk.granted("b"), kept="b's retry")
    assert forced(desk, "b") == "holder"
    assert isinstance(desk.ask("c", kept="b's retry"), Granted)


def test_what_holds_nothing_moves_no_fence(desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    fence = desk.view().fence
    assert forced(desk, "stranger") == "absent"
    assert forced(desk, "b") == "waiter"
    assert desk.view().fence == fence
    assert desk.live() == ["a"]


def test_it_is_seen_who_asked_and_when(desk: Desk) -> None:
    desk.granted("a")
    assert desk.view().forced is None
    desk.leave("a", tomb_ms=LATE_MS, why="dead")
    assert desk.view().forced is None
    desk.granted("b")
    forced(desk, "b")
    told = desk.view().forced
    assert told is not None
    assert told.by == "ops@desk"
    assert 0 <= told.ago_ms < 10_000


def test_of_several_the_latest_is_seen(desk: Desk) -> None:
    for token in "abc":
        desk.granted(token)
        desk.leave(token, tomb_ms=LATE_MS, why=forced_by(token))
        time.sleep(0.003)  # the server's clock has milliseconds
    told = desk.view().forced
    assert told is not None
    assert told.by == "c"


def test_nothing_of_it_stays_for_ever(real: Backend) -> None:
    desk = Desk(real.open())
    desk.granted("a")
    desk.leave("a", why=WHY)
    assert real.server is not None
    with real.server.client() as client:
        assert client.pttl(f"{PREFIX}{{desk}}:h") > 0


# --- by the operator's side


def force_all(store: Store, desk: Desk) -> Tuple[Tuple[HolderView, ...], List[events.Event]]:
    told: List[events.Event] = []
    return force(store, told.append, desk.resource, desk.view().holders, "ops@desk"), told


def test_each_holder_that_was_ended_is_reported_with_who_asked(store: Store) -> None:
    desk = Desk(store)
    record = Record(host="h", pid=1, since=2.0, task_id="id")
    desk.granted("a", limit=2, record=record.encode())
    desk.granted("b", limit=2, record="no record")
    released, told = force_all(store, desk)
    assert [holder.token for holder in released] == ["a", "b"]
    assert told == [
        events.Forced("desk", "ops@desk", record),
        events.Forced("desk", "ops@desk", None),
    ]
    assert desk.live() == []


def test_a_holder_that_came_after_the_look_is_left_alone(store: Store) -> None:
    desk = Desk(store)
    desk.granted("a")
    looked_at = desk.view().holders
    desk.leave("a")
    fence = desk.granted("b")
    told: List[events.Event] = []
    assert force(store, told.append, "desk", looked_at, "ops@desk") == ()
    assert told == []
    assert desk.holder("b").fence == fence


def test_the_owner_learns_that_it_was_released_and_by_whom(store: Store) -> None:
    told: List[events.Event] = []
    manager = Manager(store, told.append)
    hold = Hold("desk", Terms(lease_ms=900), Record(host="h", pid=1, since=2.0))
    assert isinstance(manager.acquire(hold), Held)
    force_all(store, Desk(store))
    until(lambda: hold.state is State.LOST, "the owner is told")
    assert hold.why == WHY
    (lost,) = [event for event in told if isinstance(event, events.Lost)]
    assert lost.why == WHY
    manager.release(hold)
    assert Desk(store).live() == []


@pytest.mark.parametrize("by", ["ops@desk", "ünï|co de", "a\\x1b[31m"])
def test_whoever_asks_is_named_as_they_are(store: Store, by: str) -> None:
    desk = Desk(store)
    fence = desk.granted("a")
    desk.leave("a", tomb_ms=LATE_MS, why=forced_by(by))
    assert desk.renew("a", fence) == Closed(forced_by(by))
    told = desk.view().forced
    assert told is not None
    assert told.by == by
