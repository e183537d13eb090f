"""Whether a round looks for answers without sleeping: only where they come at once."""

from __future__ import annotations

from celery_redlock.store.round import Pace

SOON, LATE = 0.00005, 0.001


def test_a_first_answer_is_slept_for() -> None:
    assert Pace(may_stay_awake=True).awake == 0.0


def test_near_servers_are_awaited_without_sleeping_for_a_moment() -> None:
    pace = Pace(may_stay_awake=True)
    pace.took(SOON)
    assert SOON < pace.awake < LATE


def test_servers_that_were_late_are_slept_for_again() -> None:
    pace = Pace(may_stay_awake=True)
    pace.took(SOON)
    pace.took(LATE)
    assert pace.awake == 0.0


def test_other_greenlets_are_never_kept_waiting() -> None:
    pace = Pace(may_stay_awake=False)
    pace.took(SOON)
    assert pace.awake == 0.0
