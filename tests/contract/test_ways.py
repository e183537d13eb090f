"""Redlock over TLS, with passwords and users, on unix sockets, in numbered databases."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import pytest

from celery_redlock.core.ports import Busy, Extended, Granted, NoAnswer, Queued, Renew, Store
from celery_redlock.store.several import open_several
from tests.contract.desk import LONG, Desk, until
from tests.harness import acl
from tests.harness.independent import Independent
from tests.harness.servers import LockServer, missing
from tests.harness.ways import WAYS

#: What the documented user may name its keys.
PREFIX = "redlock:test:1:"

SECRET = "S3CRET"

#: Before version 5 redis-py leaves a unix socket that was refused to the garbage collector.
of_refused_sockets = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

Open = Callable[..., Store]
MakeServers = Callable[[str], Independent]


@pytest.fixture(scope="module")
def make_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServers]:
    """Three servers for each way to them, started when first asked for."""
    running: Dict[str, Independent] = {}
    with ExitStack() as stack:

        def make(way: str) -> Independent:
            if way not in running:
                start = WAYS[way](tmp_path_factory.mktemp("way"))
                running[way] = _entered(stack, Independent.durable(3, start), way)
            return running[way]

        yield make


def _entered(stack: ExitStack, independent: Independent, way: str) -> Independent:
    try:
        return stack.enter_context(independent)
    except RuntimeError as error:
        if way.startswith("tls"):
            missing(f"a redis-server with TLS ({error})")
        raise


@pytest.fixture(params=list(WAYS))
def servers(request: pytest.FixtureRequest, make_servers: MakeServers) -> Iterator[Independent]:
    independent = make_servers(request.param)
    yield independent
    for server in independent.servers:
        if not server.is_running:
            server.restart()
    independent.flush()


@pytest.fixture
def over_tls(make_servers: MakeServers) -> Iterator[Independent]:
    independent = make_servers("tls")
    yield independent
    independent.flush()


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_(
            servers: Independent,
            urls: Optional[Sequence[str]] = None,
            options: Optional[Mapping[str, Any]] = None,
            patience: float = 5.0,
        ) -> Store:
            given = {**(servers.options if options is None else options)}
            given["socket_timeout"] = given["socket_connect_timeout"] = patience
            store = open_several(urls or servers.urls, prefix=PREFIX, options=given)
            stack.callback(store.close)
            return store

        yield open_


@pytest.fixture
def room() -> str:
    """A resource that no other test has: what one left is taken back in the background."""
    return f"room {secrets.token_hex(4)}"


def until_granted(desk: Desk, token: str) -> int:
    fences: List[int] = []

    def is_granted() -> bool:
        answer = desk.ask(token)
        fences.extend([answer.fence] if isinstance(answer, Granted) else [])
        return bool(fences)

    until(is_granted, f"{token} is granted it")
    return fences[0]


# --- a majority


def test_a_lock_goes_through_its_life(servers: Independent, opened: Open, room: str) -> None:
    desk, rivals = Desk(opened(servers), room), Desk(opened(servers), room)
    inbox = rivals.store.subscribe("in")
    fence = desk.granted("me")
    assert isinstance(rivals.ask("rival", wait=False), Busy)
    assert isinstance(rivals.ask("rival"), Queued)
    assert desk.renew("me", fence) == Extended()
    assert [(holder.token, holder.fence) for holder in rivals.view().holders] == [("me", fence)]
    assert [name for part in rivals.store.survey() for name, _view in part] == [room]
    assert desk.leave("me") == "holder"
    assert inbox.get(10) == "G rival"
    inbox.close()
    assert until_granted(rivals, "rival") > fence
    assert rivals.leave("rival") == "holder"
    assert desk.view().holders == ()


@of_refused_sockets
def test_one_of_three_may_die_and_come_back(servers: Independent, opened: Open, room: str) -> None:
    desk = Desk(opened(servers), room)
    fence = desk.granted("me")
    victim = servers.servers[0]
    victim.kill()
    assert desk.renew("me", fence) == Extended()
    assert isinstance(desk.ask("rival", wait=False), Busy)
    assert desk.leave("me") == "holder"
    fence = until_granted(desk, "next")
    victim.restart()

    def is_everywhere() -> bool:
        assert desk.renew("next", fence) == Extended()
        with victim.client() as client:
            client.select(database_of(victim.url))
            return bool(client.hexists(f"{PREFIX}{{{room}}}:h", "h:next"))

    until(is_everywhere, "it is asked for its vote again")
    desk.leave("next")


@of_refused_sockets
def test_one_of_three_may_hang_and_is_found_back(
    servers: Independent, opened: Open, room: str
) -> None:
    desk = Desk(opened(servers, patience=0.4), room)
    desk.granted("warm")
    desk.leave("warm")
    hung = servers.servers[1]
    hung.pause()
    try:
        for number in range(20):
            until_granted(desk, f"t{number}")
            assert desk.leave(f"t{number}") == "holder"
    finally:
        hung.resume()
    other = servers.servers[2]
    other.kill()
    until_granted(Desk(opened(servers), room), "me")  # it votes
    other.restart()


def database_of(url: str) -> int:
    return 3 if url.endswith(("/3", "virtual_host=3")) else 0


def test_the_locks_are_in_the_database_that_the_url_names(
    make_servers: MakeServers, opened: Open, room: str
) -> None:
    for way in ("database", "tls, user and database"):
        servers = make_servers(way)
        desk = Desk(opened(servers), room)
        desk.granted("me")
        for server in servers.servers:
            with server.client() as client:
                assert list(client.info("keyspace")) == ["db3"]
        desk.leave("me")
        servers.flush()


def test_the_documented_user_will_do_where_it_may_not_ask_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, opened: Open
) -> None:
    """Then every server counts as one that forgets: it votes once it is older than a lease."""
    lease = 3.0
    rights = acl.user_option()
    with Independent(3, extra=rights) as servers:
        desk = Desk(opened(servers, options=acl.LOGIN))
        with pytest.raises(NoAnswer, match="does not vote"):
            desk.ask("me", lease_ms=int(lease * 1000))
        servers.let_vote(lease)
        answer = desk.ask("me", lease_ms=int(lease * 1000))
        assert isinstance(answer, Granted)
        assert desk.renew("me", answer.fence, lease_ms=int(lease * 1000)) == Extended()
        assert desk.leave("me") == "holder"


# --- who is not believed


def test_servers_of_an_unknown_authority_are_refused_each_by_name(
    over_tls: Independent, opened: Open
) -> None:
    with pytest.raises(NoAnswer) as silence:
        Desk(opened(over_tls, options={})).ask("me")
    told = silence.value.servers
    assert all(url in told for url in over_tls.urls)
    assert told.lower().count("certificate verify failed") == 3


def test_servers_of_another_name_are_refused_unless_names_do_not_matter(
    over_tls: Independent, opened: Open, room: str
) -> None:
    elsewhere = [url.replace("127.0.0.1", "127.0.0.2") for url in over_tls.urls]
    with pytest.raises(NoAnswer, match=r"(?i)certificate verify failed.*(mismatch|not valid)"):
        Desk(opened(over_tls, elsewhere)).ask("me")
    options = {**over_tls.options, "ssl_check_hostname": False}
    assert Desk(opened(over_tls, elsewhere, options), room).granted("me")


def test_one_server_that_cannot_be_believed_is_a_missing_one(
    over_tls: Independent, opened: Open, room: str
) -> None:
    first, *others = over_tls.urls
    urls = [first.replace("127.0.0.1", "127.0.0.2"), *others]
    desk = Desk(opened(over_tls, urls), room)
    desk.granted("me")
    assert desk.leave("me") == "holder"


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("password", "refused the user name or password"),
        ("user", "refused the user name or password"),
        ("tls, user and database", "refused the user name or password"),
    ],
)
def test_a_wrong_password_is_told_without_it(
    make_servers: MakeServers, opened: Open, way: str, told: str
) -> None:
    servers = make_servers(way)
    urls = [with_password(url, SECRET) for url in servers.urls]
    options = {**servers.options, "password": SECRET}
    with pytest.raises(NoAnswer) as silence:
        Desk(opened(servers, urls, options)).ask("me")
    assert silence.value.servers.count(told) == 3
    assert SECRET not in str(silence.value)
    assert not silence.value.may_run


def with_password(url: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://:{password}@{rest.rpartition('@')[2]}"


# --- much at once


@pytest.mark.parametrize("way", ["tls", "unix", "password"])
def test_a_full_batch_of_long_names_is_renewed_at_once(
    make_servers: MakeServers, opened: Open, way: str
) -> None:
    """More than one record of TLS holds, and more than a socket may take at a time."""
    servers = make_servers(way)
    store = opened(servers)
    renewals = held_by_hundred(store)
    for _ in range(2):
        assert list(store.renew(renewals)) == [Extended()] * len(renewals)
    for each in renewals:
        assert Desk(store, each.resource).leave(each.token) == "holder"
    servers.flush()


def test_a_server_that_hangs_in_the_middle_of_a_batch_is_a_missing_one(
    make_servers: MakeServers, opened: Open
) -> None:
    servers = make_servers("unix")
    store = opened(servers, patience=1.5)
    renewals = held_by_hundred(store)

    def are_everywhere() -> bool:
        store.renew(renewals)  # which asks those again that were too slow to be asked
        return all(held_at(server) == len(renewals) for server in servers.servers)

    until(are_everywhere, "every server has voted for each", within=30)
    hung = servers.servers[0]
    hung.pause()
    try:
        began = time.monotonic()
        assert list(store.renew(renewals)) == [Extended()] * len(renewals)
        assert time.monotonic() - began < 6
    finally:
        hung.resume()
        servers.flush()


def held_at(server: LockServer) -> int:
    with server.client() as client:
        return sum(
            any(field.startswith("h:") for field in client.hkeys(key))
            for key in client.scan_iter(f"{PREFIX}*:h")
        )


def held_by_hundred(store: Store) -> List[Renew]:
    """As many as go out at once, and their renewals."""
    renewals = []
    for number in range(100):
        name, token = f"account:{number}:{'x' * 120}", secrets.token_hex(16)
        fence = Desk(store, name).granted(token)
        renewals.append(Renew(name, token, fence, LONG, record="r" * 2000))
    return renewals
