"""The asker on every store: hundreds in line, few slots, and what that costs the server."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import Any, Dict, Iterator, List, Optional, Sequence

import pytest

from celery_redlock.core import events
from celery_redlock.core.ports import Leave, LeaveAnswer, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.locking import identity
from celery_redlock.locking.asker import Asker, Ended, Pending
from celery_redlock.locking.execution import HeldLock
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Cancelled, Dropped, GaveUp, Held, Patience, StoodBack
from tests.contract.conftest import Backend
from tests.contract.desk import until

WITHIN = 30.0


class Owner:
    """Who asks, and gives a slot to whoever is woken, unless there is ``no_slot``."""

    def __init__(self, store: Store) -> None:
        self.told: List[events.Event] = []
        self.manager = Manager(store, self.told.append)
        self.asker = Asker(self.manager)
        self.no_slot = False
        self.asked: List[Pending] = []
        self.queues: Counter[Pending] = Counter()
        self.wakes: Counter[Pending] = Counter()
        self.ended: Dict[Pending, Ended] = {}
        self.runs_each = False

    def ask(self, *names: str, patience: Optional[Patience] = None, seq: int = 0) -> Pending:
        me = identity.here()
        record = Record(me.host, me.pid, 0.0, boot_id=me.boot_id, pid_namespace=me.pid_namespace)
        holds = [Hold(name, Terms(lease_ms=30_000), record) for name in names]
        holds[-1].seq = seq
        pending = self.asker.ask(holds, patience or Patience(), self)
        self.asked.append(pending)
        return pending

    def queued(self, pending: Pending) -> None:
        self.queues[pending] += 1

    def woken(self, pending: Pending) -> None:
        self.wakes[pending] += 1
        if not self.no_slot:
            pending.go_on()

    def done(self, pending: Pending, ended: Ended) -> None:
        assert pending not in self.ended, "it ended twice"
        self.ended[pending] = ended
        if self.runs_each and isinstance(ended, Held):
            self.manager.release_all(ended.holds)

    def end_of(self, pending: Pending) -> Ended:
        until(lambda: pending in self.ended, "it ends")
        return self.ended[pending]

    def held(self, *names: str) -> Pending:
        pending = self.ask(*names)
        assert isinstance(self.end_of(pending), Held)
        return pending

    def in_line(self, *names: str, **how: Any) -> Pending:
        pending = self.ask(*names, **how)
        until(lambda: self.queues[pending] > 0, "it stands in line")
        return pending

    def go_home(self) -> None:
        """Leave nothing that would ask, or be renewed, in the next test."""
        self.asker.cancel_all(self.asked)
        self.asker.wait_until_told(WITHIN)
        for pending, ended in list(self.ended.items()):
            if isinstance(ended, Held):
                self.release(pending)

    def release(self, pending: Pending) -> None:
        self.manager.release_all(pending.holds)


@pytest.fixture
def owner(store: Store) -> Iterator[Owner]:
    owner = Owner(store)
    yield owner
    owner.go_home()


def test_a_release_wakes_the_first_in_line_and_it_goes_on(owner: Owner) -> None:
    first = owner.held("a")
    second, third = owner.in_line("a"), owner.in_line("a")
    owner.release(first)
    assert isinstance(owner.end_of(second), Held)
    assert third not in owner.ended
    # A heartbeat may tell it once more where its answer is late.
    assert set(owner.wakes) == {second}


def test_who_stands_back_passes_the_lock_on_and_finds_its_place_again(owner: Owner) -> None:
    first = owner.held("a")
    second = owner.in_line("a")
    third = owner.in_line("a")
    owner.no_slot = True
    owner.release(first)
    until(lambda: owner.wakes[second] > 0, "it is woken")
    owner.no_slot = False
    second.stand_back()
    ended = owner.end_of(second)
    assert isinstance(ended, StoodBack)
    assert isinstance(owner.end_of(third), Held)
    later = owner.in_line("a")
    again = owner.in_line("a", seq=ended.seqs[0])
    owner.release(third)
    assert isinstance(owner.end_of(again), Held)
    assert later not in owner.ended


def test_whose_owner_stands_still_is_not_in_the_way(owner: Owner, store: Store) -> None:
    """All that it has in line leaves, in one step, and is told its places when it goes on."""
    first = owner.held("a")
    owner.no_slot = True
    still = [owner.in_line("a") for _ in range(10)]
    other = Owner(store)
    lively = other.in_line("a")
    began = time.monotonic()
    owner.release(first)
    assert isinstance(other.end_of(lively), Held)
    assert time.monotonic() - began < 5.0
    ended = [owner.end_of(pending) for pending in still]
    assert ended == [StoodBack((pending.holds[0].seq,)) for pending in still]
    other.go_home()


def test_who_has_given_up_when_it_is_to_stand_back_gives_up_once(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = owner.manager.emit

    def say(event: events.Event) -> None:
        emit(event)
        if isinstance(event, events.TimedOut):
            pending.stand_back()

    monkeypatch.setattr(owner.manager, "emit", say)
    owner.held("a")
    pending = owner.in_line("a", patience=Patience(until=time.monotonic() + 0.2))
    assert isinstance(owner.end_of(pending), GaveUp)


def test_a_woken_one_that_is_cancelled_passes_the_lock_on(owner: Owner) -> None:
    first = owner.held("a")
    second = owner.in_line("a")
    third = owner.in_line("a")
    owner.no_slot = True
    owner.release(first)
    until(lambda: owner.wakes[second] > 0, "it is woken")
    owner.no_slot = False
    assert second.cancel()
    assert owner.end_of(second) == Cancelled()
    assert isinstance(owner.end_of(third), Held)
    assert not second.cancel()


def test_a_crowd_that_leaves_a_line_at_once_does_not_pass_the_lock_around(
    owner: Owner, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes all who wait out of it, and only then somebody is granted."""
    sent: List[Leave] = []
    leave_batch = store.leave_batch

    def spy(requests: Sequence[Leave]) -> Sequence[LeaveAnswer]:
        sent.extend(requests)
        return leave_batch(requests)

    monkeypatch.setattr(store, "leave_batch", spy)
    first = owner.held("a")
    crowd = [owner.in_line("a") for _ in range(20)]
    last, elsewhere = owner.in_line("a"), owner.held("b")
    crowd.append(owner.in_line("b"))
    owner.no_slot = True
    owner.release(first)
    until(lambda: owner.wakes[crowd[0]] > 0, "it is woken")
    owner.no_slot = False
    owner.asker.cancel_all(crowd)
    assert isinstance(owner.end_of(last), Held)
    assert {owner.end_of(each) for each in crowd} == {Cancelled()}
    # The first of them had been granted it.
    assert [(request.resource, len(request.tokens)) for request in sent] == [
        ("a", 19),
        ("b", 1),
        ("a", 1),
    ]
    owner.release(elsewhere)


