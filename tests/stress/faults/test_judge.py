"""The judge of the fault runs tells silent overlaps and losses without a reason, and only those."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import pytest

from examples.demo.bodylog import Body
from tests.stress.faults.app import SECOND
from tests.stress.faults.judge import Belief, Diaries, Harm, Interruption, Judge
from tests.stress.faults.mail import Event
from tests.stress.faults.plan import LEASE, draw
from tests.stress.faults.turns import DEATHS, ENDS, LOCKS, MEAN, ORDER, Turns, Waits

STALE, RIVAL = 1, 2


def body(pid: int, start: float, end: Optional[float], fence: Optional[int] = None) -> Body:
    ended = None if end is None else int(end * SECOND)
    return Body("r", int(start * SECOND), ended, pid, None, fence or pid, False)


def belief(until: float, lost: bool = False) -> Belief:
    moment = int(until * SECOND)
    return Belief(moment, (moment,) if lost else ())


def stopped(begin: float, end: float, pid: Optional[int] = STALE) -> Harm:
    return Harm("stopped", int(begin * SECOND), int(end * SECOND), pid)


def judged(
    bodies: List[Body],
    beliefs: Dict[int, Belief],
    harms: Any = (),
    deaths: Optional[Dict[int, int]] = None,
    interruptions: Sequence[Interruption] = (),
) -> List[str]:
    diaries = Diaries({("r", fence): told for fence, told in beliefs.items()}, (), interruptions)
    return Judge(bodies, diaries, deaths or {}, harms).faults()


def test_one_body_after_the_other_is_no_fault() -> None:
    assert not judged([body(STALE, 0, 1), body(RIVAL, 1, 2)], {1: belief(2.9), 2: belief(3)})


def test_a_body_that_trusted_its_lock_when_the_next_began_is_told() -> None:
    bodies = [body(STALE, 0, 3), body(RIVAL, 2, 4)]
    (fault,) = judged(bodies, {1: belief(2.5), 2: belief(4)}, [stopped(1, 2.6)])
    assert fault.startswith("trusted its lock 0.500 s too long")


def test_an_overlap_is_known_if_the_earlier_was_stopped_until_its_trust_was_over() -> None:
    bodies = [body(STALE, 0, 3), body(RIVAL, 2, 4)]
    beliefs = {1: belief(1.9, lost=True), 2: belief(4)}
    assert not judged(bodies, beliefs, [stopped(1, 2.6)])


def test_a_stop_for_a_small_part_of_the_lease_explains_no_overlap() -> None:
    bodies = [body(STALE, 0, 3), body(RIVAL, 2, 4)]
    beliefs = {1: belief(1.9, lost=True), 2: belief(4)}
    (fault,) = judged(bodies, beliefs, [stopped(1.5, 1.5 + LEASE / 4)])
    assert fault.startswith("ran at the same time, for no reason")


def test_an_overlap_that_no_fault_explains_is_told() -> None:
    bodies = [body(STALE, 0, 3), body(RIVAL, 2, 4)]
    beliefs = {1: belief(1.9), 2: belief(4)}
    (fault,) = judged(bodies, beliefs, [stopped(1, 2.6, pid=99)])
    assert fault.startswith("ran at the same time, for no reason")


def test_a_loss_long_after_the_last_fault_is_told() -> None:
    (fault,) = judged([body(STALE, 0, 9)], {1: belief(8, lost=True)}, [stopped(1, 2)])
    assert "for no reason" in fault


def test_a_killed_body_trusts_nothing_after_its_death() -> None:
    bodies = [body(STALE, 0, None), body(RIVAL, 2, 4)]
    beliefs = {1: belief(2.5), 2: belief(4)}
    assert not judged(bodies, beliefs, deaths={STALE: int(1.9 * SECOND)})
    assert judged(bodies, beliefs, deaths={STALE: int(2.2 * SECOND)})


def test_a_fence_that_goes_back_and_one_that_is_given_twice_are_told() -> None:
    beliefs = {1: belief(9), 2: belief(9)}
    assert judged([body(RIVAL, 0, 1), body(STALE, 2, 3)], beliefs)
    assert judged([body(STALE, 0, 1, fence=1), body(RIVAL, 2, 3, fence=1)], beliefs)


def test_a_body_that_goes_on_after_its_lock_was_lost_is_told() -> None:
    lost = {1: belief(1, lost=True)._replace(lost_at=2 * SECOND)}
    stop = stopped(0.5, 1.5)
    assert not judged([body(STALE, 0, 2.5)], lost, [stop])
    (fault,) = judged([body(STALE, 0, 4)], lost, [stop])
    assert fault.startswith("went on for 2.000 s")
    assert not judged([body(STALE, 0, 4)], lost, [stop, stopped(2.1, 3.9)])


def test_a_body_that_was_interrupted_with_its_lock_is_told() -> None:
    interrupted = Interruption(STALE, (("r", 1),))
    unsure, lost = belief(1, lost=True), belief(1, lost=True)._replace(lost_at=2 * SECOND)
    harm = stopped(0.5, 1.5)
    assert not judged([body(STALE, 0, 2)], {1: lost}, [harm], interruptions=[interrupted])
    (fault,) = judged([body(STALE, 0, 2)], {1: unsure}, [harm], interruptions=[interrupted])
    assert fault.startswith("was interrupted without a loss")


def test_a_seed_draws_one_plan() -> None:
    assert draw(7, 30.0) == draw(7, 30.0)
    assert draw(7, 30.0) != draw(8, 30.0)


# --- whose turn it was


def task_body(name: str, start: float, end: Optional[float], pid: int = RIVAL) -> Body:
    return body(pid, start, end)._replace(task_id=name, fence=int(start * 1000) + 1)


def turns(bodies: List[Body], came: Dict[str, float], **others: Any) -> Turns:
    """Of tasks that came then, published and received at the same moment."""
    events = [
        Event(int(at * SECOND), 1, what, task_id)
        for task_id, at in came.items()
        for what in ("published", "received")
    ]
    asked: Dict[Any, int] = others.pop("asked", {})
    deaths: Dict[int, int] = others.pop("deaths", {})

    def end_of(one: Body) -> float:
        return deaths[one.pid] if one.end is None else one.end

    return Turns(bodies, Waits.of(events, asked), end_of, deaths, **others)


def in_a_row(pauses: Sequence[float], killed: bool = False) -> Turns:
    """Tasks that came at the beginning and ran for a second each, with these pauses between."""
    bodies, at = [task_body("first", 2, None if killed else 3, pid=100)], 3.0
    deaths = {100: 3 * SECOND} if killed else {}
    for number, pause in enumerate(pauses):
        at, pid = at + pause, 101 + number
        bodies.append(task_body(f"t{number}", at, None if killed else at + 1, pid=pid))
        at += 1.0
        if killed:
            deaths[pid] = int(at * SECOND)
    return turns(bodies, {f"t{number}": 0.0 for number in range(len(pauses))}, deaths=deaths)


def test_places_that_stay_empty_while_somebody_waits_are_told() -> None:
    at_once, late = [0.01] * 6, [0.01, 0.5, 0.5, 0.5, 0.5, 0.01]
    for killed, kind in ((False, ENDS), (True, DEATHS)):
        assert not in_a_row(at_once, killed).faults([kind])
        (fault,) = in_a_row(late, killed).faults([kind])
        assert fault.startswith("a free place stayed empty for 0.500 s")
        assert not in_a_row(late, killed).faults([]), "nobody judges it"
    assert not in_a_row(late).faults([DEATHS])


def test_one_place_that_is_blocked_for_long_is_told_by_the_mean() -> None:
    pauses = [0.01] * 9 + [3.0]
    assert not in_a_row(pauses).faults([ENDS])
    (fault,) = in_a_row(pauses).faults([MEAN])
    assert "in the mean of 10" in fault
    assert not in_a_row([0.02] * 10).faults([MEAN])


def test_a_place_that_nobody_waited_for_is_not_judged() -> None:
    bodies = [task_body(f"t{number}", 10 * number, 10 * number + 1) for number in range(9)]
    came = {f"t{number}": 10 * number - 0.5 for number in range(9)}
    assert not turns(bodies, came).faults([ENDS, MEAN])


@pytest.mark.parametrize(("empty", "is_told"), [(0.01, False), (1.0, True)])
def test_a_lock_that_is_not_to_be_had_although_it_is_free_is_told(
    empty: float, is_told: bool
) -> None:
    bodies, asked = [], {}
    for number in range(7):
        bodies.append(body(RIVAL, 10 * number, 10 * number + 1, fence=number + 1))
        asked["r", number + 1] = int((10 * number - empty) * SECOND)
    assert bool(turns(bodies, {}, asked=asked).faults([LOCKS])) is is_told


def test_who_comes_before_one_that_waits_for_clearly_longer_is_told() -> None:
    bodies = [task_body("new", 5, 6), task_body("old", 6, 7)]
    (fault,) = turns(bodies, {"new": 3.0, "old": 1.0}).faults([ORDER])
    assert fault.startswith("came before one that had waited for longer")
    assert not turns(bodies, {"new": 1.0, "old": 3.0}).faults([ORDER])
    assert not turns(bodies, {"new": 1.5, "old": 1.0}).faults([ORDER]), "hardly longer"
    stop = stopped(4, 5.9, RIVAL)
    assert not turns(bodies, {"new": 3.0, "old": 1.0}, harms=[stop]).faults([ORDER])


def test_who_pushes_in_is_told() -> None:
    pusher = body(STALE, 5, 5.1, fence=7)
    bodies = [pusher, task_body("old", 6, 7)]
    asked = {("r", 7): int(4.9 * SECOND)}
    assert turns(bodies, {"old": 1.0}, asked=asked).faults([ORDER])
    assert not turns(bodies, {"old": 4.5}, asked=asked).faults([ORDER])
