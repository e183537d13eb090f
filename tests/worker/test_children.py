"""What the worker's parent knows of its children: who runs what, and what to free when one dies."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Iterator, List, Tuple

import pytest
from celery import signals
from celery.concurrency import prefork

from celery_redlock.integration import startup
from celery_redlock.integration.children import Children
from celery_redlock.locking.deaths import Watched

SOON = 10.0


class Request:
    """As much of a request as its child concerns."""

    id = "a task"
    hostname = "celery@here"
    was_freed = False


class Family(Children):
    """Children that are processes of the test; ``freed`` are their requests and pids."""

    def __init__(self) -> None:
        self.freed: queue.Queue[Tuple[Request, int]] = queue.Queue()
        self.may_free = threading.Event()
        self.may_free.set()
        super().__init__(self._note)
        self.follow(Request.hostname)
        self.processes: List[subprocess.Popen[bytes]] = []

    def _note(self, request: Request, pid: int) -> None:
        assert self.may_free.wait(SOON)
        self.freed.put((request, pid))

    def born(self) -> int:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.processes.append(process)
        return process.pid

    def end(self, pid: int) -> None:
        (process,) = [each for each in self.processes if each.pid == pid]
        process.kill()
        process.communicate()

    def assert_frees(self, *requests: Request) -> None:
        """These and, up to the death of one more, no others."""
        assert {self.freed.get(timeout=SOON)[0] for _ in requests} == set(requests)
        last, pid = Request(), self.born()
        self.accepted(pid, last)
        self.end(pid)
        assert self.freed.get(timeout=SOON) == (last, pid)
        assert self.freed.empty()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    yield family
    for process in family.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def pid(family: Family) -> int:
    return family.born()


def test_what_a_child_ran_is_freed_when_it_dies(family: Family, pid: int) -> None:
    request = Request()
    family.accepted(pid, request)
    family.end(pid)
    assert family.freed.get(timeout=SOON) == (request, pid)


def test_a_child_that_had_died_before_it_is_told_what_it_accepted(family: Family, pid: int) -> None:
    request = Request()
    family.end(pid)
    family.accepted(pid, request)
    family.assert_frees(request)


def test_a_known_child_that_dies_before_it_is_told_what_it_accepted(
    family: Family, pid: int
) -> None:
    before, request = Request(), Request()
    family.accepted(pid, before)
    family.settled(pid, before)
    family.end(pid)
    family.accepted(pid, request)
    family.assert_frees(request)


def test_a_result_is_the_end_of_what_a_child_ran(family: Family, pid: int) -> None:
    request = Request()
    family.accepted(pid, request)
    family.settled(pid, request)
    family.end(pid)
    family.assert_frees()


@pytest.mark.parametrize("accepted", [True, False])
def test_what_no_child_took_is_freed_once_when_celery_holds_it_for_over(
    family: Family, accepted: bool
) -> None:
    """Celery accepts in the parent's name what was revoked while its child died."""
    request = Request()
    if accepted:
        family.accepted(os.getpid(), request)
    for _ in range(2):
        family.failed(os.getpid() if accepted else None, request)
    family.assert_frees(request)


def test_a_late_result_is_not_the_end_of_what_the_child_runs_now(family: Family, pid: int) -> None:
    before, now = Request(), Request()
    family.accepted(pid, before)
    family.accepted(pid, now)
    family.settled(pid, before)
    family.end(pid)
    family.assert_frees(now)


@pytest.mark.parametrize("told", ["before its death", "after it", "before and after"])
def test_what_celery_holds_for_over_is_freed_once_and_when_the_child_is_dead(
    family: Family, pid: int, told: str
) -> None:
    request = Request()
    family.accepted(pid, request)
    if "before" in told:
        family.failed(pid, request)
        assert not request.was_freed
    family.end(pid)
    if "after" in told:
        family.failed(pid, request)
        family.failed(pid, request)
    family.assert_frees(request)


def test_what_was_never_accepted_is_freed_when_celery_says_that_it_failed(
    family: Family, pid: int
) -> None:
    request = Request()
    family.failed(pid, request)
    assert not request.was_freed
    family.end(pid)
    family.assert_frees(request)


@pytest.mark.parametrize("pid", [os.getpid(), 2**47], ids=["its own", "a greenlet"])
def test_a_worker_without_children_watches_nobody(family: Family, pid: int) -> None:
    request = Request()
    request.hostname = "greenlets@here"
    family.accepted(pid, request)
    family.failed(pid, request)
    assert family._children == {}


def test_one_release_that_takes_its_time_holds_up_no_other_and_nobody_who_tells(
    family: Family, pid: int
) -> None:
    family.may_free.clear()
    slow, other = Request(), family.born()
    family.accepted(pid, slow)
    family.end(pid)
    family.accepted(other, Request())
    family.end(other)
    late = Request()
    family.accepted(pid, late)
    assert family.freed.empty()
    family.may_free.set()
    assert len([family.freed.get(timeout=SOON) for _ in range(3)]) == 3


def test_a_worker_that_ends_waits_for_what_is_being_freed_but_not_long(
    family: Family, pid: int
) -> None:
    family.accepted(pid, Request())
    family.finish(within=60)  # a living child is not waited for
    family.may_free.clear()
    family.end(pid)
    family.finish(within=0.05)
    assert family.freed.empty()
    family.may_free.set()
    family.finish(within=SOON)
    assert not family.freed.empty()


def test_a_child_that_is_dying_is_waited_for(
    family: Family, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery hears of it before it is dead, and would then hold up the thread that frees."""
    monkeypatch.setattr(Watched, "is_ending", lambda watched: True)
    family.accepted(pid, Request())
    dies = threading.Timer(0.1, family.end, [pid])
    dies.start()
    family.finish(within=SOON)
    assert not family.freed.empty()
    dies.join()


def test_celery_makes_no_new_child_before_that(
    family: Family, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "children", family)
    monkeypatch.setattr(startup, "_BEFORE_A_CHILD", SOON)
    worker = SimpleNamespace(pool=prefork.TaskPool(1), hostname=Request.hostname)
    step = startup.FollowChildren(worker)
    step.start(worker)
    family.accepted(pid, Request())
    family.end(pid)
    try:
        signals.worker_before_create_process.send(sender=worker.pool)
    finally:
        signals.worker_before_create_process.disconnect(dispatch_uid=step.name)
    assert not family.freed.empty()
