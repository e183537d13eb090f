"""Every kind of URL leads to its server; what cannot be used is refused without its password."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Mapping, Optional

import pytest

from celery_redlock.core.ports import Acquire, Granted, Leave, Left, NoAnswer, Terms
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.store.several import check_several
from celery_redlock.store.urls import check_server, check_url, open_store, safe
from tests.harness.servers import LockServer

PREFIX = "test:1:"


def used_with(url: str, options: Optional[Mapping[str, Any]] = None) -> None:
    """Take a lock and release it."""
    store = open_store(url, prefix=PREFIX, options=options, restart_grace=0.0)
    try:
        terms = Terms(lease_ms=5000)
        assert isinstance(store.acquire(Acquire("r", "t", terms, "record")), Granted)
        assert store.leave(Leave("r", ("t",))) == Left("holder")
    finally:
        store.close()


def refused(url: str, options: Optional[Mapping[str, Any]] = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, prefix=PREFIX, options=options)
    text = str(caught.value)
    assert "S3CRET" not in text
    assert ": expected " in text
    assert " got " in text
    return text


def databases(server: LockServer) -> Dict[str, Any]:
    """The databases that the locks have used since the last flush."""
    with server.client() as client:
        return {name[2:]: keys["keys"] for name, keys in client.info("keyspace").items()}


Servers = Callable[[str], LockServer]


@pytest.fixture(scope="module")
def unix_server() -> Iterator[LockServer]:
    with LockServer.start("redis", unix=True) as server:
        yield server


@pytest.mark.parametrize("flavour", ["redis", "valkey"])
@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("redis://127.0.0.1:{port}", "0"),
        ("redis://127.0.0.1:{port}/", "0"),
        ("redis://127.0.0.1:{port}/3", "3"),
        ("redis://127.0.0.1:{port}?db=4", "4"),
        ("redis://127.0.0.1:{port}//5", None),
        ("redis://127.0.0.1:{port}?virtual_host=6", "6"),
        ("redis://localhost:{port}/7?socket_timeout=1.5", "7"),
        ("valkey://127.0.0.1:{port}/3", "3"),
    ],
)
def test_a_url_names_server_and_database(
    servers: Servers, flavour: str, url: str, database: Optional[str]
) -> None:
    server = servers(flavour)
    server.flush()
    url = url.format(port=server.port)
    if database is None:
        assert "cannot be read" in refused(url)
    else:
        used_with(url)
        assert list(databases(server)) == [database]


@pytest.mark.parametrize("scheme", ["redis+socket", "valkey+socket", "unix"])
@pytest.mark.parametrize(
    ("query", "database"),
    [("", "0"), ("?virtual_host=3", "3"), ("?virtual_host=/4", "4"), ("?db=5", "5")],
)
def test_a_socket_is_a_server(
    unix_server: LockServer, scheme: str, query: str, database: str
) -> None:
    unix_server.flush()
    used_with(f"{scheme}://{unix_server.socket}{query}")
    assert list(databases(unix_server)) == [database]


# --- users and passwords


@pytest.fixture
def user(servers: Servers) -> Iterator[str]:
    """A user whose password has every character that a URL could stumble over."""
    with servers("redis").client() as client:
        client.acl_setuser(
            "locks@shop", enabled=True, passwords=["+p:/?#[]@ %ü"], keys=["*"], categories=["+@all"]
        )
        yield "locks%40shop"
        client.acl_deluser("locks@shop")


QUOTED = "p%3A%2F%3F%23%5B%5D%40%20%25%C3%BC"


def test_a_user_and_a_password_are_percent_encoded(servers: Servers, user: str) -> None:
    port = servers("redis").port
    used_with(f"redis://{user}:{QUOTED}@127.0.0.1:{port}/1")
    used_with(f"redis://127.0.0.1:{port}/1?username={user}&password={QUOTED}")
    options = {"username": "locks@shop", "password": "p:/?#[]@ %ü"}
    used_with(f"redis://127.0.0.1:{port}/1", options)


def test_a_password_alone_is_the_default_users(servers: Servers) -> None:
    server = LockServer.start("redis")
    with server, server.client() as client:
        client.config_set("requirepass", "S3CRET")
        used_with(f"redis://:S3CRET@127.0.0.1:{server.port}/0")
        with pytest.raises(NoAnswer, match="the server wants a password"):
            used_with(f"redis://127.0.0.1:{server.port}/0")


def test_a_wrong_password_is_no_answer_and_not_shown(servers: Servers, user: str) -> None:
    with pytest.raises(NoAnswer, match="refused the user name or password") as caught:
        used_with(f"redis://{user}:S3CRET@127.0.0.1:{servers('redis').port}/1")
    assert "S3CRET" not in str(caught.value)


# --- what is refused


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:6379",
        ":S3CRET@host",
        "redis:/:S3CRET@host",
        "http://user:S3CRET@host",
        "memory://",
        "amqp://user:S3CRET@host//",
    ],
)
def test_a_url_of_something_else_is_refused(url: str) -> None:
    assert "expected a URL that begins with one of redis://, rediss://" in refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:S3CRET@host:port/0",
        "redis://user:S3CRET@host:99999/0",
        "redis://:S3CRET/x@host/0",
        "redis://:S3CRET#x@host/0",
        "redis://:S3CRET?x@host/0",
        "redis://:S3CRET[@host/0",
        "redis://:S3CRET@host/shop",
        "redis://:S3CRET@host/1/2",
        "redis://:S3CRET@host/-1",
        "redis://:S3CRET@host/?db=first",
        "redis://:S3CRET@host/?socket_timeout=S3CRET",
        "redis://:S3CRET@host/0#1",
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check_url(url)
    assert "cannot be read; percent-encode" in refused(url)


@pytest.mark.parametrize(
    "url", ["redis://:S3CRET@a;redis://:S3CRET@b", "redis://a,redis://b", "redis://a;sentinel://b"]
)
def test_several_servers_in_one_text_are_refused(url: str) -> None:
    assert "got several in one text" in refused(url)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://host", {"passwort": "S3CRET"}),
        ("redis://host", {"ssl_ca_certs": "/ca.pem"}),
        ("redis://host?passwort=S3CRET", {}),
        ("rediss://host", {"ssl_cert_reqs": "maybe"}),
        ("redis+socket:///x.sock", {"host": "elsewhere"}),
    ],
)
def test_an_option_that_redis_py_does_not_know_is_refused(
    url: str, options: Mapping[str, Any]
) -> None:
    assert refused(url, options).startswith("redlock_options: expected what redis-py's connection")


@pytest.mark.parametrize(
    "options",
    [
        *({"socket_timeout": value} for value in (0, -1, "2", True, float("nan"), float("inf"))),
        {"socket_connect_timeout": "1"},
        {"db": "shop"},
        {"db": -1},
    ],
    ids=repr,
)
@pytest.mark.parametrize("url", ["redis://host", "redis+cluster://host", "embedded://shop"])
def test_a_value_that_no_connection_can_be_made_with_is_refused(
    url: str, options: Mapping[str, Any]
) -> None:
    (name,) = options
    assert refused(url, options).startswith(f"redlock_options: expected {name} to be")
    with pytest.raises(ConfigurationError, match=f"expected {name} to be"):
        check_several(["redis://a", "redis://b", "redis://c"], options)


@pytest.mark.parametrize("options", [{"socket_timeout": None}, {"socket_timeout": 1}, {"db": "2"}])
def test_a_value_that_a_connection_can_be_made_with_is_taken(options: Mapping[str, Any]) -> None:
    check_server("redis://host", options)
    check_several(["redis://a", "redis://b", "redis://c"], options)


@pytest.mark.parametrize("url", ["sentinel://:S3CRET@{}", "redis+cluster://:S3CRET@{}"])
def test_a_list_of_sentinels_or_of_nodes_is_no_list_of_servers(url: str) -> None:
    with pytest.raises(ConfigurationError, match="which leads to several; write it alone") as told:
        check_several([url.format(host) for host in "abc"], {"master_name": "locks"})
    assert "S3CRET" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:S3CRET@host:6379/2", "redis://host:6379/2"),
        ("redis://:p@S3CRET@host/2?password=S3CRET", "redis://host/2"),
        ("redis+socket://:S3CRET@/run/redis.sock?virtual_host=2", "redis+socket:///run/redis.sock"),
        ("sentinel://:S3CRET@a:1;sentinel://b:2?password=S3CRET", "sentinel://a:1;sentinel://b:2"),
        ("embedded://shop", "embedded://shop"),
        ("user:S3CRET@host", "host"),
        ("redis://user:p@host/2?db=3&password=p@S3CRET", "redis://…"),
        ("sentinel://a:1;sentinel://b:2?password=p@S3CRET", "sentinel://…"),
        ("redis://:S3CRET?a=S3CRET@host/2", "redis://…"),
    ],
)
def test_a_url_for_people_has_no_password(url: str, shown: str) -> None:
    assert safe(url) == shown
