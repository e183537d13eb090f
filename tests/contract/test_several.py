"""Several resources are asked for at once: all of them, those before the awaited one, or none."""

from __future__ import annotations

from typing import Dict, List

import pytest

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Busy,
    Closed,
    Granted,
    Leave,
    Line,
    Queued,
    Store,
    Terms,
)
from tests.contract.desk import LONG, Desk

NAMES = ("a", "b", "c")

LINE = Line(inbox="in", waiter_ttl_ms=LONG, grant_ttl_ms=LONG)


@pytest.fixture
def desks(store: Store) -> Dict[str, Desk]:
    return {name: Desk(store, name) for name in NAMES}


def ask(store: Store, who: str, *names: str, wait: bool = False) -> List[AcquireAnswer]:
    """Ask for the resources under a token for each."""
    return list(
        store.acquire_all(
            [
                Acquire(name, f"{who}-{name}", Terms(lease_ms=LONG), who, LINE if wait else None)
                for name in names or NAMES
            ]
        )
    )


def kinds(answers: List[AcquireAnswer]) -> List[type]:
    return [type(answer) for answer in answers]


def test_free_resources_are_all_granted_each_with_its_fence(
    store: Store, desks: Dict[str, Desk]
) -> None:
    answers = ask(store, "me")
    assert kinds(answers) == [Granted] * 3
    for name, answer in zip(NAMES, answers):
        assert desks[name].holder(f"me-{name}").fence == answer.fence


def test_without_a_line_it_is_all_or_nothing(store: Store, desks: Dict[str, Desk]) -> None:
    desks["b"].granted("rival")
    answers = ask(store, "me")
    assert kinds(answers) == [Granted, Busy]
    assert [seen.token for seen in answers[-1].holders] == ["rival"]
    assert desks["a"].live() == []
    assert desks["c"].view().fence == 0, "what comes after the busy one was asked for"


def test_what_is_given_back_goes_to_its_line(store: Store, desks: Dict[str, Desk]) -> None:
    mine = desks["a"].granted("me-a")
    desks["a"].queued("waiter")
    desks["b"].granted("rival")
    # A copy of an earlier ask had been granted the first one.
    assert kinds(ask(store, "me")) == [Granted, Busy]
    assert desks["a"].live() == ["waiter"]
    assert desks["a"].holder("waiter").fence > mine


def test_in_line_those_before_the_awaited_one_are_held(
    store: Store, desks: Dict[str, Desk]
) -> None:
    desks["b"].granted("rival")
    assert kinds(ask(store, "me", wait=True)) == [Granted, Queued]
    assert desks["a"].live() == ["me-a"]
    assert desks["b"].line() == ["me-b"]
    assert desks["c"].view().fence == 0


def test_asking_again_goes_on_from_what_was_granted(store: Store, desks: Dict[str, Desk]) -> None:
    desks["b"].granted("rival")
    (first, _queued) = ask(store, "me", wait=True)
    desks["c"].granted("another")
    desks["b"].leave("rival")
    answers = ask(store, "me", wait=True)
    assert kinds(answers) == [Granted, Granted, Queued]
    assert answers[0] == first, "a hold keeps its fence"
    desks["c"].leave("another")
    assert kinds(ask(store, "me", wait=True)) == [Granted] * 3
    assert kinds(ask(store, "me", wait=True)) == [Granted] * 3, "a copy changes nothing"


def test_a_dead_token_ends_the_ask_with_nothing_held(store: Store, desks: Dict[str, Desk]) -> None:
    desks["b"].leave("me-b", tomb_ms=LONG)
    assert ask(store, "me", wait=True)[1:] == [Closed("left")]
    assert desks["a"].live() == []


def test_a_full_line_ends_the_ask_with_nothing_held(store: Store, desks: Dict[str, Desk]) -> None:
    desks["b"].granted("rival")
    desks["b"].queued("waiter")
    full = LINE._replace(max_waiting=1)
    answers = store.acquire_all(
        [Acquire(name, f"me-{name}", Terms(lease_ms=LONG), "me", full) for name in NAMES]
    )
    assert kinds(list(answers)) == [Granted, Busy]
    assert answers[-1].full
    assert desks["a"].live() == []


def test_orphans_of_each_resource_are_dropped_first(store: Store, desks: Dict[str, Desk]) -> None:
    for name in NAMES:
        desks[name].granted(f"old-{name}")
    answers = store.acquire_all(
        [
            Acquire(
                name, f"me-{name}", Terms(lease_ms=LONG), "me", orphans=(f"old-{name}", "x" * 32)
            )
            for name in NAMES
        ]
    )
    assert kinds(list(answers)) == [Granted] * 3
    assert [desks[name].live() for name in NAMES] == [[f"me-{name}"] for name in NAMES]


def test_a_kept_hold_is_taken_over_in_the_same_ask(store: Store, desks: Dict[str, Desk]) -> None:
    fence = desks["a"].granted("old")
    desks["a"].renew("old", fence, kept="retry 1")
    answers = store.acquire_all(
        [Acquire(name, f"me-{name}", Terms(lease_ms=LONG), "me", None, "retry 1") for name in NAMES]
    )
    assert answers[0] == Granted(fence)
    assert desks["a"].live() == ["me-a"]


def test_two_who_ask_in_the_same_order_never_wait_for_one_another(
    store: Store, desks: Dict[str, Desk]
) -> None:
    assert kinds(ask(store, "one", "a", "b", wait=True)) == [Granted] * 2
    assert kinds(ask(store, "two", "a", "b", "c", wait=True)) == [Queued]
    assert kinds(ask(store, "three", "b", "c", wait=True)) == [Queued]
    for name in ("a", "b"):
        store.leave(Leave(name, (f"one-{name}",)))
    assert desks["b"].live() == ["three-b"]
    assert kinds(ask(store, "three", "b", "c", wait=True)) == [Granted] * 2
    assert kinds(ask(store, "two", wait=True)) == [Granted, Queued]
    for name in ("b", "c"):
        store.leave(Leave(name, (f"three-{name}",)))
    assert kinds(ask(store, "two", wait=True)) == [Granted] * 3
