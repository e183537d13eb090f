"""Tasks and Locks on every kind of lock server."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator, List

import pytest
from celery import Celery

from celery_redlock import ConfigurationError, Lock, LockConflict, LockedTask
from tests.harness.locked_shop import eventually
from tests.harness.servers import LockServer
from tests.harness.topologies import TOPOLOGIES
from tests.worker.local import apps_apart, local_app, local_worker

SOON = 20.0


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture(scope="module", params=["guarded", "sentinel", "cluster"])
def topology(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    server = TOPOLOGIES[request.param](tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


def settings_for(topology: Any) -> Dict[str, Any]:
    return {
        "redlock_url": topology.url,
        "redlock_options": topology.options,
        "redlock_restart_grace": 0,
    }


def declare(app: Celery, **options: Any) -> Any:
    @app.task(name="shop.sync", base=LockedTask, lock_key="account:{account}", **options)
    def sync(account: str) -> str:
        return "done"

    return sync


def test_a_worker_waits_for_a_lock_of_a_script(topology: Any, lock_server: LockServer) -> None:
    app = local_app("shop", lock_server.url, **settings_for(topology))
    task = declare(app)
    with local_worker(app), Lock("account:1", app=app) as lock:
        result = task.delay("1")
        assert eventually(lambda: task.lock_state("1").waiting == 1, SOON)
        fence = lock.fence
        lock.release()
        assert result.get(timeout=SOON) == "done"
        assert lock.acquire(blocking_timeout=SOON)
        assert lock.fence is not None
        assert fence is not None
        assert lock.fence > fence


def test_a_conflict_is_one_from_every_thread(topology: Any) -> None:
    app = local_app("shop", **settings_for(topology))
    task = declare(app, lock_on_conflict="fail")
    came: List[Any] = []

    def call() -> None:
        try:
            came.append(task("2"))
        except LockConflict as conflict:
            came.append(conflict.resource)

    with Lock("account:2", app=app):
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
    assert came == ["account:2"] * 4
    assert task("2") == "done"


def test_templates_of_several_slots_are_refused_when_the_worker_starts(
    lock_server: LockServer,
) -> None:
    """Nothing is connected to: a cluster that is away is no wrong setting."""
    app = local_app("shop", lock_server.url, redlock_url="redis+cluster://127.0.0.1:1")

    @app.task(name="shop.move", base=LockedTask, lock_key=["account:{source}", "stock:{target}"])
    def move(source: str, target: str) -> None: ...

    told = r"task shop.move: .*share a slot of the cluster"
    with pytest.raises(ConfigurationError, match=told), local_worker(app):
        raise AssertionError("it started")
