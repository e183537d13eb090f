"""What the events of a hold say, how often, and how old its holder is."""

from __future__ import annotations

import json

import pytest

from celery_redlock.core import events
from celery_redlock.core.ports import Seen
from celery_redlock.core.record import Record
from celery_redlock.locking.outcomes import Patience, Taken, longest
from tests.core.stage import LAPSE, LEASE, Sleeper, Stage


def test_a_grant_after_a_wait_says_so_and_how_long_it_was(stage: Stage) -> None:
    rival = stage.held_by_rival()

    def meanwhile() -> None:
        stage.clock.now += 1.5
        stage.rivals.release(rival)

    stage.wait(meanwhile)
    (waiting,), (acquired,) = stage.told.of(events.Waiting), stage.told.of(events.Acquired)
    assert waiting.holder.task_id == "rival"
    assert (acquired.waited, acquired.queued) == (1.5, True)


def test_a_grant_at_once_says_so(stage: Stage) -> None:
    stage.held()
    (acquired,) = stage.told.of(events.Acquired)
    assert (acquired.waited, acquired.queued) == (0.0, False)


def test_a_waiter_is_told_of_once_however_long_it_waits(stage: Stage) -> None:
    rival = stage.held_by_rival()
    hold = stage.hold()
    naps = 0

    class Naps(Sleeper):
        def wait(self, timeout: float) -> bool:
            nonlocal naps
            naps += 1
            if naps == 20:
                stage.rivals.release(rival)
            return True

    hold.wake = Naps(lambda: None)  # type: ignore[assignment]
    stage.ours.acquire(hold, Patience())
    assert [type(event) for event in stage.told] == [events.Waiting, events.Acquired]


def test_an_outage_during_a_wait_is_told_of_once(stage: Stage) -> None:
    rival = stage.held_by_rival()
    hold = stage.hold()
    naps = 0

    class Naps(Sleeper):
        def wait(self, timeout: float) -> bool:
            nonlocal naps
            naps += 1
            # Out for a while, back once, out once more.
            if naps in range(3, 9) or naps == 12:
                stage.network.faults = ["request lost", "request lost"]
            if naps == 15:
                stage.rivals.release(rival)
            return True

    hold.wake = Naps(lambda: None)  # type: ignore[assignment]
    stage.ours.acquire(hold, Patience())
    assert [(event.servers, event.decision) for event in stage.told.of(events.Unavailable)] == [
        ("server", "wait")
    ] * 2
    assert not stage.told.of(events.Abandoned)


def test_renewals_that_go_on_failing_are_told_of_once_for_each_time_of_trouble(
    stage: Stage,
) -> None:
    stage.held()
    for _ in range(2):
        for _ in range(10):
            stage.renew("request lost", after=LEASE / 3)
        stage.renew()
    trouble = [events.RenewalFailed, events.Unsure, events.Recovered]
    assert [type(event) for event in stage.told] == [events.Acquired, *trouble, *trouble]


def test_a_hold_that_was_gone_when_it_was_released_was_lost_and_not_released(stage: Stage) -> None:
    hold = stage.held()
    stage.clock.now += LAPSE  # paused, say: nobody renews it
    stage.held_by_rival()
    stage.release(hold)
    assert [type(event) for event in stage.told] == [events.Acquired, events.Lost]
    assert stage.told[-1].fence == hold.fence  # type: ignore[union-attr]


def test_a_hold_that_has_lapsed_but_that_nobody_took_is_released(stage: Stage) -> None:
    hold = stage.held()
    stage.clock.now += LAPSE
    stage.release(hold)
    assert [type(event) for event in stage.told] == [events.Acquired, events.Released]


def test_a_release_whose_first_answer_was_lost_is_no_loss(stage: Stage) -> None:
    stage.release(stage.held(), "answer lost")
    assert [type(event) for event in stage.told] == [events.Acquired, events.Released]


def test_a_lost_hold_is_told_of_once_though_it_is_released_after_that(stage: Stage) -> None:
    hold = stage.held()
    stage.forget(hold)
    stage.held_by_rival()
    stage.renew()
    stage.release(hold)
    assert [type(event) for event in stage.told] == [events.Acquired, events.Lost]


def test_a_kept_hold_says_for_how_long_and_its_retry_that_it_has_it(stage: Stage) -> None:
    hold = stage.held()
    stage.ours.keep(hold, "its retry", 10.0)
    stage.release(hold)
    retry = stage.held(kept="its retry")
    assert [type(event) for event in stage.told] == [events.Acquired, events.Kept, events.Acquired]
    assert stage.told.of(events.Kept)[0].left == 10.0 + LEASE
    assert [each.fence for each in stage.told.of(events.Acquired)] == [hold.fence, retry.fence]
    assert hold.fence == retry.fence


# --- records


def test_a_holder_that_had_to_wait_is_as_old_as_its_grant(stage: Stage) -> None:
    rival = stage.held_by_rival()

    def meanwhile() -> None:
        stage.clock.now += LEASE / 2
        stage.rivals.release(rival)

    stage.wait(meanwhile)
    granted_at = stage.clock.server_ms() / 1000
    stage.clock.now += 1.0
    taken = stage.rivals.acquire(stage.hold("third"))
    assert isinstance(taken, Taken)
    holder = longest(taken.holders)
    assert holder is not None
    assert holder.since == pytest.approx(granted_at, abs=0.01)


@pytest.mark.parametrize("fence", [7, 1_700_000_000_000_000])
def test_a_holder_is_never_older_than_its_ask(fence: int) -> None:
    """Whatever its fence: the lock server's clock may be behind."""
    record = Record("here", 1, 1_800_000_000.0)
    assert longest((Seen("token", fence, "confirmed", record.encode()),)) == record


def test_a_record_names_its_worker_and_older_ones_are_read_without() -> None:
    record = Record("here", 7, 1.5, "id", "shop.work", worker="celery@here")
    assert json.loads(record.encode())["w"] == "celery@here"
    assert Record.decode(record.encode()) == record
    older = record._replace(worker=None)
    assert "w" not in json.loads(older.encode())
    assert Record.decode(older.encode()) == older
