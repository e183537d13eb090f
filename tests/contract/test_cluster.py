"""Locks on a cluster: found wherever their slot is, while it moves and when its node dies."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import (
    Acquire,
    Beat,
    Confirm,
    Extended,
    Granted,
    NoAnswer,
    Queued,
    Renew,
    Store,
    Terms,
)
from celery_redlock.core.record import Record
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Outcome, Patience
from celery_redlock.store.urls import check_url, open_store
from tests.contract.conftest import PREFIX
from tests.contract.desk import LONG, PATIENCE, Desk, until
from tests.contract.test_urls import refused
from tests.harness.cluster import ClusterServers
from tests.harness.process import free_port

#: Enough for every node to have some.
MANY = [f"of many {number}" for number in range(150)]

#: Seconds that a failover may take on a busy machine.
FAILOVER = 60.0


@pytest.fixture
def cluster(servers: Callable[[str], Any]) -> Iterator[ClusterServers]:
    cluster: ClusterServers = servers("cluster")
    yield cluster
    cluster.flush()


@pytest.fixture
def opened(cluster: ClusterServers) -> Iterator[Callable[..., Store]]:
    stores: List[Store] = []

    def open_(**options: Any) -> Store:
        options = {**cluster.options, **options}
        stores.append(open_store(cluster.url, prefix=PREFIX, options=options, restart_grace=0.0))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


def key_of(resource: str) -> str:
    return f"{PREFIX}{{{resource}}}:h"


def hold_of(name: str, lease_ms: int = LONG) -> Hold:
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
    return Hold(name, Terms(lease_ms=lease_ms), record)


def holders(desk: Desk) -> List[str]:
    return [holder.token for holder in desk.view().holders]


# --- a slot that moves


def test_a_hold_moves_with_its_slot(cluster: ClusterServers, store: Store) -> None:
    desk = Desk(store, "moved")
    fence = desk.granted("me")
    desk.queued("next")
    cluster.move(key_of("moved"))
    assert desk.renew("me", fence) == Extended()
    cluster.move(key_of("moved"))
    assert isinstance(desk.beat("next"), Queued)
    cluster.move(key_of("moved"))
    assert desk.leave("me") == "holder"
    cluster.move(key_of("moved"))
    granted = desk.ask("next")
    assert isinstance(granted, Granted)
    assert granted.fence > fence


def test_a_hold_is_renewed_at_every_moment_of_the_move(
    cluster: ClusterServers, store: Store
) -> None:
    desk, other = Desk(store, "moving"), Desk(store, "staying")
    fence, fences = desk.granted("me"), other.granted("me")
    batch = [Renew("moving", "me", fence, LONG), Renew("staying", "me", fences, LONG)]
    with cluster.moving(key_of("moving")) as move:
        assert store.renew(batch) == [Extended(), Extended()]
        move.move_keys(move.keys())
        assert store.renew(batch) == [Extended(), Extended()]
        assert desk.renew("me", fence) == Extended()
    assert store.renew(batch) == [Extended(), Extended()]


def test_a_request_waits_for_the_end_of_a_move(cluster: ClusterServers, store: Store) -> None:
    desk = Desk(store, "waits")
    desk.granted("me")
    answers: List[str] = []
    silences: List[NoAnswer] = []

    def leave() -> None:
        while not answers:
            try:
                answers.append(desk.leave("me"))
            except NoAnswer as silence:
                silences.append(silence)

    with cluster.moving(key_of("waits")) as move:
        thread = threading.Thread(target=leave)
        thread.start()
        until(lambda: move.source.calls("evalsha") > 0, "it is asked for")
        assert answers == []
    thread.join(PATIENCE)
    assert answers == ["holder"]
    assert not [silence for silence in silences if silence.may_run]


# --- batches, wake-ups and walks


def test_a_batch_is_answered_by_all_nodes_each_part_in_its_place(
    cluster: ClusterServers, store: Store
) -> None:
    fences = {name: Desk(store, name).granted("me") for name in MANY}
    waiting = MANY[::2]
    for name in waiting:
        Desk(store, name).queued("next")
    for node in cluster.masters:
        with node.client() as client:
            client.script_flush()
    renewals = [Renew(name, "me", fences[name], LONG) for name in MANY]
    assert store.renew(renewals) == [Extended()] * len(MANY)
    beats = [Beat(name, "next", LONG) for name in waiting]
    assert all(isinstance(answer, Queued) for answer in store.heartbeat(beats))
    freed = waiting[3]
    Desk(store, freed).leave("me")
    answers = dict(zip(waiting, store.heartbeat(beats)))
    assert [name for name in waiting if answers[name] == Confirm()] == [freed]


def test_renewals_and_heartbeats_are_one_call_for_each_slot(
    cluster: ClusterServers, store: Store
) -> None:
    names = [f"{{{tag}}}:{number}" for tag in "abcdef" for number in range(15)]
    fences = {name: Desk(store, name).granted("me") for name in names}
    for name in names:
        Desk(store, name).queued("next")
    renewals = [Renew(name, "me", fences[name], LONG) for name in names]
    beats = [Beat(name, "next", LONG) for name in names]
    store.renew(renewals)  # the script is known from here on
    store.heartbeat(beats)
    before = _calls(cluster)
    assert store.renew(renewals) == [Extended()] * len(names)
    between = _calls(cluster)
    assert all(isinstance(answer, Queued) for answer in store.heartbeat(beats))
    assert (between - before, _calls(cluster) - between) == (6, 6)


def _calls(cluster: ClusterServers) -> int:
    """Scripts called so far, by all masters."""
    calls = 0
    for node in cluster.masters:
        with node.client() as client:
            calls += client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls


def test_of_a_slot_that_is_moving_each_hold_is_renewed_where_it_is(
    cluster: ClusterServers, store: Store
) -> None:
    names = [f"{{moving}}:{number}" for number in range(12)]
    fences = {name: Desk(store, name).granted("me") for name in names}
    for name in names[:3]:
        Desk(store, name).queued("next")
    renewals = [Renew(name, "me", fences[name], LONG) for name in names]
    with cluster.moving(key_of(names[0])) as move:
        move.move_keys([key_of(name) for name in names[6:]])
        assert store.renew(renewals) == [Extended()] * len(names)
        beats = [Beat(name, "next", LONG) for name in names[:3]]
        assert all(isinstance(answer, Queued) for answer in store.heartbeat(beats))
    assert store.renew(renewals) == [Extended()] * len(names)


def test_a_node_that_is_away_fails_its_own_part_alone(
    cluster: ClusterServers, opened: Callable[..., Store]
) -> None:
    store = opened(socket_timeout=1.0)
    fences = {name: Desk(store, name).granted("me") for name in MANY}
    away = cluster.owner(key_of(MANY[0]))
    theirs = {name for name in MANY if cluster.owner(key_of(name)) is away}
    away.pause()
    try:
        answers = store.renew([Renew(name, "me", fences[name], LONG) for name in MANY])
    finally:
        away.resume()
    assert {name for name, a in zip(MANY, answers) if isinstance(a, NoAnswer)} == theirs
    assert {name for name, a in zip(MANY, answers) if a == Extended()} == set(MANY) - theirs


def test_a_wake_up_finds_its_waiter_from_every_node(
    cluster: ClusterServers, opened: Callable[..., Store]
) -> None:
    rivals, store = opened(), opened()
    manager = Manager(store, lambda event: None)
    came: List[Outcome] = []

    def await_one(name: str) -> None:
        hold = hold_of(name)
        came.append(manager.acquire(hold, Patience()))
        manager.release(hold)

    names = MANY[:12]
    for name in names:
        Desk(rivals, name).granted("rival")
    threads = [threading.Thread(target=await_one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    lines = [Desk(rivals, name) for name in names]
    until(lambda: all(desk.line() for desk in lines), "all stand in line")
    for node in cluster.masters:
        node.cut_pubsub()  # it subscribes elsewhere and asks what it missed
    for name in names:
        Desk(rivals, name).leave("rival")
    for thread in threads:
        thread.join(PATIENCE)
    assert [type(outcome) for outcome in came] == [Held] * len(names)
    until(lambda: manager.is_idle, "nothing is left to do")


def test_a_walk_sees_every_node(store: Store) -> None:
    for name in MANY:
        Desk(store, name).granted("me")
    seen = {name for part in store.survey("of many *") for name, _view in part}
    assert seen == set(MANY)


# --- several resources


def test_several_resources_share_a_slot_by_the_text_that_they_begin_with(store: Store) -> None:
    asks = [Acquire(f"{{shop}}:{name}", "me", Terms(lease_ms=LONG), "") for name in "abc"]
    assert [type(answer) for answer in store.acquire_all(asks)] == [Granted] * 3


def test_several_resources_of_several_slots_are_refused(store: Store) -> None:
    asks = [Acquire(name, "me", Terms(lease_ms=LONG), "") for name in "abc"]
    with pytest.raises(ConfigurationError, match=r"share a slot.*got a, b, c; begin"):
        store.acquire_all(asks)


def test_a_name_whose_keys_would_be_in_several_slots_is_refused(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="does not begin with a brace"):
        Desk(store, "}odd").ask("me")


# --- nodes that are away


def test_one_seed_that_answers_is_enough(cluster: ClusterServers) -> None:
    port = cluster.masters[1].port
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{port}"
    store = open_store(url, prefix=PREFIX, options=cluster.options, restart_grace=0.0)
    try:
        assert [Desk(store, name).granted("me") > 0 for name in MANY[:9]] == [True] * 9
    finally:
        store.close()


def test_a_cluster_of_which_nobody_answers_is_named() -> None:
    url = f"redis+cluster://:S3CRET@127.0.0.1:{free_port()},localhost:{free_port()}"
    with pytest.raises(NoAnswer, match=r"redis\+cluster://127.0.0.1:.*,localhost:") as caught:
        Desk(open_store(url, prefix=PREFIX), "nobody").ask("me")
    assert not caught.value.may_run
    assert "S3CRET" not in str(caught.value)


def test_a_hold_outlives_the_death_of_its_node(tmp_path_factory: Any) -> None:
    directory = tmp_path_factory.mktemp("failover")
    servers = ClusterServers(directory, replicas=True, node_timeout=2.0)
    store = open_store(servers.url, prefix=PREFIX, restart_grace=0.0)
    manager = Manager(store, lambda event: None)
    try:
        hold = hold_of("outlives", lease_ms=6000)
        assert isinstance(manager.acquire(hold), Held)
        dead = servers.owner(key_of("outlives"))
        with dead.client() as client:
            # It waits for what this client has written, and for all before that.
            client.set("{outlives}", "1")
            assert client.wait(1, 10_000) == 1
        dead.kill()
        until(lambda: hold.state is not State.HELD, "a renewal fails", within=FAILOVER)
        until(lambda: hold.state is State.HELD, "its replica renews it", within=FAILOVER)
        assert holders(Desk(store, "outlives")) == [hold.token]
        # By a connection that broke meanwhile, perhaps: then by one more, or in the background.
        manager.release(hold)
        until(lambda: holders(Desk(store, "outlives")) == [], "it is released")
    finally:
        store.close()
        servers.stop()


# --- what is refused before anything is asked


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+cluster://", "cannot be read"),
        ("redis+cluster://:S3CRET@a:port", "cannot be read"),
        ("redis+cluster://:S3CRET@a,b:99999", "cannot be read"),
        ("redis+cluster://:S3CRET@a/shop", "cannot be read"),
        ("rediss+cluster://:S3CRET@a/3", "a cluster has only one"),
    ],
)
def test_a_cluster_that_cannot_be_one_is_refused(url: str, told: str) -> None:
    assert told in refused(url)
    if told == "cannot be read":
        with pytest.raises(ConfigurationError):
            check_url(url)


def test_a_move_that_does_not_end_is_an_outage(cluster: ClusterServers, store: Store) -> None:
    """Its first key has moved, the others do not exist: neither node takes the request."""
    desk = Desk(store, "never ends")
    desk.granted("me")
    with cluster.moving(key_of("never ends")) as move:
        move.move_keys(move.keys())
        with pytest.raises(NoAnswer) as caught:
            desk.leave("me")
    assert not caught.value.may_run
    assert desk.leave("me") == "holder"
