"""Locks behind Sentinels: who is the master, and what a failover does to holders and waiters."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple
from urllib.parse import quote

import pytest
from redis.connection import Connection

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import (
    AcquireAnswer,
    Busy,
    Extended,
    Granted,
    NoAnswer,
    Queued,
    Store,
    Terms,
)
from celery_redlock.core.record import Record
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Outcome, Patience
from celery_redlock.store.arguments import completed
from celery_redlock.store.examining import examine
from celery_redlock.store.scripts import command
from celery_redlock.store.seeds import Address
from celery_redlock.store.sentinel import Master, MasterConnections
from celery_redlock.store.sentinel import Sentinels as SentinelsOfStore
from celery_redlock.store.urls import check_server, check_url, open_store
from tests.contract.desk import Desk, until
from tests.contract.test_urls import refused
from tests.harness import acl
from tests.harness.sentinels import MASTER_NAME, Sentinels
from tests.harness.servers import LockServer

PREFIX = "redlock:test:1:"

#: Seconds that a failover may take on a busy machine.
FAILOVER = 40.0

#: Longer than what comes after a failover takes.
GRACE = 10.0


class Pair:
    """Two servers, one of them the master, and three Sentinels that see to it."""

    def __init__(self, directory: Path) -> None:
        extra = [*acl.user_option("+role"), "--repl-diskless-sync-delay", "0"]
        self.servers = [LockServer.start("redis", extra=extra) for _ in range(2)]
        first, second = self.servers
        with second.client() as client:
            client.replicaof("127.0.0.1", first.port)
        self.sentinels = Sentinels(directory, first, 3, down_after=1.5)

    @property
    def master(self) -> LockServer:
        return self._find(True)

    @property
    def replica(self) -> LockServer:
        return self._find(False)

    def _find(self, is_master: bool) -> LockServer:
        port = self.sentinels.master_port()
        (found,) = [server for server in self.servers if (server.port == port) == is_master]
        return found

    def open(self, restart_grace: float = 0.0, **options: Any) -> Store:
        url = self.sentinels.url(f"{acl.NAME}:{quote(acl.PASSWORD, safe='')}@")
        options = {**self.sentinels.options, **options}
        return open_store(url, prefix=PREFIX, options=options, restart_grace=restart_grace)

    def replicate(self) -> None:
        """Until the replica has all that the master has acknowledged."""
        with self.master.client() as client:
            client.set("mark", "1")
            assert client.wait(1, 10_000) == 1

    def bring_back(self, server: LockServer) -> None:
        """Start one that was killed again, at once as what Sentinel would make of it in time."""
        server.restart()
        with server.client() as client:
            client.replicaof("127.0.0.1", self.master.port)

    def stop(self) -> None:
        self.sentinels.stop()
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("sentinels"))
    yield pair
    pair.stop()


@pytest.fixture
def pair(running: Pair) -> Pair:
    """With a replica that can take over."""
    running.sentinels.wait_for_replica()
    return running


@pytest.fixture
def opened(pair: Pair) -> Iterator[Callable[..., Store]]:
    stores: List[Store] = []

    def open_(**options: Any) -> Store:
        stores.append(pair.open(**options))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def hold_of(name: str, lease_ms: int = 3000) -> Hold:
    record = Record(host="here", pid=1, since=time.time(), task_id="t", task="t")
    return Hold(name, Terms(lease_ms=lease_ms), record)


def persistently(ask: Callable[[], AcquireAnswer]) -> AcquireAnswer:
    """Ask as the locks do while the server is away: until there is an answer."""
    answers: List[AcquireAnswer] = []

    def is_answered() -> bool:
        with contextlib.suppress(NoAnswer):
            answers.append(ask())
        return bool(answers)

    until(is_answered, "there is an answer", within=FAILOVER)
    return answers[0]


def test_who_holds_and_who_waits_survive_the_death_of_the_master(
    pair: Pair, opened: Callable[..., Store]
) -> None:
    manager = Manager(opened(), lambda event: None)
    one, other = f"held-{secrets.token_hex(4)}", f"awaited-{secrets.token_hex(4)}"
    held, awaited, waiter = hold_of(one), Desk(opened(), other), hold_of(other)
    assert isinstance(manager.acquire(held), Held)
    awaited.granted("rival")
    came: List[Outcome] = []
    patience = Patience(until=time.monotonic() + 2 * FAILOVER + 30)
    thread = threading.Thread(target=lambda: came.append(manager.acquire(waiter, patience)))
    thread.start()
    until(lambda: awaited.line() != [], "it stands in line")
    pair.replicate()
    dead = pair.master
    dead.kill()
    try:
        until(lambda: held.state is not State.HELD, "a renewal fails", within=FAILOVER)
        until(lambda: held.state is State.HELD, "it is renewed by the new master", within=FAILOVER)
        # It may be renewed before each of the Sentinels has heard of the new one.
        until(lambda: pair.master is not dead, "there is a new master", within=FAILOVER)
        assert Desk(opened(), one).live() == [held.token]
        assert persistently(lambda: Desk(opened(), one).ask("thief", wait=False))[0] > 0
        awaited.leave("rival")
        thread.join(30)
        assert isinstance(came[0], Held)
        assert manager.release(held)
        assert manager.release(waiter)
    finally:
        pair.bring_back(dead)


def test_a_failover_by_hand_is_followed(pair: Pair, opened: Callable[..., Store]) -> None:
    """The old master takes requests until it is told; no connection to it is used any more."""
    store, deposed = opened(), pair.master
    desk = Desk(store, "by hand")
    fence = desk.granted("before")
    pair.replicate()
    pair.sentinels.fail_over()
    pair.sentinels.wait_for_master(pair.replica.port)
    answer = persistently(lambda: desk.ask("rival"))
    assert isinstance(answer, Queued)
    assert pair.master is not deposed
    with pair.master.client() as client:
        assert client.exists(f"{PREFIX}{{by hand}}:q"), "the old master was asked"
    assert desk.leave("before") == "holder"
    granted = desk.ask("rival")
    assert isinstance(granted, Granted)
    assert granted.fence > fence
    desk.leave("rival")


def test_what_a_failover_lost_is_its_holders_first(
    pair: Pair, opened: Callable[..., Store]
) -> None:
    """As after a restart without data: the new master grants nothing that it does not know."""
    store, successor = opened(restart_grace=GRACE), pair.replica
    lost, kept = Desk(store, "lost"), Desk(store, "kept")
    fence = granted_by(lost)
    granted_by(kept)
    pair.replicate()

    def is_old() -> bool:
        with successor.client() as client:
            return int(client.info("server")["uptime_in_seconds"]) > GRACE + 1

    until(is_old, "its age is no reason for it", within=2 * GRACE)
    pair.sentinels.fail_over()
    pair.sentinels.wait_for_master(successor.port)
    with successor.client() as client:
        client.delete(f"{PREFIX}{{lost}}:h")
    answer = persistently(lambda: lost.ask("rival", wait=False))
    assert isinstance(answer, Busy)
    assert answer.holders == ()
    assert answer.next_ms > 0
    assert lost.bring_back("holder", fence) == Extended()
    known = kept.ask("rival", wait=False)
    assert isinstance(known, Busy)
    assert [seen.token for seen in known.holders] == ["holder"]


def granted_by(desk: Desk) -> int:
    answers: List[AcquireAnswer] = []

    def is_granted() -> bool:
        answers.append(persistently(lambda: desk.ask("holder", wait=False)))
        return isinstance(answers[-1], Granted)

    until(is_granted, "it is granted", within=2 * GRACE)  # its server has just become the master
    return answers[-1][0]  # type: ignore[union-attr, return-value]


# --- who is the master


def test_one_sentinel_that_answers_is_enough(pair: Pair, opened: Callable[..., Store]) -> None:
    pair.sentinels.kill_one(0)
    try:
        desk = Desk(opened(), "one is enough")
        desk.granted("me")
        assert desk.leave("me") == "holder"
    finally:
        pair.sentinels.restart_one(0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sentinel_kwargs": {"password": "S3CRET"}}, "refused the user name or password"),
        ({"sentinel_kwargs": {}}, "wants a password"),
        ({"password": "S3CRET"}, "refused the user name or password"),
        ({"master_name": "another"}, "No such master"),
        ({"min_other_sentinels": 3}, "fewer than 3 other Sentinels"),
    ],
)
def test_what_is_wrong_is_told_without_what_is_secret(
    pair: Pair, opened: Callable[..., Store], options: Dict[str, Any], told: str
) -> None:
    with pytest.raises(NoAnswer, match=told) as caught:
        Desk(opened(**options), "wrong").ask("me")
    assert "S3CRET" not in str(caught.value)
    assert acl.PASSWORD not in str(caught.value)


def test_a_replica_that_a_sentinel_takes_for_the_master_is_not_used(pair: Pair) -> None:
    def make(address: Address) -> Any:
        return Connection(host=address.host, port=address.port)

    class Mistaken(SentinelsOfStore):
        def listen(self) -> Any:
            return make(Address("127.0.0.1", pair.replica.port))

        def master(self) -> Master:
            return Master(Address("127.0.0.1", pair.replica.port), 100.0)

    connections = MasterConnections(Mistaken((), make, MASTER_NAME), make, "mistaken")
    with pytest.raises(NoAnswer, match="read-only replica"):
        connections.dedicated()
    connections.close()


class Announced(SentinelsOfStore):
    """Names one server the master, and is heard there."""

    def __init__(self, make: Callable[[Address], Any], server: LockServer) -> None:
        super().__init__((Address("127.0.0.1", server.port),), make, MASTER_NAME)

    def master(self) -> Master:
        return Master(self._addresses[0], 100.0)


@pytest.fixture
def announced() -> Iterator[Tuple[LockServer, MasterConnections]]:
    def make(address: Address) -> Any:
        return Connection(host=address.host, port=address.port, **completed("redis", {}))

    with LockServer.start() as server:
        connections = MasterConnections(Announced(make, server), make, "announced")
        yield server, connections
        connections.close()


def test_a_connection_that_was_in_use_when_a_failover_was_told_is_not_used_again(
    announced: Tuple[LockServer, MasterConnections],
) -> None:
    server, connections = announced
    which = command("CLIENT", "ID")
    (before,) = connections.read([which])
    under_way = connections.post([lambda _grace: which])
    with server.client() as client:
        assert client.publish("+switch-master", "shop 127.0.0.1 1 127.0.0.1 2") == 1
        (after,) = connections.read([which])
        assert connections.collect(under_way) == [before]
        assert connections.read([which]) == [after]
        until(lambda: before not in {int(each["id"]) for each in client.client_list()}, "closed")
        assert client.pubsub_numsub("+switch-master") == [("+switch-master", 1)]


def test_threads_do_not_wait_for_one_another_to_hear_of_failovers(
    opened: Callable[..., Store],
) -> None:
    store, took = opened(socket_timeout=FAILOVER), []

    def work(number: int) -> None:
        desk = Desk(store, f"of thread {number}")
        for turn in range(50):
            begun = time.monotonic()
            desk.granted(f"{turn}")
            desk.leave(f"{turn}")
            took.append(time.monotonic() - begun)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FAILOVER)
    assert len(took) == 8 * 50
    assert max(took) < FAILOVER / 2


def test_the_name_of_the_master_may_stand_in_the_url(pair: Pair) -> None:
    url = f"{pair.sentinels.url()}?master_name={MASTER_NAME}"
    options = {**acl.LOGIN, "sentinel_kwargs": pair.sentinels.options["sentinel_kwargs"]}
    store = open_store(url, prefix=PREFIX, options=options, restart_grace=0.0)
    try:
        assert Desk(store, "named in the URL").granted("me")
    finally:
        store.close()


# --- what is refused before anything is asked


def test_sentinels_without_the_name_of_a_master_are_refused() -> None:
    assert "expected master_name" in refused("sentinel://:S3CRET@a:26379;sentinel://b")


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://",
        "sentinel://:S3CRET@",
        "sentinel://:S3CRET@a:port",
        "sentinel://:S3CRET@a,b:99999",
        "sentinel://:S3CRET@a/shop",
        "sentinel://:S3CRET@a#1",
        "sentinel://:S3CRET/x@a",
    ],
)
def test_sentinels_that_cannot_be_read_are_refused(url: str) -> None:
    assert "cannot be read" in refused(url, {"master_name": "locks"})
    with pytest.raises(ConfigurationError):
        check_url(url)


@pytest.mark.parametrize(
    "options", [{"sentinel_kwargs": {"passwort": "S3CRET"}}, {"passwort": "S3CRET"}]
)
def test_options_that_redis_py_does_not_know_are_refused(options: Dict[str, Any]) -> None:
    told = refused("sentinel://a", {"master_name": "locks", **options})
    assert told.startswith("redlock_options: expected what redis-py's connection")


@pytest.mark.parametrize(
    "options", [{"sentinel_kwargs": "S3CRET"}, {"sentinel_kwargs": {"socket_timeout": "S3CRET"}}]
)
def test_what_the_sentinels_connections_cannot_be_made_with_is_refused(
    options: Dict[str, Any],
) -> None:
    told = refused("sentinel://a", {"master_name": "locks", **options})
    assert told.startswith("redlock_options: expected s")


def test_the_number_of_other_sentinels_may_stand_in_the_query() -> None:
    check_server("sentinel://a?master_name=locks&min_other_sentinels=1")
    told = refused("sentinel://a?master_name=locks&min_other_sentinels=one")
    assert "expected min_other_sentinels to be a whole number, got a str" in told


@pytest.fixture
def looker(pair: Pair) -> Iterator[Callable[[str], Dict[str, Any]]]:
    """A user of the Sentinels with these rights: the options that log in as it."""
    users = [pair.sentinels.client(of) for of in range(3)]

    def with_rights(rules: str) -> Dict[str, Any]:
        for user in users:
            user.execute_command(
                *["ACL", "SETUSER", "looker", "reset", "on", ">look", "-@all"], *rules.split()
            )
        return {"sentinel_kwargs": {"username": "looker", "password": "look"}}

    yield with_rights
    for user in users:
        user.execute_command("ACL", "DELUSER", "looker")
        user.close()


def documented_rights() -> str:
    page = acl.PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(r"At the Sentinels themselves: `(.*?)`", page)
    return str(found).replace("\\|", "|")


def test_the_documented_user_of_the_sentinels_is_enough(
    pair: Pair, looker: Callable[[str], Dict[str, Any]]
) -> None:
    store: Any = pair.open(**looker(documented_rights()))
    with contextlib.closing(store):
        assert Desk(store, "documented").granted("me")
        (found,) = store.servers()
        assert examine(found).silence is None


def test_what_a_user_of_the_sentinels_may_not_do_is_seen_by_the_doctor(
    pair: Pair, looker: Callable[[str], Dict[str, Any]]
) -> None:
    store: Any = pair.open(**looker("+sentinel|master"))
    with contextlib.closing(store):
        with pytest.raises(NoAnswer, match="subscribe"):
            Desk(store, "undocumented").ask("me")
        (found,) = store.servers()
        assert "subscribe" in (examine(found).silence or "")
