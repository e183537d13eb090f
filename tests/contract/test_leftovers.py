"""What remains on a real server: nothing for ever."""

from __future__ import annotations

from typing import Dict

import pytest

from celery_redlock.core.ports import Extended
from celery_redlock.core.timing import LATE_MS
from tests.contract.conftest import PREFIX, Backend
from tests.contract.desk import LONG, SHORT, Desk

FENCE_TTL_MS = 86_400_000
STEM = f"{PREFIX}{{desk}}:"


@pytest.fixture
def desk(real: Backend) -> Desk:
    return Desk(real.open())


def remains(backend: Backend) -> Dict[str, int]:
    """Every key of the server, and how long it will stay (-1: for ever)."""
    assert backend.server is not None
    with backend.server.client() as client:
        return {key: client.pttl(key) for key in client.keys("*")}


def fields(backend: Backend) -> Dict[str, str]:
    assert backend.server is not None
    with backend.server.client() as client:
        return dict(client.hgetall(f"{STEM}h"))


def test_of_a_free_resource_only_its_fence_stays_for_a_day(real: Backend, desk: Desk) -> None:
    fence = desk.granted("a")
    desk.queued("b")
    desk.queued("c")
    desk.leave("a")
    desk.leave("c")
    last = desk.granted("b")
    desk.leave("b")
    assert fields(real) == {"f": str(last)}
    assert last > fence
    (left,) = remains(real).values()
    assert 0 < left <= FENCE_TTL_MS + LONG


def test_everything_expires_at_every_moment(real: Backend, desk: Desk) -> None:
    def nothing_is_for_ever() -> None:
        kept = remains(real)
        assert set(kept) <= {f"{STEM}h", f"{STEM}q", f"{STEM}w"}
        assert all(0 < left <= FENCE_TTL_MS + LATE_MS for left in kept.values()), kept

    fence = desk.granted("a")
    nothing_is_for_ever()
    for token in "bcd":
        desk.queued(token)
        nothing_is_for_ever()
    desk.beat("b")
    nothing_is_for_ever()
    desk.renew("a", fence)
    nothing_is_for_ever()
    desk.leave("a", tomb_ms=LONG)
    nothing_is_for_ever()
    desk.granted("b", orphans=("c",))
    nothing_is_for_ever()
    desk.leave("b", "d", tomb_ms=LONG)
    nothing_is_for_ever()


@pytest.mark.parametrize("first", ["a tombstone", "an orphan", "a hold that comes back"])
def test_whatever_writes_first_expires(real: Backend, first: str) -> None:
    desk = Desk(real.open())
    if first == "a tombstone":
        desk.leave("a", tomb_ms=LONG)
    elif first == "an orphan":
        desk.granted("a", orphans=("orphan",))
    else:
        desk = Desk(real.restarted(restart_grace=60))
        assert desk.bring_back("a", 1_000_000) == Extended()
    (left,) = remains(real).values()
    assert 0 < left <= FENCE_TTL_MS + LATE_MS


def test_a_clock_that_was_set_back_does_not_take_fences_back(real: Backend, desk: Desk) -> None:
    desk.granted("a")
    desk.leave("a")
    assert real.server is not None
    ahead = 8_000_000_000_000_000
    with real.server.client() as client:
        client.hset(f"{STEM}h", "f", str(ahead))
    assert desk.granted("b") == ahead + 1
    assert fields(real)["f"] == str(ahead + 1)


def test_the_line_of_a_resource_is_gone_when_its_last_waiter_is(real: Backend, desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b", waiter_ttl_ms=SHORT)
    line = {key: left for key, left in remains(real).items() if not key.endswith("h")}
    assert set(line) == {f"{STEM}q", f"{STEM}w"}
    assert all(0 < left <= 2 * SHORT for left in line.values())
    desk.leave("b")
    assert set(remains(real)) == {f"{STEM}h"}


def test_an_expired_tombstone_is_cleared_away(real: Backend, desk: Desk) -> None:
    desk.leave("a", tomb_ms=SHORT)
    clock = Desk(desk.store, "a clock")
    clock.granted("tick", lease_ms=2 * SHORT)
    clock.lapse("tick")
    desk.granted("b")
    assert set(fields(real)) == {"f", "h:b"}


def test_a_resource_that_was_only_asked_about_leaves_nothing(real: Backend, desk: Desk) -> None:
    desk.view()
    desk.beat("a")
    desk.renew("a", 1)
    desk.leave("a")
    desk.bring_back("a", 1)
    assert remains(real) == {}


def test_an_extended_lease_takes_its_fence_along(real: Backend, desk: Desk) -> None:
    fence = desk.granted("a", lease_ms=SHORT)
    day = 86_400_000
    desk.renew("a", fence, lease_ms=day)
    (left,) = remains(real).values()
    assert left > 2 * day


def test_fences_are_written_as_whole_numbers(real: Backend, desk: Desk) -> None:
    desk.granted("a")
    desk.queued("b")
    desk.leave("a")
    assert fields(real)["f"].isdigit()
    assert fields(real)["f"] == str(desk.granted("b"))


def test_only_keys_under_the_prefix_are_touched(real: Backend, desk: Desk) -> None:
    assert real.server is not None
    with real.server.client() as client:
        client.set("another's", "1")
    fence = desk.granted("a")
    desk.queued("b")
    desk.renew("a", fence)
    desk.leave("a", tomb_ms=LONG)
    kept = remains(real)
    assert kept.pop("another's") == -1
    assert all(key.startswith(STEM) for key in kept)
