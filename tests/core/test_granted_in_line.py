"""What a wake-up brings is trusted no longer than the server keeps it, and only if it is new."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_redlock.core import timing
from celery_redlock.core.lifecycle import Move, State
from celery_redlock.core.ports import Message, Queued, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold

LEASE = 30.0
TTL = timing.grant_ttl(LEASE)

SECONDS = st.floats(0.0, 10.0)


def in_line(asked_at: float, answered_ms: int, lease: float = LEASE, renew: bool = True) -> Hold:
    hold = Hold("r", Terms(lease_ms=int(lease * 1000)), Record("here", 1, 0.0), renew=renew)
    hold.move(Move.ASKED)
    hold.place(Queued(1, 0, 1000, at_ms=answered_ms), asked_at)
    return hold


def told(hold: Hold, granted_ms: int, heard_at: float, now: Optional[float] = None) -> bool:
    hold.hear(Message("G", hold.token, 7, granted_ms), heard_at)
    return hold.granted_in_line(heard_at if now is None else now)


@given(
    to_server=SECONDS,
    waits=st.floats(0.0, 6.0),
    to_waiter=SECONDS,
    # How much faster the server's clock runs than ours: what the drift allows for.
    pace=st.floats(0.995, 1.005),
    origin=st.floats(1e9, 2e9),
)
def test_trust_ends_before_the_server_gives_the_place_away(
    to_server: float, waits: float, to_waiter: float, pace: float, origin: float
) -> None:
    """Whatever the request and the message took on their ways."""

    def server_ms(moment: float) -> int:
        return int((origin + moment * pace) * 1000)

    asked_at = 100.0
    answered_at = asked_at + to_server
    granted_at = answered_at + waits
    hold = in_line(asked_at, server_ms(answered_at))
    told(hold, server_ms(granted_at), granted_at + to_waiter)
    ends_ms = server_ms(granted_at) + timing.to_ms(TTL)
    assert server_ms(hold.trusted_until) <= ends_ms or hold.state is State.QUEUED


def test_a_grant_that_is_heard_of_at_once_is_held() -> None:
    hold = in_line(100.0, 5_000)
    assert told(hold, 5_400, 100.41)
    assert (hold.state, hold.fence) == (State.HELD, 7)
    assert 0.9 * TTL < hold.trusted_until - 100.4 < TTL


@pytest.mark.parametrize(
    ("granted_ms", "heard_at"),
    [
        pytest.param(5_400, 100.4 + TTL, id="heard of too late"),
        pytest.param(4_900, 100.1, id="of an earlier stand in line, or after a clock went back"),
    ],
)
def test_what_cannot_be_trusted_is_asked_for(granted_ms: int, heard_at: float) -> None:
    hold = in_line(100.0, 5_000)
    assert not told(hold, granted_ms, heard_at)
    assert hold.state is State.QUEUED


def test_a_clock_that_jumps_forward_adds_no_trust_beyond_when_it_was_heard_of() -> None:
    hold = in_line(100.0, 5_000)
    assert told(hold, 3_605_000, 100.2)
    assert hold.trusted_until <= 100.2 + TTL


def test_who_waits_for_a_slot_for_too_long_asks() -> None:
    hold = in_line(100.0, 5_000)
    assert not told(hold, 5_100, 100.1, now=100.1 + TTL * 0.6)


def test_a_server_that_does_not_tell_its_time_is_asked() -> None:
    assert not told(in_line(100.0, 0), 5_100, 100.1)


def test_what_nobody_would_renew_is_asked_for() -> None:
    """Some of its time is over, and its owner counts on all of it."""
    assert not told(in_line(100.0, 5_000, renew=False), 5_100, 100.1)


def test_what_is_granted_for_a_lease_is_trusted_for_a_lease() -> None:
    hold = in_line(100.0, 5_000)
    hold.granted_for = LEASE
    assert told(hold, 5_400, 100.41, now=100.4 + LEASE * 0.4)
    assert hold.trusted_until == timing.trusted_until(100.4 - timing.drift(0.4), LEASE)


def test_a_hint_without_a_fence_brings_no_grant() -> None:
    hold = in_line(100.0, 5_000)
    hold.hear(Message.read(f"G {hold.token}"), 100.1)
    assert not hold.granted_in_line(100.1)


@pytest.mark.parametrize("text", ["", "G", "G a b", "G a 1", "G a 1 2 3", "G a -1 2", "\x00 \x00"])
def test_a_text_that_is_none_of_ours_brings_nothing(text: str) -> None:
    assert Message.read(text).fence == 0


def test_a_failed_renewal_of_a_grant_for_a_moment_is_tried_again_within_it() -> None:
    left, tries = 0.9 * TTL, 0
    while left > 0:
        left -= timing.retry_renewal_after(LEASE, left)
        tries += 1
    assert 4 < tries < 20
    assert timing.retry_renewal_after(LEASE, 20.0) == timing.retry_renewal_after(LEASE) == 1.0
