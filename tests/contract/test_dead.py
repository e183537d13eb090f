"""Ending what dead processes left behind: theirs alone, and whatever they had of it."""

from __future__ import annotations

from typing import List

import pytest

from celery_redlock.core import events
from celery_redlock.core.ports import Closed, Granted, Store
from celery_redlock.core.record import Record
from celery_redlock.locking.oversight import end_for_dead, sweep
from tests.contract.desk import LONG, Desk

ME = Record(host="here", pid=1, since=0.0, worker="celery@here")
DEAD = Record(host="here", pid=7, since=0.0, task="shop.work", task_id="dead")
LIVING = Record(host="here", pid=8, since=0.0, task="shop.work", task_id="living")


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


@pytest.fixture
def said() -> List[events.Event]:
    return []


def end(desk: Desk, said: List[events.Event], token: str, spare_kept: bool = False) -> None:
    end_for_dead(desk.store, said.append, desk.resource, token, ME, DEAD, spare_kept=spare_kept)


def sweep_all(store: Store, said: List[events.Event], within: float = 30.0) -> None:
    sweep(store, said.append, lambda record: record.pid == DEAD.pid, ME, within)


def test_what_a_dead_process_held_goes_to_the_line(desk: Desk, said: List[events.Event]) -> None:
    desk.granted("dead")
    desk.queued("next")
    end(desk, said, "dead")
    assert desk.live() == ["next"]
    assert said == [events.Reclaimed(desk.resource, ME, DEAD)]


def test_a_dead_process_leaves_the_line_without_a_word(
    desk: Desk, said: List[events.Event]
) -> None:
    desk.granted("living")
    desk.queued("dead")
    end(desk, said, "dead")
    assert (desk.live(), desk.line(), said) == (["living"], [], [])


def test_an_ask_that_comes_after_the_death_of_its_asker_is_refused(
    desk: Desk, said: List[events.Event]
) -> None:
    end(desk, said, "dead")
    assert desk.ask("dead") == Closed("dead")
    assert said == []


@pytest.mark.parametrize("spare_kept", [True, False])
def test_what_is_kept_over_a_retry_is_left_to_it_where_that_may_be(
    desk: Desk, said: List[events.Event], spare_kept: bool
) -> None:
    desk.renew("dead", desk.granted("dead"), kept="its retry")
    end(desk, said, "dead", spare_kept)
    assert (desk.live() == ["dead"]) is spare_kept


def test_what_is_not_kept_is_ended_also_where_it_might_have_been(
    desk: Desk, said: List[events.Event]
) -> None:
    desk.granted("dead")
    end(desk, said, "dead", spare_kept=True)
    assert desk.live() == []


def test_a_sweep_ends_whatever_the_dead_have_and_nothing_else(
    store: Store, said: List[events.Event]
) -> None:
    held, lived_in, awaited = Desk(store, "held"), Desk(store, "lived in"), Desk(store, "awaited")
    fence = held.granted("dead", record=DEAD.encode())
    held.queued("next", record=LIVING.encode())
    lived_in.granted("living", record=LIVING.encode())
    lived_in.queued("dead waiter", record=DEAD.encode())
    awaited.granted("nobody's", record="no record of ours")
    sweep_all(store, said)
    assert held.live() == ["next"]
    assert (lived_in.live(), lived_in.line()) == (["living"], [])
    assert awaited.live() == ["nobody's"]
    assert said == [events.Reclaimed("held", ME, DEAD.granted(fence))]


def test_a_sweep_leaves_what_is_kept_over_a_retry(store: Store, said: List[events.Event]) -> None:
    desk = Desk(store)
    fence = desk.granted("dead", record=DEAD.encode())
    desk.renew("dead", fence, kept="its retry", lease_ms=LONG)
    sweep_all(store, said)
    assert desk.live() == ["dead"]
    assert said == []


def test_a_sweep_ends_with_its_time(store: Store, said: List[events.Event]) -> None:
    for number in range(3000):
        Desk(store, f"held {number}").granted("dead", record=DEAD.encode())
    sweep_all(store, said, within=0.0)
    if type(store).__name__ != "MemoryStore":  # which shows everything in one part
        assert 0 < len(said) < 3000


def test_who_came_after_the_dead_was_seen_keeps_what_he_got(
    desk: Desk, said: List[events.Event]
) -> None:
    desk.granted("dead")
    desk.leave("dead")
    assert isinstance(desk.ask("living"), Granted)
    end(desk, said, "dead")
    assert desk.live() == ["living"]
    assert said == []
