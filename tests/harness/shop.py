"""A shop under test: its servers' settings, a client app, its workers and its body log."""

from __future__ import annotations

import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterator, List, Mapping, Optional, Type

from celery import Celery, _state
from celery.backends.database import DatabaseBackend
from celery.backends.database.session import ResultModelBase
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult

from examples.demo.bodylog import BodyLog
from tests.harness.pools import GREEN
from tests.harness.worker import START_WITHIN, WorkerProcess
from tests.worker.app import ShopSettings, make_app


class Gate:
    """What bodies wait for; pass ``path`` to the task."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / f"gate-{uuid.uuid4().hex}"
        self.path = str(self._file)

    def open(self) -> None:
        self._file.touch()


class Shop:
    """Use as a context manager: its end ends all workers and the client's connections."""

    def __init__(self, settings: ShopSettings, directory: Path) -> None:
        self.directory = directory
        # A queue of its own: what an earlier test left on the broker reaches no later one.
        queue = {"task_default_queue": f"shop-{uuid.uuid4().hex[:8]}"}
        self.settings = settings._replace(conf={**queue, **settings.conf})
        self.app: Celery = make_app(self.settings)
        if isinstance(self.app.backend, DatabaseBackend):
            _create_tables(self.app.backend)
        _let_results_wait(self.app.backend)
        self.bodies: BodyLog = self.app.body_log
        self._workers: List[WorkerProcess] = []

    @property
    def queue(self) -> str:
        return str(self.app.conf.task_default_queue)

    def worker(
        self,
        *,
        ready: bool = True,
        sabotage: Optional[str] = None,
        environment: Optional[Mapping[str, str]] = None,
        **options: Any,
    ) -> WorkerProcess:
        """A worker of this shop, started; ``options`` as for WorkerProcess.

        ``ready=False`` does not wait: start several, then ``wait_until_ready`` each.
        """
        given = {**self.settings.environment(), **(environment or {})}
        if sabotage:
            given["REDLOCK_TEST_SABOTAGE"] = sabotage
        worker = WorkerProcess(self.directory, given, **options)
        self._workers.append(worker)
        worker.launch()
        if ready:
            worker.wait_until_ready()
            if worker.pool in GREEN:
                self._wait_until_it_hears(worker)
        return worker

    def _wait_until_it_hears(self, worker: WorkerProcess) -> None:
        """Greenlets are ready before they listen to what is broadcast, a revoke for instance."""
        node = self.app.control.inspect(destination=[worker.nodename], timeout=0.5)
        deadline = time.monotonic() + START_WITHIN
        while not node.ping():
            assert time.monotonic() < deadline, f"{worker.nodename} answers no ping"

    @contextmanager
    def embedded_worker(self, pool: str = "solo", **options: Any) -> Iterator[Any]:
        """A worker in a thread of this process, for what needs no process of its own."""
        before = _state._get_current_app(), _state.default_app
        options = {"perform_ping_check": False, "loglevel": "INFO", **options}
        try:
            with start_worker(self.app, pool=pool, **options) as worker:
                yield worker
        finally:
            _state._set_current_app(before[0])
            _state.set_default_app(before[1])

    def task(self, name: str) -> Any:
        """The task ``shop.<name>`` of the client's app."""
        return self.app.tasks[f"shop.{name}"]

    def send(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        return self.task(name).delay(*args, **kwargs)

    def gate(self) -> Gate:
        return Gate(self.directory)

    def __enter__(self) -> Shop:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for worker in self._workers:
            worker.kill()
        _close(self.app)


MakeShop = Callable[..., Shop]


def _create_tables(backend: DatabaseBackend) -> None:
    """Before 5.5 Celery makes tables late, and in one process only for its first database."""
    with closing(backend.ResultSession()) as session:
        ResultModelBase.metadata.create_all(session.get_bind())


def _let_results_wait(backend: Any) -> None:
    """Before 5.7 a result that is collected ends the waits of others of its task, or deadlocks."""
    if hasattr(getattr(backend, "result_consumer", None), "_get_pending_result"):
        backend.remove_pending_result = lambda result: result


def _close(app: Celery) -> None:
    """Close what the client opened: an open socket would be a warning in a later test."""
    backend = app.backend
    consumer = getattr(backend, "result_consumer", None)
    if consumer is not None:
        consumer.stop()
    if "client" in vars(backend):
        backend.client.close()
        backend.client.connection_pool.disconnect()
    # Results that the test dropped unread would unsubscribe, whenever they are collected.
    backend.remove_pending_result = lambda result: result
    # kombu shares the pools between apps with the same broker: emptied and filled anew, not closed.
    for pool in (app.producer_pool, app.pool):
        pool.resize(pool.limit, force=True, reset=True)
        pool._closed = False  # kombu 5.3 leaves it closed, for every app that shares it
    app.close()
