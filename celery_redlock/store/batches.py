"""Batches for a store that sends their parts one after the other."""

from __future__ import annotations

from typing import Callable, List, Sequence, TypeVar, Union

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    AskAnswer,
    Leave,
    LeaveAnswer,
    NoAnswer,
    Store,
)

Request = TypeVar("Request")
Answer = TypeVar("Answer")


def acquire_each(store: Store, asks: Sequence[Sequence[Acquire]]) -> List[AskAnswer]:
    """``Store.acquire_batch`` by single calls."""

    def ask(requests: Sequence[Acquire]) -> Sequence[AcquireAnswer]:
        return store.acquire_all(requests) if len(requests) > 1 else [store.acquire(requests[0])]

    return _each(ask, asks)


def leave_each(store: Store, requests: Sequence[Leave]) -> List[LeaveAnswer]:
    """``Store.leave_batch`` by single calls."""
    return _each(store.leave, requests)


def _each(
    call: Callable[[Request], Answer], requests: Sequence[Request]
) -> List[Union[Answer, NoAnswer]]:
    answers: List[Union[Answer, NoAnswer]] = []
    for request in requests:
        try:
            answers.append(call(request))
        except NoAnswer as silence:
            answers.append(silence)
    return answers