def test_what_it_holds_while_it_waits_is_freed_when_it_stands_back(owner: Owner) -> None:
    owner.held("b")
    both = owner.in_line("a", "b")
    other = owner.in_line("a")
    both.stand_back()
    assert isinstance(owner.end_of(both), StoodBack)
    assert isinstance(owner.end_of(other), Held)


def test_one_that_a_newcomer_drops_hears_it_without_a_slot(owner: Owner) -> None:
    owner.held("a")
    owner.no_slot = True
    latest = Patience(max_waiting=1, overflow="drop_oldest")
    old = owner.in_line("a", patience=latest)
    owner.in_line("a", patience=latest)
    assert owner.end_of(old) == Dropped("a", "overflow")
    assert owner.wakes[old] == 0


def test_one_of_several_that_is_dropped_releases_what_it_holds_and_loses_nothing(
    owner: Owner,
) -> None:
    owner.held("b")
    latest = Patience(max_waiting=1, overflow="drop_oldest")
    old = owner.in_line("a", "b", patience=latest)
    owner.in_line("b", patience=latest)
    assert owner.end_of(old) == Dropped("b", "overflow")
    assert isinstance(owner.end_of(owner.ask("a")), Held)
    released = [event.resource for event in owner.told if isinstance(event, events.Released)]
    assert released == ["a"]
    assert not any(isinstance(event, events.Lost) for event in owner.told)


def test_a_wait_ends_when_its_patience_does(owner: Owner) -> None:
    owner.held("a")
    pending = owner.ask("a", patience=Patience(until=time.monotonic() + 0.2))
    assert isinstance(owner.end_of(pending), GaveUp)
    assert owner.manager.inspect("a").waiters == ()


def test_a_holder_that_has_died_on_this_host_is_noticed_while_all_its_waiters_are_parked(
    owner: Owner,
) -> None:
    dies = threading.Event()
    owner.manager.proof = lambda record: dies.is_set()
    owner.held("a")
    pending = owner.in_line("a")
    dies.set()
    assert isinstance(owner.end_of(pending), Held)
    assert any(isinstance(event, events.Reclaimed) for event in owner.told)


