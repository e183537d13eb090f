"""Which server the locks of an app are on, and whose locks meet there."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator

import pytest
from celery import Celery

from celery_redlock import ConfigurationError, LockConflict, LockedTask, LockUnavailable
from celery_redlock.integration import settings as conf
from celery_redlock.integration.runtime import runtime_of
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app

#: Nobody listens on port 1: who asks for a lock is told which server did not answer.
NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def declare(app: Celery, **options: Any) -> Any:
    @app.task(bind=True, name="shop.sync", **{"base": LockedTask, **options})
    def sync(self: Any, account_id: int = 1, within: Any = None) -> Any:
        return within() if within else self.lock.is_held

    return app.tasks["shop.sync"] if app.finalized else sync


def asked(app: Celery) -> str:
    """The server that a task of the app asks, as the error says."""
    with pytest.raises(LockUnavailable) as caught:
        declare(app, lock_on_outage="fail")()
    return caught.value.servers.split(" ")[0]


def test_the_setting_wins_over_the_broker() -> None:
    app = local_app(broker_url=f"{NOBODY}/1", redlock_url=f"{NOBODY}/2")
    assert asked(app) == f"{NOBODY}/2"


@pytest.mark.parametrize(
    ("settings", "server"),
    [
        ({"broker_url": f"{NOBODY}/1"}, f"{NOBODY}/1"),
        ({"broker_url": "amqp://mq", "broker_write_url": f"{NOBODY}/2"}, f"{NOBODY}/2"),
        ({"broker_url": f"{NOBODY}/1", "result_backend": f"{NOBODY}/2"}, f"{NOBODY}/1"),
        ({"broker_url": "amqp://mq", "result_backend": f"{NOBODY}/2"}, f"{NOBODY}/2"),
        ({"broker_url": [f"{NOBODY}/3", f"{NOBODY}/4"]}, f"{NOBODY}/3"),
        ({"broker_url": f"{NOBODY}/3;{NOBODY}/4"}, f"{NOBODY}/3"),
    ],
)
def test_the_brokers_server_is_the_default_and_then_the_backends(
    settings: Dict[str, Any], server: str
) -> None:
    assert asked(local_app(**settings)) == server


def test_a_broker_given_to_the_command_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", f"{NOBODY}/5")  # what `celery --broker` sets
    assert asked(local_app(broker_url=f"{NOBODY}/1")) == f"{NOBODY}/5"


def test_a_brokers_socket_counts_with_its_database() -> None:
    url = "redis+socket:///run/redis.sock?virtual_host=3"
    app = local_app(broker_url=url)
    assert conf.server(app, runtime_of(app).settings) == (url, {})


@pytest.mark.parametrize(
    ("place", "scheme", "setting"),
    [
        ("broker_url", "redis", "broker_use_ssl"),
        ("broker_url", "rediss", "broker_use_ssl"),
        ("result_backend", "rediss", "redis_backend_use_ssl"),
    ],
)
def test_tls_of_the_server_is_carried_over(place: str, scheme: str, setting: str) -> None:
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    app = local_app(**{place: f"{scheme}://host/1", setting: tls}, redlock_options={"db": 4})
    assert conf.server(app, runtime_of(app).settings) == ("rediss://host/1", {**tls, "db": 4})


def test_no_server_is_an_error_at_the_first_use_and_not_before() -> None:
    app = local_app(broker_url="amqp://mq")
    task = declare(app)
    app.finalize()
    expected = "expected the URL of a Redis or Valkey server, got none, .*; set it"
    with pytest.raises(ConfigurationError, match=expected):
        task()


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("redis://a:6379;redis://b:6379", "got several"),
    ],
)
def test_several_servers_without_an_order_are_refused(url: Any, got: str) -> None:
    with pytest.raises(ConfigurationError, match=got):
        declare(local_app(redlock_url=url))()


# --- Sentinel

SENTINELS = "sentinel://127.0.0.1:1;sentinel://localhost:1"
KWARGS = {"sentinel_kwargs": {"password": "theirs"}}


@pytest.mark.parametrize(
    ("place", "urls", "transport"),
    [
        ("broker_url", SENTINELS, "broker_transport_options"),
        ("broker_url", SENTINELS.split(";"), "broker_transport_options"),
        ("result_backend", SENTINELS, "result_backend_transport_options"),
    ],
)
def test_what_finds_the_brokers_master_is_carried_over(
    place: str, urls: Any, transport: str
) -> None:
    given = {"master_name": "locks", **KWARGS, "visibility_timeout": 60}
    app = local_app(**{"broker_url": "amqp://mq", place: urls, transport: given})
    assert conf.server(app, runtime_of(app).settings) == (
        SENTINELS,
        {"master_name": "locks", **KWARGS},
    )
    assert asked(app) == "sentinel://127.0.0.1:1,localhost:1/locks"


def test_sentinel_and_tls_are_carried_over_together() -> None:
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    app = local_app(
        broker_url=SENTINELS,
        broker_transport_options={"master_name": "locks"},
        broker_use_ssl=tls,
        redlock_options={"master_name": "others"},
    )
    assert conf.server(app, runtime_of(app).settings) == (
        SENTINELS,
        {"ssl": True, **tls, "master_name": "others"},
    )
    runtime_of(app).check()


def test_of_a_sentinels_alternates_only_sentinels_count() -> None:
    app = local_app(
        broker_url=f"{SENTINELS};redis://elsewhere",
        broker_transport_options={"master_name": "locks"},
    )
    assert conf.server(app, runtime_of(app).settings)[0] == SENTINELS


def test_a_sentinel_broker_without_its_masters_name_is_refused() -> None:
    app = local_app(broker_url=SENTINELS, result_backend=f"{NOBODY}/2")
    with pytest.raises(ConfigurationError, match="expected master_name"):
        declare(app)()


# --- two apps on one server


@pytest.fixture
def task_of(lock_server: LockServer) -> Callable[..., Any]:
    """The same task of an app of that name."""

    def make(main: str, **options: Any) -> Any:
        options = {"redlock_on_conflict": "fail", **options}
        app = local_app(main, redlock_url=lock_server.url, **options)
        return declare(app, lock_key="account:{account_id}")

    return make


def elsewhere(task: Any) -> Any:
    """Call it where nothing is held."""
    with ThreadPoolExecutor() as threads:
        return threads.submit(task, 1).result()


@pytest.mark.parametrize("where", [elsewhere, lambda task: task(1)])
def test_two_projects_on_one_server_do_not_meet(
    task_of: Callable[..., Any], lock_server: LockServer, where: Callable[[Any], Any]
) -> None:
    one, two = task_of("one"), task_of("two")
    holders = []

    def body() -> None:
        assert two(1, lambda: holders.append(one.lock_state(1).holders[0]["fence"])) is None
        holders.append(two.lock_state(1).fence)
        assert where(two) is True

    one(1, body)
    assert len(set(holders)) == 2


def test_apps_with_one_prefix_meet(task_of: Callable[..., Any]) -> None:
    one, two = (task_of(main, redlock_prefix="both:") for main in ("one", "two"))
    with pytest.raises(LockConflict):
        one(1, lambda: elsewhere(two))


def test_an_app_without_a_name_or_with_an_odd_one_has_a_prefix() -> None:
    for main, prefix in [(None, "redlock:celery:1:"), ("a b{c}", "redlock:a%20b%7Bc%7D:1:")]:
        app = local_app(main)
        assert runtime_of(app).settings.prefix == prefix
