"""Slots of a prefork pool whose semaphore counts wrong, with a semaphore of Celery's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, SCHED_STRATEGY_FCFS
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.semaphore import PreforkSlots


class Worker:
    """As much of a worker as has slots; ``turn`` is one of its loop's."""

    def __init__(self, processes: int) -> None:
        self.semaphore = LaxBoundedSemaphore(processes)
        self.processes = list(range(processes))
        self.jobs: Dict[str, None] = {}
        self.ran: List[str] = []
        self.loop = _TestLoop()
        self.pool = SimpleNamespace(
            _pool=self.processes,
            _cache=self.jobs,
            sched_strategy=SCHED_STRATEGY_FAIR,
            _maxtasksperchild=None,
            _max_memory_per_child=None,
        )
        pool = SimpleNamespace(_pool=self.pool)
        controller = SimpleNamespace(semaphore=self.semaphore)
        consumer = SimpleNamespace(pool=pool, controller=controller)
        self.slots = PreforkSlots(consumer, self.loop, self.submit)

    def submit(self, request: str) -> None:
        self.semaphore.acquire(self._start, request)

    def _start(self, request: str) -> None:
        self.jobs[request] = None
        self.ran.append(request)

    def end(self, request: str, releases: int = 1) -> None:
        """billiard releases before the job leaves its books."""
        for _ in range(releases):
            self.semaphore.release()
        self.jobs.pop(request)
        self.turn()

    def want(self, request: str, first: bool = False) -> Any:
        return self.slots.take(lambda: self.slots.run(request), first)

    def turn(self) -> None:
        while self.loop.has_calls:
            self.loop.drain()

    def look(self) -> None:
        """What the waiting do now and then by themselves."""
        self.slots._look()
        self.turn()

    @property
    def is_full(self) -> bool:
        return len(self.jobs) >= len(self.processes)


class _TestLoop(Loop):
    """Drained by the test; nobody looks again but the test."""

    turns_again = 0

    def turn_again(self) -> None:
        self.turns_again += 1

    def _wake(self) -> None:
        pass

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)


@pytest.fixture
def worker() -> Worker:
    return Worker(2)


def test_a_slot_comes_never_before_it_was_asked_for(worker: Worker) -> None:
    worker.want("a")
    assert worker.ran == []
    worker.turn()
    assert worker.ran == ["a"]


def test_the_pool_has_another_look_at_what_it_was_given(worker: Worker) -> None:
    worker.want("a")
    worker.turn()
    assert worker.ran == ["a"]
    assert worker.loop.turns_again == 1


def test_a_lost_connection_resets_the_semaphore_while_bodies_run(worker: Worker) -> None:
    worker.submit("a")
    worker.submit("b")
    worker.semaphore.clear()
    for request in ("c", "d", "e"):
        worker.want(request)
    worker.turn()
    worker.look()
    assert worker.ran == ["a", "b"]
    for index, request in enumerate(("a", "b", "c", "d", "e")):
        worker.end(request)
        assert worker.ran == ["a", "b", "c", "d", "e"][: index + 3]


def test_a_unit_that_was_released_twice_serves_once(worker: Worker) -> None:
    worker.submit("exits")
    worker.submit("runs")
    for request in ("a", "b"):
        worker.want(request)
    worker.end("exits", releases=2)
    assert worker.ran == ["exits", "runs", "a"]
    worker.end("runs")
    assert worker.ran == ["exits", "runs", "a", "b"]


def test_what_was_released_for_a_child_that_is_being_replaced_is_not_lost(worker: Worker) -> None:
    worker.submit("a")
    child = worker.processes.pop()
    worker.want("b")
    worker.want("c")
    worker.turn()
    assert worker.ran == ["a"]
    worker.processes.append(child)
    worker.look()
    assert worker.ran == ["a", "b"]
    worker.end("a")
    worker.end("b")
    worker.end("c")
    # As many as there are children again, and no more.
    for request in ("d", "e", "f"):
        worker.want(request)
    worker.turn()
    assert worker.ran == ["a", "b", "c", "d", "e"]


def test_who_waits_is_not_forgotten_when_the_pool_restarts(worker: Worker) -> None:
    worker.submit("a")
    worker.submit("b")
    worker.want("c")
    worker.turn()
    worker.semaphore.clear()
    worker.jobs.clear()
    worker.turn()
    assert worker.ran == ["a", "b", "c"]