def test_a_lost_wake_up_is_healed_by_a_heartbeat(owner: Owner) -> None:
    first = owner.held("a")
    pending = owner.in_line("a")
    owner.manager.wakeups.forget(pending.holds[0])
    owner.release(first)
    until(lambda: not owner.manager.inspect("a").waiters, "it is granted")
    owner.manager.watchdog.beat_now()
    assert isinstance(owner.end_of(pending), Held)


def test_the_end_of_a_worker_leaves_nobody_in_line_but_who_is_anothers(owner: Owner) -> None:
    owner.held("a")
    pendings = [owner.in_line("a") for _ in range(10)]
    owner.asker.cancel_all(pendings[1:])
    owner.asker.wait_until_told(WITHIN)
    assert [owner.ended[pending] for pending in pendings[1:]] == [Cancelled()] * 9
    assert pendings[0] not in owner.ended
    assert len(owner.manager.inspect("a").waiters) == 1
    owner.asker.cancel_all(pendings)
    owner.asker.wait_until_told(WITHIN)
    assert owner.manager.inspect("a").waiters == ()


def test_each_of_hundreds_gets_it_once(owner: Owner) -> None:
    owner.runs_each = True
    threads = threading.active_count()
    pendings = [owner.ask(f"r{number % 3}") for number in range(300)]
    until(lambda: len(owner.ended) == len(pendings), "all have had it")
    assert all(isinstance(ended, Held) for ended in owner.ended.values())
    fences = [pending.holds[0].fence for pending in pendings]
    assert len({(n % 3, fence) for n, fence in enumerate(fences)}) == len(pendings)
    assert owner.manager.is_idle
    assert threading.active_count() <= threads


def test_a_forked_child_asks_for_nobody(owner: Owner) -> None:
    first = owner.held("a")
    pending = owner.in_line("a")
    child = os.fork()
    if not child:
        pending.go_on()
        pending.cancel()
        os._exit(0 if owner.asker.is_idle else 1)
    assert os.waitpid(child, 0)[1] == 0
    owner.release(first)
    assert isinstance(owner.end_of(pending), Held)


def test_a_lock_passed_on_costs_the_same_however_many_wait(real: Backend) -> None:
    owner, crowd, passes = Owner(real.open()), 1000, 100
    assert real.server is not None
    client = real.server.client()
    pending = owner.held("a")
    waiting = [owner.ask("a") for _ in range(crowd)]
    until(lambda: len(owner.queues) == crowd, "all stand in line")
    before = _scripts_called(client)
    for next_one in waiting[:passes]:
        owner.release(pending)
        assert isinstance(owner.end_of(next_one), Held)
        pending = next_one
    # Heartbeats included: they go out in batches.
    assert (_scripts_called(client) - before) / passes < 5
    owner.go_home()


def _scripts_called(client: Any) -> int:
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_what_is_handed_over_is_held_by_the_receiver_and_nobody_else(owner: Owner) -> None:
    given = owner.held("a").holds[0]
    handed = owner.manager.hand_over(given)
    receiver = Owner(owner.manager.store).manager
    taken = Hold("a", given.terms, given.record)
    taken.token = given.token
    assert receiver.adopt(taken, handed)
    assert taken.fence == given.fence
    assert owner.manager.watchdog.renewing == []
    assert receiver.watchdog.renewing == [taken]
    left = receiver.release(taken)
    assert left is not None
    assert left.what == "holder"


def open_inbox(owner: Owner) -> None:
    """From here on messages are heard: one was, or the heartbeat that an opened inbox sends."""
    before, after = owner.held("another"), owner.in_line("another")
    owner.release(before)
    assert isinstance(owner.end_of(after), Held)
    owner.release(after)


def taken_in_line(owner: Owner) -> Hold:
    """What a release has granted, and its message brought."""
    open_inbox(owner)
    owner.no_slot = True
    first, second = owner.held("a"), owner.in_line("a")
    owner.release(first)
    until(lambda: owner.wakes[second] > 0, "it is woken")
    held = second.take()
    assert held is not None
    assert second not in owner.ended, "told twice"
    return held.holds[0]


