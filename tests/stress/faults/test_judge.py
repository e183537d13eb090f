"""The judge of the fault runs tells silent overlaps and losses without a reason, and only those."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from examples.demo.bodylog import Body
from tests.stress.faults.app import SECOND
from tests.stress.faults.judge import Belief, Diaries, Harm, Interruption, Judge
from tests.stress.faults.plan import draw

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
