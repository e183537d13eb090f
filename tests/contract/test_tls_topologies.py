"""Sentinels and clusters that speak nothing but TLS, the servers among themselves as well."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping

import pytest
import redis

from celery_redlock.core.lifecycle import State
from celery_redlock.core.ports import Busy, Extended, Granted, NoAnswer, Store
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import Held, Outcome, Patience
from celery_redlock.store.urls import open_store
from tests.contract.conftest import PREFIX
from tests.contract.desk import Desk, until
from tests.contract.test_sentinel import FAILOVER, hold_of, persistently
from tests.harness import acl
from tests.harness.certificates import Authority
from tests.harness.cluster import ClusterServers
from tests.harness.sentinels import Sentinels
from tests.harness.servers import LockServer, missing
from tests.harness.ways import OverTls

PASSWORD = "of-the-servers"

#: Options that are left out.
IN_PLAIN = {"ssl": None, "ssl_ca_certs": None}

Open = Callable[..., Store]


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_(url: str, options: Mapping[str, Any]) -> Store:
            store = open_store(url, prefix=PREFIX, options=options, restart_grace=0.0)
            stack.callback(store.close)
            return store

        yield open_


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# --- Sentinel


class Secret(OverTls):
    """Wants a password of everybody, its replicas included."""

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)


class Watched:
    """A master, a replica and three Sentinels, all of them with TLS and passwords."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        extra = ["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"]
        extra += ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        self.servers: List[LockServer] = [Secret.of(authority, extra) for _ in range(2)]
        first, second = self.servers
        with second.client() as client:
            client.replicaof("127.0.0.1", first.public_port)
        self.sentinels = Sentinels(directory, first, 3, 1.5, PASSWORD, authority)
        self.options = {**self.sentinels.options, "password": PASSWORD}

    @property
    def master(self) -> LockServer:
        port = self.sentinels.master_port()
        return next(server for server in self.servers if server.public_port == port)

    def replicate(self) -> None:
        with self.master.client() as client:
            client.set("mark", "1")
            assert client.wait(1, 10_000) == 1

    def stop(self) -> None:
        self.sentinels.stop()
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Watched]:
    try:
        watched = Watched(tmp_path_factory.mktemp("sentinels"), authority)
    except RuntimeError as error:
        missing(f"a redis-server with TLS ({error})")
    yield watched
    watched.stop()


@pytest.mark.parametrize(
    ("of_servers", "of_sentinels", "told"),
    [
        ({}, {"ssl_ca_certs": None}, "no Sentinel names a master.*(?i:certificate verify failed)"),
        ({"ssl_ca_certs": None}, {}, "(?i)certificate verify failed"),
        ({}, IN_PLAIN, "no Sentinel names a master"),
        (IN_PLAIN, {}, "sentinel://"),
        ({}, {"password": "S3CRET"}, "no Sentinel names a master.*refused the user name or"),
        ({"password": "S3CRET"}, {}, "refused the user name or password"),
    ],
)
def test_what_does_not_fit_the_servers_or_the_sentinels_is_told(
    watched: Watched,
    opened: Open,
    of_servers: Mapping[str, Any],
    of_sentinels: Mapping[str, Any],
    told: str,
) -> None:
    theirs: Any = watched.options["sentinel_kwargs"]
    options = {
        **given({**watched.options, **of_servers}),
        "sentinel_kwargs": given({**theirs, **of_sentinels}),
    }
    with pytest.raises(NoAnswer, match=told) as silence:
        Desk(opened(watched.sentinels.url(), options)).ask("me")
    assert "S3CRET" not in str(silence.value)
    assert PASSWORD not in str(silence.value)


