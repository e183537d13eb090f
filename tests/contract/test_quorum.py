"""Redlock: what a majority of independent servers promises, also when some of them are away."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from itertools import permutations
from typing import Callable, Iterator, Tuple

import pytest

from celery_redlock.core.ports import (
    Acquire,
    Busy,
    Closed,
    Extended,
    Granted,
    Leave,
    Line,
    NoAnswer,
    Queued,
    Renew,
    Seen,
    Store,
    Terms,
)
from celery_redlock.core.quorum import Tally
from celery_redlock.store import voter
from celery_redlock.store.majority import Contenders
from celery_redlock.store.several import open_several
from tests.contract.desk import said, until
from tests.harness.independent import Independent
from tests.harness.proxy import Proxy

PREFIX = "test:1:"
LEASE_MS = 20_000

#: Far above what a server needs on a busy machine.
PATIENT = {"socket_timeout": 3.0}


class Room:
    """One resource, over servers of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def ask(self, token: str, line: bool = False, lease_ms: int = LEASE_MS) -> object:
        place = Line("in", 60_000, 60_000) if line else None
        return self.store.acquire(Acquire("room", token, Terms(lease_ms=lease_ms), "r", place))

    def granted(self, token: str, lease_ms: int = LEASE_MS) -> int:
        answer = self.ask(token, lease_ms=lease_ms)
        assert isinstance(answer, Granted), answer
        return answer.fence

    def settle(self, token: str, fence: int) -> object:
        (answer,) = self.store.renew([Renew("room", token, fence, 0)])
        return answer

    def leave(self, token: str) -> str:
        return self.store.leave(Leave("room", (token,))).what

    def until_granted(self, token: str) -> None:
        def is_granted() -> bool:
            try:
                return isinstance(self.ask(token), Granted)
            except NoAnswer:
                return False

        until(is_granted, f"{token} is granted it")


@pytest.fixture
def independent() -> Iterator[Independent]:
    with Independent.durable() as independent:
        yield independent


@pytest.fixture
def open_room(independent: Independent) -> Iterator[Callable[[], Room]]:
    with ExitStack() as stack:

        def open_one(**options: float) -> Room:
            store = open_several(independent.urls, prefix=PREFIX, options={**PATIENT, **options})
            stack.callback(store.close)
            return Room(store)

        yield open_one


def entries(independent: Independent) -> int:
    """How many servers have a holder of the resource."""
    count = 0
    for server in independent.servers:
        with server.client() as client:
            fields = client.hgetall(f"{PREFIX}{{room}}:h")
            count += any(field.startswith("h:") for field in fields)
    return count


