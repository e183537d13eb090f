"""Fixtures of the worker suite: the session's servers, a shop per test, pytest-celery's nodes.

Session servers are shared: a test that stops or kills a server starts one of its own.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest

from tests.harness.broker import RabbitMQ
from tests.harness.locked_shop import LockedShop
from tests.harness.servers import LockServer
from tests.harness.shop import MakeShop, Shop
from tests.worker.app import ShopSettings

# pytest-celery's own tests-with-nodes run on its containers where there is an engine for them.
if os.environ.get("REDLOCK_TEST_NODES") != "containers":
    from tests.harness.nodes import (  # noqa: F401
        default_rabbitmq_broker,
        default_redis_backend,
        default_redis_broker,
        default_worker_container,
    )

# Celery and kombu call what redis-py has deprecated, also in a worker in the tests' process.
CELERYS_OWN = (
    "ignore:Call to deprecated:DeprecationWarning:celery.backends.redis",
    "ignore:Call to 'get_connection':DeprecationWarning:kombu.transport.redis",
)


def pytest_configure(config: pytest.Config) -> None:
    for warning in CELERYS_OWN:
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[LockServer]:
    """The session's Redis for brokers (database 0) and result backends (database 1)."""
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def lock_server() -> Iterator[LockServer]:
    """The session's lock server."""
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """The session's RabbitMQ; the first test that asks for it waits some seconds."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def make_shop(
    request: pytest.FixtureRequest, lock_server: LockServer, tmp_path: Path
) -> Iterator[MakeShop]:
    """Make shops: ``broker`` redis or rabbitmq, ``backend`` redis, database or rpc, ``**conf``."""
    with ExitStack() as shops:

        def make(
            broker: str = "redis",
            backend: str = "redis",
            lock_url: Optional[str] = None,
            **conf: Any,
        ) -> Shop:
            settings = ShopSettings(
                broker_url=_broker_url(request, broker),
                backend_url=_backend_url(request, backend, tmp_path),
                lock_url=lock_url or lock_server.url,
                body_log=str(tmp_path / "bodies.log"),
                conf=conf,
            )
            return shops.enter_context(Shop(settings, tmp_path))

        yield make


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    """A shop on Redis throughout, without workers yet."""
    return make_shop()


@pytest.fixture(scope="module")
def make_locked_shop(
    request: pytest.FixtureRequest,
    lock_server: LockServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., LockedShop]]:
    """As ``make_shop``, with locked tasks, for all tests of a module: accounts keep them apart."""
    with ExitStack() as shops:

        def make(
            broker: str = "redis",
            backend: str = "redis",
            lock_url: Optional[str] = None,
            **conf: Any,
        ) -> LockedShop:
            directory = tmp_path_factory.mktemp("shop")
            settings = ShopSettings(
                broker_url=_broker_url(request, broker),
                backend_url=_backend_url(request, backend, directory),
                lock_url=lock_url or lock_server.url,
                body_log=str(directory / "bodies.log"),
                # The lock server has just started, and nobody held anything before.
                conf={"redlock_restart_grace": 0, **conf},
            )
            return shops.enter_context(LockedShop(settings, directory))

        yield make


@pytest.fixture
def account(request: pytest.FixtureRequest) -> str:
    """An account that no other test works on."""
    return f"{request.node.originalname}-{secrets.token_hex(4)}"


def _broker_url(request: pytest.FixtureRequest, broker: str) -> str:
    if broker == "rabbitmq":
        return request.getfixturevalue("rabbitmq").url
    return request.getfixturevalue("redis_server").url


def _backend_url(request: pytest.FixtureRequest, backend: str, directory: Path) -> str:
    if backend == "redis":
        url = request.getfixturevalue("redis_server").url
        return url[: -len("/0")] + "/1"
    return {"rpc": "rpc://", "database": f"db+sqlite:///{directory}/results.sqlite"}[backend]