def test_a_turn_that_is_cancelled_before_it_was_told_of_its_slot_gives_it_back(
    worker: Worker,
) -> None:
    one = worker.want("a")
    # Between the look that serves it and the call that tells it.
    worker.loop.call(one.cancel)
    worker.turn()
    for request in ("b", "c", "d"):
        worker.want(request)
    worker.turn()
    assert worker.ran == ["b", "c"]


def test_who_leaves_the_line_takes_nobody_elses_place(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    a, _b = worker.want("a"), worker.want("b")
    worker.submit("unlocked")
    _c, d = worker.want("c"), worker.want("d")
    worker.turn()
    a.cancel()
    d.cancel()
    for request in ("1", "2", "b"):
        worker.end(request)
    assert worker.ran == ["1", "2", "b", "unlocked", "c"]
    worker.end("unlocked")
    worker.end("c")
    worker.look()
    for request in ("e", "f", "g"):
        worker.want(request)
    worker.turn()
    assert worker.ran[5:] == ["e", "f"]


def test_a_pool_that_grows_gives_no_more_slots_than_processes(worker: Worker) -> None:
    worker.submit("a")
    worker.submit("b")
    for request in ("c", "d", "e"):
        worker.want(request)
    # Celery's semaphore has two units more now.
    worker.processes.append(2)
    worker.semaphore.grow(1)
    worker.turn()
    assert worker.ran == ["a", "b", "c"]
    assert worker.is_full
    worker.end("a")
    worker.end("b")
    assert worker.ran == ["a", "b", "c", "d", "e"]


def test_a_borrowed_slot_is_given_away_before_it_is_free_and_paid_for(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    worker.want("a")
    worker.turn()
    assert worker.slots.borrow()
    worker.slots.run("ahead")
    assert worker.ran == ["1", "2", "ahead"]
    worker.end("1")
    assert worker.ran == ["1", "2", "ahead"], "what 1 has left is that of the one ahead"
    worker.end("2")
    assert worker.ran == ["1", "2", "ahead", "a"]
    worker.end("ahead")
    worker.end("a")
    for request in ("b", "c", "d"):
        worker.want(request)
    worker.turn()
    assert worker.ran[4:] == ["b", "c"]


def test_one_slot_is_borrowed_at_a_time(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    assert worker.slots.borrow()
    assert not worker.slots.borrow()
    worker.slots.run("ahead")
    assert not worker.slots.borrow()
    worker.end("1")
    assert worker.slots.borrow()


def test_no_slot_is_borrowed_where_one_is_free(worker: Worker) -> None:
    worker.submit("1")
    assert not worker.slots.borrow()


def test_nor_where_a_job_might_wait_behind_a_long_body(worker: Worker) -> None:
    worker.pool.sched_strategy = SCHED_STRATEGY_FCFS
    worker.submit("1")
    worker.submit("2")
    assert not worker.slots.borrow()


@pytest.mark.parametrize("limit", ["_maxtasksperchild", "_max_memory_per_child"])
def test_nor_where_the_process_may_end_with_its_task(worker: Worker, limit: str) -> None:
    setattr(worker.pool, limit, 1000)
    worker.submit("1")
    worker.submit("2")
    assert not worker.slots.borrow()


def test_a_borrowed_slot_that_is_not_used_costs_nobody_his_own(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    worker.want("a")
    worker.turn()
    assert worker.slots.borrow()
    worker.slots.give_back()
    worker.end("1")
    assert worker.ran == ["1", "2", "a"]
    worker.end("2")
    for request in ("b", "c"):
        worker.want(request)
    worker.turn()
    assert worker.ran == ["1", "2", "a", "b"]


def test_who_leaves_the_line_leaves_the_debt_to_be_paid(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    a = worker.want("a")
    worker.turn()
    assert worker.slots.borrow()
    worker.slots.run("ahead")
    a.cancel()
    worker.want("b")
    worker.turn()
    worker.end("1")
    assert worker.ran == ["1", "2", "ahead"]
    worker.end("ahead")
    assert worker.ran == ["1", "2", "ahead", "b"]


def test_a_lost_connection_forgets_the_debt(worker: Worker) -> None:
    worker.submit("1")
    worker.submit("2")
    assert worker.slots.borrow()
    worker.slots.run("ahead")
    worker.semaphore.clear()
    worker.turn()
    for request in ("1", "2", "ahead"):
        worker.end(request)
    for request in ("a", "b", "c"):
        worker.want(request)
    worker.turn()
    assert worker.ran[3:] == ["a", "b"]
