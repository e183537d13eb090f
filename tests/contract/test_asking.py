"""A manager asks for several resources, and past dead holders, on every store."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

import pytest

from celery_redlock.core import events
from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Leave, NoAnswer, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.core.timing import LATE_MS
from celery_redlock.exceptions import LockLost
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import GaveUp, Held, Outcome, Patience, Taken
from tests.contract.desk import LONG, Desk, until

NAMES = ("a", "b", "c")
DEAD_PID = 424242


class Party:
    """A process of its own, as far as the store can tell: a manager and what it said."""

    def __init__(self, store: Store) -> None:
        self.said: List[events.Event] = []
        self.manager = Manager(
            store, self.said.append, is_dead=lambda record: record.pid == DEAD_PID
        )

    def holds(self, *names: str, lease_ms: int = LONG, pid: int = 1, **options: Any) -> List[Hold]:
        record = Record(host="here", pid=pid, since=time.time(), task_id="t", task="t")
        return [Hold(name, Terms(lease_ms=lease_ms), record, **options) for name in names or NAMES]

    def have(self, *names: str, **options: Any) -> List[Hold]:
        holds = self.holds(*names, **options)
        assert isinstance(self.manager.acquire_all(holds), Held)
        return holds

    def end(self, *holds: Hold) -> None:
        for hold in holds:
            self.manager.release(hold)

    def close(self) -> None:
        """Leave nothing to its watchdog, which would go on into the tests that follow."""
        self.end(*self.manager.watchdog.renewing)
        until(lambda: self.manager.is_idle, "it has nothing left to do")

    def heard(self, kind: type) -> List[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    @contextmanager
    def asking(self, holds: List[Hold], patience: Patience) -> Iterator[List[Any]]:
        """Ask in a thread; its outcome, or what it raised, is in the list after the block."""
        came: List[Any] = []

        def ask() -> None:
            try:
                came.append(self.manager.acquire_all(holds, patience))
            except Exception as error:  # noqa: BLE001 - told to the test
                came.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        yield came
        thread.join(20)
        assert came, "the ask did not end"


@pytest.fixture
def me(store: Store) -> Iterator[Party]:
    party = Party(store)
    yield party
    party.close()


@pytest.fixture
def rival(store: Store) -> Iterator[Party]:
    party = Party(store)
    yield party
    party.close()


@pytest.fixture
def desk_of(store: Store) -> Callable[[str], Desk]:
    return lambda name: Desk(store, name)


Desks = Callable[[str], Desk]


def states(holds: List[Hold]) -> List[State]:
    return [hold.state for hold in holds]


def test_all_are_held_and_renewed_each_with_its_fence(me: Party) -> None:
    holds = me.have()
    assert states(holds) == [State.HELD] * 3
    assert all(hold.fence for hold in holds)
    assert me.manager.watchdog.renewing == holds
    assert [event.resource for event in me.heard(events.Acquired)] == list(NAMES)
    me.end(*holds)
    assert me.manager.is_idle


def test_a_busy_one_leaves_none_of_them_held(me: Party, rival: Party, desk_of: Desks) -> None:
    theirs = rival.have("b")
    holds = me.holds()
    outcome = me.manager.acquire_all(holds)
    assert isinstance(outcome, Taken)
    assert outcome.resource == "b"
    assert states(holds) == [State.ENDED] * 3
    assert me.manager.is_idle
    assert desk_of("a").live() == []
    rival.end(*theirs)


def test_who_waits_for_the_second_holds_the_first_and_not_the_third(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    theirs = rival.have("b")
    holds = me.holds()
    with me.asking(holds, Patience()) as came:
        until(lambda: bool(desk_of("b").line()), "it stands in line")
        assert desk_of("a").live() == [holds[0].token]
        others = rival.have("c")
        rival.end(*theirs)
        until(lambda: bool(desk_of("c").line()), "it stands in the next line")
        until(lambda: holds[1].state is State.HELD, "it is told of the second")
        rival.end(*others)
    assert isinstance(came[0], Held)
    assert [event.resource for event in me.heard(events.Waiting)] == ["b", "c"]
    me.end(*holds)
    assert me.manager.is_idle
    assert rival.manager.is_idle


def test_what_is_held_while_another_is_awaited_is_renewed(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    theirs = rival.have("b")
    holds = me.holds("a", "b", lease_ms=1000)
    with me.asking(holds, Patience()) as came:
        until(lambda: bool(desk_of("b").line()), "it stands in line")
        time.sleep(1.5)
        assert desk_of("a").live() == [holds[0].token]
        rival.end(*theirs)
    assert isinstance(came[0], Held)
    me.end(*holds)


def test_giving_up_the_wait_gives_back_what_was_held(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    theirs = rival.have("c")
    holds = me.holds()
    outcome = me.manager.acquire_all(holds, Patience(until=time.monotonic() + 0.1))
    assert isinstance(outcome, GaveUp)
    assert outcome.resource == "c"
    assert states(holds) == [State.ENDED] * 3
    assert [desk_of(name).live() for name in NAMES] == [[], [], [theirs[0].token]]
    assert desk_of("c").line() == []
    assert me.manager.is_idle
    rival.end(*theirs)


def test_one_that_lapsed_during_the_wait_ends_it_with_none_held(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    theirs = rival.have("b")
    holds = me.holds("a", "b")
    with me.asking(holds, Patience()) as came:
        until(lambda: bool(desk_of("b").line()), "it stands in line")
        # As after a pause beyond the lease: gone, and another was granted it.
        desk_of("a").leave(holds[0].token)
        others = rival.have("a")
        rival.end(*others, *theirs)
    assert isinstance(came[0], LockLost)
    until(lambda: me.manager.is_idle, "what it asked for is released")
    assert desk_of("b").live() == []


def test_the_longest_hold_counts_from_when_all_are_held(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    theirs = rival.have("b")
    holds = me.holds("a", "b", max_hold=1.0, lease_ms=1000)
    with me.asking(holds, Patience()) as came:
        until(lambda: bool(desk_of("b").line()), "it stands in line")
        time.sleep(1.2)
        rival.end(*theirs)
    assert isinstance(came[0], Held)
    assert states(holds) == [State.HELD] * 2
    until(lambda: states(holds) == [State.LOST] * 2, "they are held for as long as allowed")


def test_opposite_wishes_in_one_order_never_block_one_another(store: Store) -> None:
    parties = [Party(store) for _ in range(4)]
    wishes = [("a", "b"), ("b", "c"), ("a", "c"), ("a", "b", "c")]
    outcomes: List[Outcome] = []

    def work(party: Party, names: Any) -> None:
        for _ in range(15):
            holds = party.holds(*names)
            outcomes.append(party.manager.acquire_all(holds, Patience(until=time.monotonic() + 30)))
            party.end(*holds)

    threads = [
        threading.Thread(target=work, args=(party, names)) for party, names in zip(parties, wishes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 60
    assert all(isinstance(outcome, Held) for outcome in outcomes)


# --- dead holders


def test_a_dead_holder_is_replaced_at_once_and_that_is_said(me: Party, rival: Party) -> None:
    (theirs,) = rival.have("a", pid=DEAD_PID)
    (mine,) = me.have("a")
    assert mine.fence > theirs.fence
    (said,) = me.heard(events.Reclaimed)
    assert (said.resource, said.owner.pid, said.holder.pid) == ("a", 1, DEAD_PID)
    me.end(mine)


def test_who_believed_to_be_dead_is_told_that_it_lost(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    (theirs,) = rival.have("a", pid=DEAD_PID)
    (mine,) = me.have("a")
    theirs.due = 0.0
    rival.manager.watchdog.round()
    assert theirs.state is State.LOST
    assert desk_of("a").live() == [mine.token]
    me.end(mine)


def test_every_dead_holder_of_a_wider_resource_is_replaced(me: Party, rival: Party) -> None:
    living = rival.holds("a")[0]
    dead = rival.holds("a", "a", pid=DEAD_PID)
    for hold in (living, *dead):
        hold.terms = Terms(limit=3)
        assert isinstance(rival.manager.acquire(hold), Held)
    mine = me.holds("a", "a")
    for hold in mine:
        hold.terms = Terms(limit=3)
        assert isinstance(me.manager.acquire(hold, Patience(until=time.monotonic() + 5)), Held)
    assert len(me.heard(events.Reclaimed)) == 2
    me.end(*mine)
    rival.end(living)


def test_the_line_comes_before_who_proved_the_death(
    me: Party, rival: Party, desk_of: Desks
) -> None:
    rival.have("a", pid=DEAD_PID)
    desk_of("a").queued("waiter", waiter_ttl_ms=LONG, grant_ttl_ms=LONG)
    (mine,) = me.holds("a")
    outcome = me.manager.acquire(mine)
    assert isinstance(outcome, Taken)
    assert desk_of("a").live() == ["waiter"]


def test_a_hold_that_is_kept_over_a_retry_outlives_its_process(me: Party, rival: Party) -> None:
    (theirs,) = rival.have("a", pid=DEAD_PID)
    rival.manager.keep(theirs, "retry 1", countdown=60)
    assert isinstance(me.manager.acquire(me.holds("a")[0]), Taken)
    assert me.heard(events.Reclaimed) == []


def test_the_head_of_a_line_notices_a_death_within_seconds(
    me: Party, rival: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_redlock.locking.proof.is_of_this_host", lambda record: True)
    rival.have("a", pid=DEAD_PID)
    dead = threading.Event()
    me.manager.proof = lambda record: dead.is_set() and record.pid == DEAD_PID
    with me.asking(me.holds("a"), Patience(until=time.monotonic() + 20)) as came:
        until(lambda: bool(me.heard(events.Waiting)), "it stands in line")
        dead.set()
        died = time.monotonic()
    assert isinstance(came[0], Held)
    # Its heartbeat comes every five seconds, and nobody else would tell it.
    assert time.monotonic() - died < 4.0
    me.end(*came[0].holds)


class Silent:
    """A store that does not answer when it is told that somebody is dead."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def leave(self, request: Any) -> Any:
        raise NoAnswer("silent")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_server_that_falls_silent_at_the_proof_ends_the_ask(store: Store, rival: Party) -> None:
    rival.have("a", pid=DEAD_PID)
    me = Party(Silent(store))
    with pytest.raises(NoAnswer):
        me.manager.acquire(me.holds("a")[0])


def test_a_wait_whose_earlier_hold_this_process_gave_up_as_lost_ends_as_lost(
    me: Party, rival: Party, store: Store, desk_of: Desks
) -> None:
    """The watchdog takes leave of a lost hold while the next call for all of them is under way."""
    theirs = rival.have("b")
    holds = me.holds("a", "b")
    with me.asking(holds, Patience()) as came:
        until(lambda: bool(desk_of("b").line()), "it stands in line")
        store.leave(Leave("a", (holds[0].token,), LATE_MS))
        rival.end(*theirs)
    assert isinstance(came[0], LockLost)
    until(lambda: me.manager.is_idle, "what it asked for is released")
