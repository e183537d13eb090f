"""How long a holder may believe, counted by a clock that the store's answers move."""

from __future__ import annotations

from typing import Any, List, Sequence

import pytest

from celery_redlock.core import events, timing
from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Beat,
    BeatAnswer,
    Extended,
    Gone,
    Granted,
    NoAnswer,
    Queued,
    Refused,
    Renew,
    RenewAnswer,
    Terms,
)
from celery_redlock.core.record import Record
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held

LEASE = 3.0


class SlowStore:
    """Grants everything; each answer takes ``delay`` seconds of the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.delay = 0.0
        self.beat_delay = 0.0
        self.renewal: RenewAnswer = Extended()
        self.is_broken = False
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def acquire(self, request: Acquire) -> AcquireAnswer:
        self.now += self.delay
        return Granted(7)

    def has_broken(self) -> bool:
        self.looks += 1
        return self.is_broken

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]:
        self.now += self.delay
        return [self.renewal] * len(requests)

    def heartbeat(self, beats: Sequence[Beat]) -> Sequence[BeatAnswer]:
        self.now += self.beat_delay
        return [NoAnswer("server")] * len(beats)

    def leave(self, request: object) -> None:
        return None

    def reestablish(self, request: object) -> Refused:
        return Refused()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    monkeypatch.setattr(native, "start_thread", lambda run: None)
    return SlowStore()


def held(store: SlowStore, emit: events.Emit = lambda event: None) -> tuple[Manager, Hold]:
    manager = Manager(store, emit, clock=store.clock)  # type: ignore[arg-type]
    hold = Hold("r", Terms(lease_ms=int(LEASE * 1000)), Record("here", 1, 0.0))
    assert isinstance(manager.acquire(hold), Held)
    return manager, hold


def test_a_slow_grant_does_not_stretch_ownership(store: SlowStore) -> None:
    began, store.delay = store.now, 2.0
    _manager, hold = held(store)
    assert hold.trusted_until == began + LEASE - timing.drift(LEASE)


def test_a_slow_renewal_does_not_stretch_ownership(store: SlowStore) -> None:
    manager, hold = held(store)
    store.now += LEASE / 3
    sent_at, store.delay = store.now, 1.5
    manager.watchdog.round()
    assert hold.trusted_until == sent_at + LEASE - timing.drift(LEASE)


def test_a_renewal_does_not_wait_for_an_answer_about_the_line(store: SlowStore) -> None:
    manager, hold = held(store)
    waiter = Hold("other", hold.terms, hold.record)
    manager.watchdog.attend(waiter, Queued(seq=1, rank=1, next_ms=0))
    store.now += 2 * LEASE / 3
    due_at, store.beat_delay = store.now, 2.0
    manager.watchdog.round()
    assert waiter.silence is not None
    assert hold.trusted_until == due_at + LEASE - timing.drift(LEASE)


def test_a_renewal_that_fails_late_leaves_no_time_and_never_less(store: SlowStore) -> None:
    told: List[Any] = []
    manager, _hold = held(store, told.append)
    store.now += 2 * LEASE
    store.renewal = NoAnswer("server")
    manager.watchdog.round()
    assert [event.left for event in told if isinstance(event, events.RenewalFailed)] == [0.0]


def test_trust_never_shrinks(store: SlowStore) -> None:
    manager, hold = held(store)
    before = hold.trusted_until
    store.now += LEASE / 3
    store.renewal = NoAnswer("server")
    manager.watchdog.round()
    assert hold.trusted_until == before
    assert hold.state is State.AT_RISK


def test_a_server_that_has_gone_is_looked_for_once_and_again_after_it_came_back(
    store: SlowStore,
) -> None:
    """Between the two the renewals that are tried again tell whether it is back."""
    manager, hold = held(store)
    store.now += 1.0  # from here on it counts as a long one, and no renewal is due
    store.is_broken, store.renewal = True, NoAnswer("server")
    manager.watchdog.round()
    assert hold.state is State.AT_RISK
    assert store.looks == 1
    manager.watchdog.round()
    assert store.looks == 1
    store.is_broken, store.renewal = False, Extended()
    store.now += LEASE / 3
    manager.watchdog.round()
    assert hold.state is State.HELD
    manager.watchdog.round()
    assert store.looks == 2


def test_missed_renewals_alone_lose_nothing(store: SlowStore) -> None:
    manager, hold = held(store)
    store.renewal = NoAnswer("server")
    for _ in range(20):
        store.now += LEASE / 3
        manager.watchdog.round()
    assert hold.state is State.UNSURE
    store.renewal = Extended()
    store.now += LEASE / 3
    manager.watchdog.round()
    assert hold.state is State.HELD


def test_a_place_granted_to_another_is_lost_and_never_renewed_again(store: SlowStore) -> None:
    manager, hold = held(store)
    store.now += LEASE / 3
    store.renewal = Gone()
    manager.watchdog.round()
    assert hold.state is State.LOST
    assert manager.watchdog.renewing == []
    manager.release(hold)
    assert hold.state is State.LOST


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (LEASE / 2, "granted to another"),
        (2 * LEASE, "granted to another, or forgotten by the lock server"),
    ],
)
def test_of_a_loss_no_more_is_said_than_is_known(store: SlowStore, after: float, why: str) -> None:
    told: List[Any] = []
    manager, _hold = held(store, told.append)
    store.now += after
    store.renewal = Gone()
    manager.watchdog.round()
    assert [event.why for event in told if isinstance(event, events.Lost)] == [why]


def test_a_hold_is_renewed_no_longer_than_allowed(store: SlowStore) -> None:
    manager, hold = held(store)
    hold.renew_until = store.now + 2 * LEASE
    for _ in range(9):
        store.now += LEASE / 3
        manager.watchdog.round()
    assert hold.state is State.LOST
    assert hold.why == "held for as long as allowed"