def test_what_a_message_brings_is_taken_without_asking(owner: Owner, store: Store) -> None:
    asked: List[Any] = []
    acquire_batch = store.acquire_batch
    owner.asker._store.acquire_batch = (  # type: ignore[method-assign]
        lambda asks: asked.append(asks) or acquire_batch(asks)  # type: ignore[func-returns-value]
    )
    hold = taken_in_line(owner)
    assert [[ask.resource for ask in asks[0]] for asks in asked][-2:] == [["a"], ["a"]]
    assert len(asked) <= 5, "each asks once, to be held or to stand in line"
    (holder,) = owner.manager.inspect("a").holders
    assert (holder.token, holder.fence) == (hold.token, hold.fence)
    owner.manager.release(hold)


def test_what_has_gone_on_cannot_be_taken_as_well(owner: Owner) -> None:
    open_inbox(owner)
    owner.no_slot = True
    first, second = owner.held("a"), owner.in_line("a")
    owner.release(first)
    until(lambda: owner.wakes[second] > 0, "it is woken")
    second.go_on()
    assert isinstance(owner.end_of(second), Held)
    assert second.take() is None


def test_a_grant_for_a_moment_becomes_a_lease_at_once(owner: Owner) -> None:
    hold = taken_in_line(owner)
    until(lambda: hold.trusted_until - time.monotonic() > 25.0, "it is renewed", within=0.9)
    assert owner.manager.inspect("a").holders[0].state == "confirmed"
    owner.manager.release(hold)


def test_a_look_at_its_lease_makes_it_one(owner: Owner) -> None:
    hold = taken_in_line(owner)
    owner.manager.watchdog.forget(hold)
    assert HeldLock((hold,)).is_held
    assert HeldLock((hold,)).expires_in > 25.0
    owner.manager.release(hold)


def test_what_was_handed_over_for_a_moment_becomes_a_lease_too(owner: Owner) -> None:
    given = taken_in_line(owner)
    receiver = Owner(owner.manager.store).manager
    taken = Hold("a", given.terms, given.record)
    taken.token = given.token
    assert receiver.adopt(taken, owner.manager.hand_over(given))
    until(lambda: taken.trusted_until - time.monotonic() > 25.0, "it is renewed", within=0.9)
    receiver.release(taken)


def test_one_that_is_granted_and_stands_back_passes_the_lock_on(owner: Owner) -> None:
    open_inbox(owner)
    owner.no_slot = True
    first, second, third = owner.held("a"), owner.in_line("a"), owner.in_line("a")
    owner.release(first)
    until(lambda: owner.wakes[second] > 0, "it is woken")
    assert second.stand_back()
    assert second.take() is None
    assert owner.end_of(second) == StoodBack((second.holds[0].seq,))
    until(lambda: owner.wakes[third] > 0, "the next one is woken")
    third.go_on()
    assert isinstance(owner.end_of(third), Held)


def test_the_first_renewal_of_what_was_handed_over_says_who_has_it_now(owner: Owner) -> None:
    given = owner.held("a").holds[0]
    receiver = Owner(owner.manager.store).manager
    record = given.record._replace(pid=os.getppid(), since=7.0)
    taken = Hold("a", given.terms, record)
    taken.token = given.token
    assert receiver.adopt(taken, owner.manager.hand_over(given))
    assert receiver.extend(taken, 30.0)
    wanted = record._replace(since=given.record.since)

    def says_so() -> bool:
        (holder,) = owner.manager.inspect("a").holders
        return Record.decode(holder.record) == wanted

    # Of several servers the last one may not have been renewed yet.
    until(says_so, "the record is the receiver's")
    receiver.release(taken)


def test_what_its_receiver_never_took_is_taken_back(owner: Owner) -> None:
    given = owner.held("a").holds[0]
    owner.manager.hand_over(given)
    owner.manager.take_back(given)
    assert owner.manager.inspect("a").holders == ()
    assert owner.manager.take_back(given) is None


def test_a_hold_that_is_trusted_for_a_moment_only_is_asked_for_again(owner: Owner) -> None:
    given = owner.held("a").holds[0]
    fence = given.shown_fence
    handed = owner.manager.hand_over(given)
    late = handed._replace(trusted_until=time.monotonic() + 0.1)
    taken = Hold("a", given.terms, given.record)
    taken.token = given.token
    assert not owner.manager.adopt(taken, late)
    assert isinstance(owner.manager.acquire(taken), Held)
    assert taken.fence == fence
    owner.manager.store.leave(Leave("a", (given.token,)))