def test_who_holds_and_who_waits_outlive_the_death_of_the_master(
    watched: Watched, opened: Open
) -> None:
    """The last of these tests: the dead one stays dead."""
    url, options = watched.sentinels.url(), watched.options
    watched.sentinels.wait_for_replica()
    # Not for the same: a failover may take longer than the lease of who holds it.
    manager, held, waiter = Manager(opened(url, options), _nobody), hold_of("a"), hold_of("b")
    desk, awaited = Desk(opened(url, options), "a"), Desk(opened(url, options), "b")
    assert isinstance(manager.acquire(held), Held)
    awaited.granted("rival")
    came: List[Outcome] = []
    patience = Patience(until=time.monotonic() + 2 * FAILOVER)
    thread = threading.Thread(target=lambda: came.append(manager.acquire(waiter, patience)))
    thread.start()
    until(lambda: awaited.line() != [], "it stands in line")
    watched.replicate()
    watched.master.kill()
    until(lambda: held.state is not State.HELD, "a renewal fails", within=FAILOVER)
    until(lambda: held.state is State.HELD, "the new master renews it", within=FAILOVER)
    assert isinstance(persistently(lambda: desk.ask("thief", wait=False)), Busy)
    assert desk.live() == [held.token]
    awaited.leave("rival")
    thread.join(FAILOVER)
    assert isinstance(came[0], Held)
    assert manager.release(held)
    assert manager.release(waiter)


# --- Cluster


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[ClusterServers]:
    extra = acl.user_option("+cluster|slots", "+asking")
    directory = tmp_path_factory.mktemp("cluster")
    try:
        cluster = ClusterServers(directory, extra=extra, authority=authority)
    except RuntimeError as error:
        missing(f"a redis-server with TLS ({error})")
    cluster.options.update(acl.LOGIN)
    yield cluster
    cluster.stop()


def key_of(resource: str) -> str:
    return f"{PREFIX}{{{resource}}}:h"


def test_a_hold_on_a_cluster_follows_its_slot(cluster: ClusterServers, opened: Open) -> None:
    desk = Desk(opened(cluster.url, cluster.options), "moved")
    fence = desk.granted("me")
    desk.queued("next")
    owner = cluster.owner(key_of("moved"))
    with cluster.moving(key_of("moved")) as move:
        assert desk.renew("me", fence) == Extended()
        move.move_keys(move.keys())
        assert desk.renew("me", fence) == Extended(), "it was asked for where the slot goes to"
    assert cluster.owner(key_of("moved")) is not owner
    assert desk.renew("me", fence) == Extended()
    cluster.move(key_of("moved"))
    assert desk.leave("me") == "holder"
    granted = desk.ask("next")
    assert isinstance(granted, Granted)
    assert granted.fence > fence
    desk.leave("next")


def until_renewed(hold: Hold) -> None:
    before = hold.trusted_until
    until(lambda: hold.trusted_until > before, "it is renewed where it is now")


def test_a_watchdog_renews_on_a_cluster_while_slots_move(
    cluster: ClusterServers, opened: Open
) -> None:
    manager, hold = Manager(opened(cluster.url, cluster.options), _nobody), hold_of("kept")
    assert isinstance(manager.acquire(hold), Held)
    for _ in range(2):
        cluster.move(key_of("kept"))
        until_renewed(hold)
    assert hold.state is State.HELD
    left = manager.release(hold)
    assert left is not None
    assert left.what == "holder"


def test_every_node_of_a_cluster_is_reached_from_one_seed(
    cluster: ClusterServers, opened: Open
) -> None:
    seed = cluster.masters[1].public_port
    store = opened(f"rediss+cluster://localhost:{seed}", cluster.options)
    names = [f"of many {number}" for number in range(30)]
    assert all(Desk(store, name).granted("me") for name in names)
    assert {name for part in store.survey("of many *") for name, _view in part} == set(names)
    cluster.flush()


@pytest.mark.parametrize(
    ("scheme", "options", "told"),
    [
        ("rediss+cluster", {"ssl_ca_certs": None}, "(?i)certificate verify failed"),
        ("redis+cluster", IN_PLAIN, r"redis\+cluster://"),
    ],
)
def test_a_cluster_that_cannot_be_believed_is_away(
    cluster: ClusterServers, opened: Open, scheme: str, options: Mapping[str, Any], told: str
) -> None:
    url = f"{scheme}://127.0.0.1:{cluster.masters[0].public_port}"
    with pytest.raises(NoAnswer, match=told) as silence:
        Desk(opened(url, given({**cluster.options, **options}))).ask("me")
    assert acl.PASSWORD not in str(silence.value)
    assert not silence.value.may_run


def given(options: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _nobody(_event: Any) -> None:
    """Nobody is told."""
