"""Apps of a test's own and a worker in this process: for what a task's class decides."""

from __future__ import annotations

import gc
import uuid
import warnings
from contextlib import contextmanager
from typing import Any, Iterator, Optional

from celery import Celery, _state
from celery.contrib.testing.worker import start_worker


def local_app(main: str = "shop", server: Optional[str] = None, **options: Any) -> Celery:
    """An app with its broker and its results on ``server``, or in memory: then without workers.

    ``options`` are settings and arguments of Celery.
    """
    given = {key: options.pop(key) for key in ("task_cls", "namespace") if key in options}
    app = Celery(
        main,
        broker=server or "memory://",
        backend=server or "cache+memory://",
        set_as_current=False,
        **given,
    )
    app.conf.update(
        # What an earlier test left on the server reaches no later one.
        task_default_queue=f"local-{uuid.uuid4().hex[:8]}",
        broker_pool_limit=0,  # kombu's pools outlive the app
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        **options,
    )
    return app


@contextmanager
def local_worker(app: Celery, **options: Any) -> Iterator[Any]:
    """A worker of the app in a thread of this process."""
    before = _state._get_current_app(), _state.default_app
    options = {"pool": "solo", "perform_ping_check": False, **options}
    try:
        with start_worker(app, **options) as worker:
            yield worker
    finally:
        _state._set_current_app(before[0])
        _state.set_default_app(before[1])


@contextmanager
def apps_apart() -> Iterator[None]:
    """What is made inside, apps and tasks shared by apps, reaches no app that is made later."""
    apps, shared = set(_state._get_active_apps()), set(_state._on_app_finalizers)
    try:
        yield
    finally:
        for app in set(_state._get_active_apps()) - apps:
            _close(app)
        _state._on_app_finalizers.intersection_update(shared)


def _close(app: Celery) -> None:
    """Close its connections too: an open socket would be a warning in a later test."""
    backend = app.backend
    if hasattr(backend, "result_consumer"):
        backend.result_consumer.stop()
        backend.client.close()
        backend.client.connection_pool.disconnect()
        _collect()
    app.close()


def _collect() -> None:
    """Older versions of Celery leave connections to the garbage collection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
