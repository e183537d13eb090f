"""A task that cannot be published again does not fail: its message is kept, and it waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from celery_redlock import LockLost
from celery_redlock.core.policy import Decision
from celery_redlock.integration import verdict
from celery_redlock.integration.asking import Refusal
from celery_redlock.integration.call import Call

REFUSAL = Refusal(Decision.RETRY, "r")


def call_of_which_the_publish_raises(error: BaseException) -> Any:
    def raise_error() -> None:
        raise error

    signature = SimpleNamespace(apply_async=raise_error)
    task = SimpleNamespace(signature_from_request=lambda *_args, **_options: signature)
    request = SimpleNamespace(
        id="t", headers=None, retries=0, ignore_result=True, delivery_info=None
    )
    return Call(task, (), {}, request, is_traced=True, is_eager=False, receipt="", wait={})


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("the broker is away"),
        # kombu on Redis, over a channel whose connection was cut.
        AttributeError("'NoneType' object has no attribute 'client'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_keeps_the_broker_from_taking_a_task_does_not_end_it(error: Exception) -> None:
    with pytest.raises(verdict.Unpublished):
        verdict.carry_out(call_of_which_the_publish_raises(error), REFUSAL)


@pytest.mark.parametrize(
    "error", [SoftTimeLimitExceeded(), LockLost("outer", 1)], ids=lambda error: type(error).__name__
)
def test_what_interrupts_a_publish_ends_the_task(error: Exception) -> None:
    with pytest.raises(type(error)):
        verdict.carry_out(call_of_which_the_publish_raises(error), REFUSAL)
