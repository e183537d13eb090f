"""Whether another copy of a task has done its work, as the result backend has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, List

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

from celery_redlock.core.ports import Seen
from celery_redlock.core.record import Record
from celery_redlock.integration.call import Call
from celery_redlock.integration.copies import copy_among, has_succeeded, succeeds_soon


class Backend:
    """Says these states one after the other, the last again and again; an error is raised."""

    def __init__(self, *states: Any) -> None:
        self.states: List[Any] = list(states)

    def get_state(self, task_id: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state


def call(backend: Any, retries: int = 0, **request: Any) -> Call:
    given = {"id": "id", "retries": retries, "replaced_task_nesting": 0, "ignore_result": False}
    return Call(
        task=SimpleNamespace(backend=backend, ignore_result=False),
        args=(),
        kwargs={},
        request=SimpleNamespace(**{**given, **request}),
        is_traced=True,
        is_eager=False,
        receipt="",
        wait={},
    )


def lives() -> bool:
    return False


def is_over() -> bool:
    return True


def never() -> bool:
    raise AssertionError("nobody should have asked")


@pytest.mark.parametrize(
    ("states", "succeeded"),
    [
        (["SUCCESS"], True),
        (["PENDING", "STARTED", "SUCCESS"], True),
        # What an earlier run of it left there.
        (["RETRY", "SUCCESS"], True),
        (["PENDING", "FAILURE"], False),
        (["REVOKED"], False),
        ([ConnectionError("away")], False),
    ],
)
def test_the_outcome_of_a_body_that_lives_is_waited_for(states: List[Any], succeeded: bool) -> None:
    assert succeeds_soon(call(Backend(*states)), lives) is succeeded


def test_an_outcome_that_does_not_come_is_waited_for_a_moment_only() -> None:
    assert not succeeds_soon(call(Backend("PENDING")), lives)


def test_nothing_is_waited_for_from_a_process_that_is_dead() -> None:
    backend = Backend("PENDING", "SUCCESS")
    assert not succeeds_soon(call(backend), is_over)
    assert backend.states == ["SUCCESS"]


def test_what_a_process_recorded_before_its_death_counts() -> None:
    assert succeeds_soon(call(Backend("SUCCESS")), is_over)


@pytest.mark.parametrize("kind", [DisabledBackend, RPCBackend])
def test_a_backend_that_cannot_tell_is_not_asked(kind: Any) -> None:
    app = Celery("copies", broker="memory://", set_as_current=False)
    backend = kind(app)
    assert not has_succeeded(call(backend))
    assert not succeeds_soon(call(backend), never)


def test_a_task_without_a_result_is_not_asked_for() -> None:
    assert not has_succeeded(call(Backend("SUCCESS"), ignore_result=True))


def holder(task_id: str, retries: int = 0) -> Seen:
    record = Record("web1", 71, 0.0, task_id, "shop.work", retries)
    return Seen("token", 1, "confirmed", record.encode())


def test_a_copy_is_the_same_run_of_the_task_or_a_later_one() -> None:
    asking = call(Backend("PENDING"), retries=1)
    assert copy_among([holder("other"), holder("id", 1)], asking)
    assert copy_among([holder("id", 2)], asking)
    assert copy_among([holder("id", 0)], asking) is None
    assert copy_among([holder("other", 1)], asking) is None


def test_a_task_is_no_copy_of_the_one_that_it_replaces() -> None:
    asking = call(Backend("PENDING"), replaced_task_nesting=1)
    assert copy_among([holder("id")], asking) is None
