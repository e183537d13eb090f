"""Which tasks are locked, and each by itself: of classes, of subclasses, of several apps."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Iterator

import pytest
from celery import Celery, Task, shared_task

from celery_redlock import LockedTask, current_lock
from celery_redlock.testing import memory_locks
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def test_binding_twice_is_binding_once(lock_server: LockServer) -> None:
    app = local_app(redlock_url=lock_server.url, redlock_eager=True)
    bound = []

    class Sync(LockedTask):
        name = "shop.sync"

        @classmethod
        def on_bound(cls, app: Celery) -> None:
            bound.append(app)

        def run(self) -> bool:
            return bool(self.lock.is_held)

    task = app.register_task(Sync())
    gate = Sync.__call__
    task.bind(app)
    assert Sync.__call__ is gate
    assert bound == [app, app]
    task.apply()
    lock_server.reset_stats()
    assert task.apply().get() is True
    assert lock_server.calls("evalsha") == 2


def test_a_shared_task_is_locked_in_every_app() -> None:
    @shared_task(name="shop.shared", base=LockedTask, lock_key="account:{account_id}")
    def sync(account_id: int) -> None: ...

    for main in ("one", "two"):
        task = local_app(main).tasks["shop.shared"]
        assert task.lock_resource(1) == "account:1"
        assert is_locked(task)


def is_locked(task: Any) -> bool:
    return getattr(task.__class__.__call__, "redlock_gate", False)


def test_celerys_own_tasks_are_never_locked() -> None:
    app = local_app(task_cls=LockedTask)
    app.conf.task_annotations = {"*": {"lock_ttl": 5}}

    @app.task
    def sync(account_id: int) -> None: ...

    assert is_locked(sync)
    own = [task for name, task in app.tasks.items() if name.startswith("celery.")]
    assert len(own) > 5
    for task in own:
        assert isinstance(task, LockedTask)
        assert not is_locked(task)
        assert task.lock_resource() is None


def test_a_task_class_without_a_name_is_locked_under_the_name_it_is_given() -> None:
    class Sync(LockedTask):
        lock_key = ()

        def run(self, account_id: int) -> None: ...

    task = local_app().register_task(Sync)
    assert task.name == "tests.worker.test_task_classes.Sync"
    assert is_locked(task)
    assert task.lock_resource(1) == "tests.worker.test_task_classes.Sync()"


def test_two_tasks_of_one_class_do_not_share_locks_or_options() -> None:
    class Sync(LockedTask):
        def __init__(self, kind: str, ttl: int) -> None:
            self.name = f"shop.sync_{kind}"
            self.lock_ttl = ttl

        def run(self, account_id: int) -> None: ...

    app = local_app()
    users, orders = app.register_task(Sync("users", 5)), app.register_task(Sync("orders", 6))
    assert users.lock_resource(1).startswith("shop.sync_users(")
    assert orders.lock_resource(1).startswith("shop.sync_orders(")
    assert (users.redlock_options().ttl, orders.redlock_options().ttl) == (5, 6)


def test_an_argument_may_be_named_self() -> None:
    app = local_app(redlock_eager=True)

    @app.task(base=LockedTask, lock_key="account:{account_id}")
    def note(account_id: int, **fields: int) -> Any:
        return [current_lock().resource, fields]

    @app.task(base=LockedTask, lock_key="account:{self}")
    def unbound(self: int) -> str:
        return current_lock().resource or ""

    with memory_locks():
        assert note.apply((1,), {"self": 2}).get() == ["account:1", {"self": 2}]
        assert unbound.apply((), {"self": 2}).get() == "account:2"
        assert unbound.lock_resource(self=2) == "account:2"
        assert unbound.lock_state(self=2).holders == ()


def test_a_decorator_that_gives_arguments_of_its_own_says_so_by_its_signature() -> None:
    def with_session(body: Any) -> Any:
        @functools.wraps(body)
        def given(*args: Any, **kwargs: Any) -> Any:
            return body("session", *args, **kwargs)

        plain = inspect.signature(body)
        parameters = list(plain.parameters.values())[1:]
        given.__signature__ = plain.replace(parameters=parameters)  # type: ignore[attr-defined]
        return given

    app = local_app(redlock_eager=True)

    @app.task(base=LockedTask, lock_key="account:{account_id}")
    @with_session
    def sync(session: str, account_id: int) -> Any:
        return [session, current_lock().resource]

    with memory_locks():
        assert sync.apply((1,)).get() == ["session", "account:1"]
        assert sync.apply((), {"account_id": 2}).get() == ["session", "account:2"]


def test_a_subclass_of_a_task_has_its_own_lock_and_options() -> None:
    class Sync(LockedTask):
        name = "shop.sync"
        lock_ttl = 5

        def run(self, account_id: int) -> None: ...

    class Deep(Sync):
        name = "shop.deep"
        lock_ttl = 7
        lock_key = "deep:{account_id}"

    app = local_app()
    sync, deep = app.register_task(Sync()), app.register_task(Deep())
    assert (sync.redlock_options().ttl, deep.redlock_options().ttl) == (5, 7)
    assert deep.lock_resource(1) == "deep:1"
    assert sync.lock_resource(1).startswith("shop.sync(")


def test_looking_at_the_base_class_binds_it_to_no_app() -> None:
    class AppTask(Task):
        abstract = True

    app = local_app(task_cls=AppTask)
    bases = LockedTask.__bases__
    LockedTask.bind(app)
    try:
        assert LockedTask.__bases__ == bases
        assert not getattr(LockedTask.__call__, "redlock_gate", False)
    finally:
        LockedTask._app, LockedTask.__bound__ = None, False
