"""Every store, behind one fixture: in memory, and on every kind of server."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from celery_redlock.core.ports import Store
from celery_redlock.store.memory import MemoryStore
from celery_redlock.store.several import open_several
from celery_redlock.store.urls import open_store
from tests.contract.desk import Desk
from tests.contract.redlock import lack
from tests.harness.independent import Independent
from tests.harness.servers import LockServer
from tests.harness.topologies import TOPOLOGIES

PREFIX = "redlock:test:1:"
SERVERS = ("redis", "valkey")

#: What takes long and asks nothing of the way to a server: on one server of each kind.
ON_ONE_SERVER = ("test_asking", "test_random_faults", "test_return")

#: What a cluster can do where all names share a slot: a hash tag in the prefix sees to that.
IN_ONE_SLOT = ("test_asker", "test_batches", "test_several", "test_survey")
SHARED_SLOT = "redlock:{test}:1:"

#: Far above what one of several servers needs on a busy machine: what a slow one costs is tested
#: in a module of its own.
PATIENT = {"socket_timeout": 10.0}


class Backend:
    """Where a store keeps its data, and how to take it away."""

    def __init__(self, server: Optional[LockServer], prefix: str = PREFIX) -> None:
        self.server = server
        self._prefix = prefix
        self._opened: List[Store] = []

    def open(self, restart_grace: float = 0.0) -> Store:
        store = self._memory(restart_grace) if self.server is None else self._real(restart_grace)
        self._opened.append(store)
        return store

    def wiped(self, store: Store) -> Store:
        """The store after its server lost all data without restarting."""
        if self.server is None:
            time.sleep(0.002)  # its clock has milliseconds: fences grow from one to the next
            return self.open()
        self.server.flush()
        return store

    def restarted(self, restart_grace: float) -> Store:
        """A store of the server that has just restarted empty."""
        if self.server is not None:
            self.server.restart()
        return self.open(restart_grace)

    def close(self) -> None:
        for store in self._opened:
            store.close()
        if self.server is not None:
            self.server.flush()

    def _memory(self, restart_grace: float) -> Store:
        return MemoryStore(grace_ms=int(restart_grace * 1000))

    def _real(self, restart_grace: float) -> Store:
        assert self.server is not None
        return open_store(
            self.server.url,
            prefix=self._prefix,
            options=self.server.options,
            fence_ttl=86_400,
            restart_grace=restart_grace,
        )


class Several(Backend):
    """Several servers, of which a majority decides."""

    def __init__(self, servers: Independent) -> None:
        super().__init__(None)
        self._servers = servers

    def open(self, restart_grace: float = 0.0) -> Store:
        store = open_several(self._servers.urls, prefix=PREFIX, options=PATIENT)
        self._opened.append(store)
        return store

    def wiped(self, store: Store) -> Store:
        self._servers.flush()
        return store

    def close(self) -> None:
        super().close()
        self._servers.flush()


@pytest.fixture(scope="session")
def independent() -> Iterator[Independent]:
    """Servers that know nothing of one another, and vote as soon as they are there."""
    with Independent.durable() as independent:
        yield independent


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LockServer]]:
    """Servers by flavour or topology, each started when first asked for."""
    running: Dict[str, LockServer] = {}

    def server(kind: str) -> LockServer:
        if kind not in running:
            running[kind] = TOPOLOGIES[kind](tmp_path_factory.mktemp(kind))
        return running[kind]

    yield server
    for each in running.values():
        each.stop()


def _module_of(of: Any) -> str:
    return str(of.module.__name__).rsplit(".", 1)[-1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        is_slow = _module_of(metafunc) in ON_ONE_SERVER
        kinds = ["memory", *(SERVERS if is_slow else TOPOLOGIES)]
        if lack(metafunc.module.__name__, metafunc.function.__name__) is None:
            kinds.append("redlock")
        metafunc.parametrize("backend", kinds, indirect=True)


@pytest.fixture
def backend(
    request: pytest.FixtureRequest, servers: Callable[[str], LockServer]
) -> Iterator[Backend]:
    flavour: str = request.param
    if flavour == "redlock":
        backend: Backend = Several(request.getfixturevalue("independent"))
    else:
        in_one_slot = flavour == "cluster" and _module_of(request) in IN_ONE_SLOT
        prefix = SHARED_SLOT if in_one_slot else PREFIX
        backend = Backend(None if flavour == "memory" else servers(flavour), prefix)
    yield backend
    backend.close()


@pytest.fixture(params=SERVERS)
def real(request: pytest.FixtureRequest, servers: Callable[[str], LockServer]) -> Iterator[Backend]:
    """A backend that is a server."""
    backend = Backend(servers(request.param))
    yield backend
    backend.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()


@pytest.fixture
def desk(store: Store) -> Desk:
    """One resource of the store."""
    return Desk(store)
