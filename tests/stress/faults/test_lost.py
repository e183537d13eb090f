"""A task that did not end is excused by what was seen of it, and by nothing else."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from tests.stress.faults.lost import Cut, Lost
from tests.stress.faults.mail import Event
from tests.stress.faults.plan import Variant

REDIS, RABBITMQ = Variant("prefork", "redis", True), Variant("prefork", "rabbitmq", True)
EARLY = (REDIS._replace(acks_late=False), RABBITMQ._replace(acks_late=False))
GEVENT = Variant("gevent", "redis", True)

CLIENT, PARENT, CHILD, OTHER = 1, 2, 3, 4

PUBLISHED = (1, CLIENT, "published")
RECEIVED = (2, PARENT, "received")
BEGAN = (3, CHILD, "began")
AGAIN = (4, CHILD, "published")
FINISHED = (5, CHILD, "finished")


def reason(
    variant: Variant,
    *seen: Tuple[int, int, str],
    deaths: Optional[Dict[int, int]] = None,
    cuts: Sequence[Cut] = (),
    kept: bool = False,
) -> Optional[str]:
    events: List[Any] = [Event(*each, "t") for each in seen]
    return Lost(variant, events, deaths or {}, cuts, lambda _: kept).reason("t")


def test_what_a_redis_broker_gave_to_a_connection_that_was_cut_is_lost_on_its_way() -> None:
    assert reason(REDIS, PUBLISHED, cuts=[Cut(2)]) == "lost on its way"
    assert reason(REDIS, PUBLISHED, cuts=[Cut(2, (PARENT,))]) == "lost on its way"


@pytest.mark.parametrize("variant", [REDIS, RABBITMQ, GEVENT], ids=str)
def test_a_message_that_nobody_received_and_no_cut_took_is_a_fault(variant: Variant) -> None:
    assert reason(variant, PUBLISHED) is None
    assert reason(variant, (3, CLIENT, "published"), cuts=[Cut(2)]) is None


def test_rabbitmq_loses_nothing_on_its_way() -> None:
    assert reason(RABBITMQ, PUBLISHED, cuts=[Cut(2)]) is None


def test_what_the_broker_has_is_a_fault_while_workers_take_it() -> None:
    assert reason(REDIS, PUBLISHED, cuts=[Cut(2)], kept=True) is None


def test_what_dead_workers_had_is_excused_only_where_nobody_is_given_it() -> None:
    seen = PUBLISHED, RECEIVED
    assert reason(GEVENT, *seen, deaths={PARENT: 3}, kept=True)
    assert not reason(GEVENT, *seen, deaths={OTHER: 3}, kept=True)
    assert not reason(REDIS, *seen, deaths={PARENT: 3}, kept=True)


def test_only_who_received_the_message_last_counts() -> None:
    passed_on = PUBLISHED, RECEIVED, (4, OTHER, "received")
    assert reason(GEVENT, *passed_on, deaths={OTHER: 8}, cuts=[Cut(3)], kept=True)
    assert not reason(GEVENT, *passed_on, deaths={PARENT: 8}, cuts=[Cut(3)], kept=True)
    again = (6, OTHER, "received")
    seen = PUBLISHED, RECEIVED, BEGAN, AGAIN, again, (7, CHILD, "finished")
    assert reason(GEVENT, *seen, deaths={OTHER: 8}, kept=True)
    assert not reason(GEVENT, *seen, deaths={PARENT: 8}, kept=True)
    assert reason(EARLY[1], *seen, deaths={OTHER: 8}) == "its worker was killed"


def test_a_worker_that_lives_must_end_what_it_received() -> None:
    assert not reason(REDIS, PUBLISHED, RECEIVED)
    assert not reason(REDIS, PUBLISHED, RECEIVED, BEGAN, cuts=[Cut(9), Cut(10)])
    assert not reason(REDIS, PUBLISHED, RECEIVED, BEGAN, FINISHED, cuts=[Cut(9)])


@pytest.mark.parametrize("variant", EARLY, ids=str)
def test_after_an_early_ack_a_task_dies_with_its_worker(variant: Variant) -> None:
    seen = PUBLISHED, RECEIVED, BEGAN
    assert reason(variant, *seen, deaths={PARENT: 6, CHILD: 6}) == "its worker was killed"
    assert not reason(variant, *seen, FINISHED, deaths={PARENT: 6, CHILD: 6})


@pytest.mark.parametrize("variant", EARLY, ids=str)
def test_so_it_does_while_its_worker_publishes_it_again(variant: Variant) -> None:
    seen = PUBLISHED, RECEIVED, BEGAN, AGAIN
    # The death is noted before the kill.
    assert reason(variant, *seen, deaths={PARENT: 3, CHILD: 3}, cuts=[Cut(6, (PARENT, CHILD))])
    assert not reason(variant, *seen)


@pytest.mark.parametrize("variant", [REDIS, RABBITMQ], ids=str)
def test_after_a_late_ack_a_killed_worker_loses_nothing(variant: Variant) -> None:
    seen, killed = (PUBLISHED, RECEIVED, BEGAN), Cut(6, (PARENT, CHILD))
    assert not reason(variant, *seen, deaths={PARENT: 6, CHILD: 6}, cuts=[killed])


def test_what_a_killed_worker_had_may_be_lost_on_its_way_to_the_next() -> None:
    killed = Cut(6, (PARENT, CHILD))
    deaths = {PARENT: 6, CHILD: 6}
    assert reason(REDIS, PUBLISHED, RECEIVED, BEGAN, deaths=deaths, cuts=[killed, Cut(7)])


def test_what_was_published_again_may_be_lost_on_its_way_too() -> None:
    seen = PUBLISHED, RECEIVED, BEGAN, AGAIN, FINISHED
    assert reason(REDIS, *seen, cuts=[Cut(6)]) == "lost on its way"
    assert not reason(REDIS, *seen)


def test_a_run_that_nobody_finished_in_a_process_that_lives_hangs() -> None:
    second = (5, OTHER, "received")
    assert not reason(REDIS, PUBLISHED, RECEIVED, BEGAN, second, cuts=[Cut(4), Cut(6)])