def test_two_of_five_dead_change_nothing(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    room.granted("a")
    for server in independent.servers[:2]:
        server.kill()
    assert isinstance(room.ask("b"), Busy)
    assert room.leave("a") == "holder"
    room.until_granted("b")


def test_without_a_majority_nobody_runs_and_it_is_said_which_is_missing_and_how(
    independent: Independent, open_room: Callable[..., Room]
) -> None:
    room = open_room(socket_timeout=0.5)
    for server in independent.servers[:2]:
        server.kill()
    independent.servers[2].pause()
    with pytest.raises(NoAnswer):
        room.ask("a")
    with pytest.raises(NoAnswer) as silence:
        room.ask("a")
    told = silence.value.servers
    dead, hung = independent.urls[:2], independent.urls[2]
    assert all(f"{url} (refused)" in told for url in dead), told
    assert f"{hung} (no answer in 0.5 s)" in told
    assert told.endswith("3 of 5 must answer")
    assert independent.urls[3] not in told


def test_a_server_that_restarted_empty_does_not_vote_for_a_lease(
    open_room: Callable[[], Room],
) -> None:
    with Independent(3) as forgetful:
        room = Room(open_several(forgetful.urls, prefix=PREFIX, longest_lease=30))
        with pytest.raises(NoAnswer, match=r"restarted [0-9] s ago: does not vote"):
            room.ask("a")
        hasty = Room(open_several(forgetful.urls, prefix=PREFIX, longest_lease=0.5))
        forgetful.let_vote(0.5)
        hasty.granted("a", lease_ms=500)


def test_a_hung_server_is_found_once_and_asked_no_more(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room(socket_timeout=0.3)
    room.granted("warm")
    room.leave("warm")
    independent.servers[0].pause()
    began = time.monotonic()
    for number in range(100):
        token = f"t{number}"
        room.until_granted(token)
        assert room.leave(token) == "holder"
    # A hundred times its patience would be half a minute.
    assert time.monotonic() - began < 20
    independent.servers[0].resume()


def test_a_late_answer_is_awaited_asleep(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    room.granted("warm")
    room.leave("warm")
    for server in independent.servers[:3]:
        server.pause()
    resume = threading.Timer(0.5, lambda: [server.resume() for server in independent.servers[:3]])
    resume.start()
    began, worked = time.monotonic(), time.thread_time()
    room.granted("a")
    assert time.thread_time() - worked < (time.monotonic() - began) / 4
    resume.join()


def test_what_a_hung_server_granted_unseen_is_taken_back_when_it_answers_again(
    independent: Independent, open_room: Callable[..., Room]
) -> None:
    room = open_room(socket_timeout=0.3)
    room.granted("warm")
    room.leave("warm")
    independent.servers[0].pause()
    room.granted("a")
    room.leave("a")
    time.sleep(0.4)  # longer than its patience: its answers are given up
    room.until_granted("b")
    room.leave("b")
    independent.servers[0].resume()
    until(lambda: entries(independent) == 0, "no server has a holder any more")


def test_of_those_who_ask_at_once_at_most_one_is_granted(
    open_room: Callable[[], Room],
) -> None:
    first, second = open_room(), open_room()
    for number in range(30):
        answers = [first.ask(f"a{number}"), second.ask(f"b{number}")]
        assert sum(isinstance(answer, Granted) for answer in answers) == 1
        assert first.leave(f"a{number}") == "holder"
        assert second.leave(f"b{number}") != "holder"


def test_a_try_that_came_to_nothing_leaves_nothing_behind(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    for server in independent.servers[:3]:
        with server.client() as client:
            # Another one's votes, at three of five.
            client.hset(
                f"{PREFIX}{{room}}:h", "h:z", f"{int(time.time() * 1000) + 60000}|1|x|1|c||r"
            )
    assert isinstance(room.ask("a"), Busy)
    until(lambda: entries(independent) == 3, "only the other one's votes are left")


def test_a_copy_of_an_ask_takes_nothing_from_what_was_granted(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room(socket_timeout=0.5)
    fence = room.granted("a")
    room.settle("a", fence)
    for server in independent.servers[:3]:
        server.pause()
    with pytest.raises(NoAnswer):
        room.ask("a")
    for server in independent.servers[:3]:
        server.resume()
    assert isinstance(open_room().ask("b"), Busy)
    assert entries(independent) == len(independent.servers)


def test_a_fence_that_was_shown_is_known_to_a_majority(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    fence = room.granted("a")
    assert room.settle("a", fence) == Extended()
    knowing = 0
    for server in independent.servers:
        with server.client() as client:
            knowing += int(client.hget(f"{PREFIX}{{room}}:h", "f") or 0) >= fence
    assert knowing >= 3


def test_a_renewal_counts_only_what_has_never_lapsed(open_room: Callable[[], Room]) -> None:
    room = open_room()
    fence = room.granted("a", lease_ms=300)
    until(lambda: not any(h.remaining_ms > 0 for h in room.store.inspect("room").holders), "lapse")
    assert isinstance(room.settle("a", fence), Closed)


def until_everywhere(room: Room, independent: Independent, renewal: Renew) -> None:
    def is_everywhere() -> bool:
        assert list(room.store.renew([renewal])) == [Extended()]
        return entries(independent) == len(independent.servers)

    until(is_everywhere, "every server has it")


def test_a_renewal_finds_new_votes_for_those_that_were_lost(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    fence = room.granted("a")
    for server in independent.servers[:2]:
        server.flush()
    until_everywhere(room, independent, Renew("room", "a", fence, LEASE_MS))


def test_a_server_that_always_answers_last_is_asked_for_its_vote_again_too() -> None:
    with Independent.durable(3) as three, closing(open_three(three)) as store:
        room = Room(store)
        fence = room.granted("a")
        assert room.settle("a", fence) == Extended()
        last = three.servers[2]
        last.flush()

        def is_everywhere() -> bool:
            last.pause()
            try:
                assert list(store.renew([Renew("room", "a", fence, LEASE_MS)])) == [Extended()]
            finally:
                last.resume()
            return entries(three) == 3

        until(is_everywhere, "every server has it")


def test_a_server_that_restarted_empty_is_not_asked_for_its_vote_again_too_early() -> None:
    lease_ms = 4000
    with Independent(3) as three, ExitStack() as stack:
        store = open_several(three.urls, prefix=PREFIX, options=PATIENT, longest_lease=4)
        room = Room(stack.enter_context(closing(store)))
        three.let_vote(4)
        fence = room.granted("a", lease_ms)
        renewal = Renew("room", "a", fence, lease_ms)
        last = three.servers[2]
        last.flush()
        last.pause()
        # That it has nothing of the hold is heard only after the next renewal was begun.
        assert list(store.renew([renewal])) == [Extended()]
        last.resume()
        time.sleep(0.1)
        last.restart()
        with last.client() as client:
            for _ in range(5):
                assert list(store.renew([renewal])) == [Extended()]
                time.sleep(0.05)
                assert not client.keys()


def test_connections_that_only_a_rush_needed_are_closed_after_it(
    independent: Independent, open_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_room().store

    def cycle(name: str) -> None:
        store.acquire(Acquire(name, name, Terms(lease_ms=LEASE_MS), "r"))
        store.leave(Leave(name, (name,)))

    def connected() -> int:
        many = 0
        for server in independent.servers:
            with server.client() as client:
                many += client.info("clients")["connected_clients"] - 1
        return many

    gate = threading.Barrier(8)

    def rush(name: str) -> None:
        gate.wait()
        for _ in range(20):
            cycle(name)

    threads = [threading.Thread(target=rush, args=(f"rush {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert connected() > 2 * len(independent.servers)
    monkeypatch.setattr(voter, "SURPLUS", 0.1)

    def is_over() -> bool:
        cycle("later")
        # One for what is asked, and one that may still owe an answer.
        return connected() <= 2 * len(independent.servers)

    until(is_over, "they are closed")


def test_a_server_without_a_part_in_a_hold_saves_it_when_another_dies() -> None:
    with Independent.durable(3) as three, closing(open_three(three)) as store:
        room = Room(store)
        fence = room.granted("a")
        assert room.settle("a", fence) == Extended()
        _first, second, third = three.servers
        third.flush()
        second.kill()
        renewal = Renew("room", "a", fence, LEASE_MS)
        until(lambda: list(store.renew([renewal])) == [Extended()], "the third server has it")


def open_three(three: Independent) -> Store:
    return open_several(three.urls, prefix=PREFIX, options=PATIENT)


def test_a_vote_that_is_still_under_way_is_not_taken_for_a_lost_one(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    room.granted("warm")
    room.leave("warm")
    late, forgetful = independent.servers[3:], independent.servers[:2]
    for server in late:
        with server.client() as client:
            # Its clock is ahead: what it gives is greater than the fence of the majority.
            client.hset(f"{PREFIX}{{room}}:h", "f", str(int((time.time() + 60) * 1e6)))
        server.pause()
    fence = room.granted("a")
    for server in forgetful:
        server.flush()
    resume = threading.Timer(0.2, lambda: [server.resume() for server in late])
    resume.start()
    answer = room.settle("a", fence)
    assert not isinstance(answer, Closed)
    resume.join()
    until(lambda: room.settle("a", fence) == Extended(), "the late ones are heard")


def test_a_vote_that_comes_after_a_rivals_hold_brings_no_older_hold_back() -> None:
    lease_ms = 2000
    patient = {"socket_timeout": 30.0}
    with Independent.durable(3) as three, ExitStack() as stack:
        second, third = (stack.enter_context(Proxy(url)) for url in three.urls[1:])
        urls = [three.urls[0], second.url, third.url]
        stores = [open_several(each, prefix=PREFIX, options=patient) for each in (urls, three.urls)]
        ours, rivals = (Room(stack.enter_context(closing(store))) for store in stores)
        for room in (ours, rivals):
            room.until_granted("warm")
            room.leave("warm")
        third.hold()
        fence = ours.granted("a", lease_ms)
        time.sleep(lease_ms / 2000)
        second.hold()
        renewal = Renew("room", "a", fence, lease_ms)
        # Only the first server extends it, which so keeps it for longer than the others.
        renewing = threading.Thread(target=ours.store.renew, args=([renewal],))
        renewing.start()
        rivals.until_granted("b")
        rivals.leave("b")
        second.let_go()
        third.let_go()
        renewing.join()
        (answer,) = ours.store.renew([renewal])
        assert isinstance(answer, Closed)


def test_a_new_vote_carries_the_record_that_a_renewal_brought(
    independent: Independent, open_room: Callable[[], Room]
) -> None:
    room = open_room()
    fence = room.granted("a")
    for server in independent.servers[:2]:
        server.flush()
    renewal = Renew("room", "a", fence, LEASE_MS, record="the child's")
    until_everywhere(room, independent, renewal)
    for server in independent.servers[3:]:
        server.kill()
    (holder,) = room.store.inspect("room").holders
    assert holder.record == "the child's"


@pytest.mark.parametrize("states", list(permutations(["kept", "confirmed", "confirmed"])))
def test_what_one_server_knows_to_be_kept_is_kept(states: Tuple[str, ...]) -> None:
    # The others have not heard of it yet. What is not kept goes with the death of its process.
    refusals = [Busy(0, (Seen("a", 1, state, "r"),)) for state in states]
    (holder,), _is_held = Contenders().among("room", refusals, Tally(5))
    assert holder.state == "kept"


def test_a_release_wakes_who_waited_longest(open_room: Callable[[], Room]) -> None:
    room = open_room()
    room.granted("a")
    subscription = room.store.subscribe("in")
    assert isinstance(room.ask("b", line=True), Queued)
    assert isinstance(room.ask("c", line=True), Queued)
    room.leave("a")
    assert said(subscription.get(10)) == "G b"
    subscription.close()


def test_a_token_that_is_another_ones_releases_nothing(open_room: Callable[[], Room]) -> None:
    room = open_room()
    room.granted("a")
    assert room.leave("b") == "absent"
    assert [holder.token for holder in room.store.inspect("room").holders] == ["a"]
