"""Every way to make a task a locked one: by its app, by annotations, shared between apps."""

from __future__ import annotations

import uuid
from typing import Any, Callable, Iterator, List

import pytest
from celery import Celery, Task, chord, shared_task

from celery_redlock import ConfigurationError, LockedTask
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app, local_worker

SOON = 15.0


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture
def make_app(redis_server: LockServer, lock_server: LockServer) -> Callable[..., Celery]:
    def make(main: str = "shop", **options: Any) -> Celery:
        locks = {"redlock_url": lock_server.url, "redlock_eager": True}
        return local_app(main, server=redis_server.url, **locks, **options)

    return make


def by_class(make_app: Callable[..., Celery]) -> Celery:
    return make_app(task_cls=LockedTask)


def by_name(make_app: Callable[..., Celery]) -> Celery:
    return make_app(task_cls="celery_redlock:LockedTask")


def by_assignment(make_app: Callable[..., Celery]) -> Celery:
    app = make_app()
    app.Task = LockedTask
    return app


@pytest.mark.parametrize("make", [by_class, by_name, by_assignment])
def test_all_tasks_of_an_app_are_locked_and_celerys_own_are_not(
    make_app: Callable[..., Celery], make: Callable[..., Celery]
) -> None:
    app = make(make_app)

    @app.task(bind=True, name="shop.sync", lock_key="account:{account_id}")
    def sync(self: Any, account_id: int) -> List[Any]:
        return [self.lock.resource, self.lock.is_held]

    @app.task(name="shop.collect", lock_key=())
    def collect(results: List[Any]) -> List[Any]:
        return results

    class Nightly(app.Task):  # type: ignore[name-defined,misc]
        name = "shop.nightly"

        def run(self) -> bool:
            return bool(self.lock.is_held)

    nightly = app.register_task(Nightly())
    locked = [["account:1", True], ["account:2", True]]
    with local_worker(app):
        # celery.map, and what Celery does for a chord, are tasks of its own.
        assert sync.map([1, 2]).delay().get(timeout=SOON) == locked
        assert chord([sync.s(1), sync.s(2)], collect.s()).delay().get(timeout=SOON) == locked
        assert nightly.delay().get(timeout=SOON) is True
        app.tasks["celery.backend_cleanup"].delay().get(timeout=SOON)


class Annotations:
    """An annotation in the form of an object, by a rule over tasks."""

    def annotate(self, task: Any) -> Any:
        return {"lock_ttl": 77} if task.name == "shop.sync" else None

    def annotate_any(self) -> Any:
        return {"lock_wait_timeout": 5}


@pytest.mark.parametrize(
    "annotations",
    [
        {"shop.sync": {"lock_ttl": 77}, "*": {"lock_wait_timeout": 5}},
        [{"shop.sync": {"lock_ttl": 77}}, {"*": {"lock_wait_timeout": 5}}],
        [Annotations()],
        [f"{__name__}:Annotations"],
    ],
    ids=["mapping", "list", "object", "name"],
)
def test_options_may_be_given_by_annotations(
    make_app: Callable[..., Celery], annotations: Any
) -> None:
    app = make_app(task_annotations=annotations)

    @app.task(base=LockedTask, name="shop.sync", lock_ttl=5, lock_key="account:{account_id}")
    def sync(account_id: int) -> None: ...

    @app.task(base=LockedTask, name="shop.other", lock_ttl=5)
    def other(account_id: int) -> None: ...

    assert (sync.redlock_options().ttl, other.redlock_options().ttl) == (77, 5)
    assert sync.redlock_options().wait_timeout == other.redlock_options().wait_timeout == 5
    assert sync.lock_resource(1) == "account:1"
    sync.bind(app)
    assert sync.redlock_options().ttl == 77


def test_an_annotation_that_cannot_be_used_is_refused_when_the_task_is_bound(
    make_app: Callable[..., Celery],
) -> None:
    class Wrong:
        def annotate(self, task: Any) -> Any:
            return {"lock_ttl": 0} if task.name == "shop.sync" else None

    app = make_app(task_annotations=[Wrong()])

    @app.task(base=LockedTask, name="shop.sync")
    def sync(account_id: int) -> None: ...

    with pytest.raises(ConfigurationError, match="lock_ttl"):
        sync.redlock_options()


def test_a_shared_task_locks_in_each_app_by_that_apps_settings(
    make_app: Callable[..., Celery],
) -> None:
    # Celery gives it to every app that is alive, also to those of earlier tests.
    name = f"shop.shared-{uuid.uuid4().hex}"

    @shared_task(name=name, base=LockedTask, bind=True, lock_key="account:{account_id}")
    def sync(self: Any, account_id: int) -> List[Any]:
        return [self.app.main, self.lock.is_held]

    one, two = make_app("one", redlock_ttl=50), make_app("two")
    tasks = [app.tasks[name] for app in (one, two)]
    assert [task.redlock_options().ttl for task in tasks] == [50, 30]
    assert [task.apply((1,)).get() for task in tasks] == [["one", True], ["two", True]]
    assert [task(1) for task in tasks] == [["one", True], ["two", True]]


def test_a_shared_tasks_body_calls_the_other_apps_without_reentering(
    make_app: Callable[..., Celery],
) -> None:
    """Their resources of one name are two: each app has its prefix."""
    name = f"shop.shared-{uuid.uuid4().hex}"
    fences: List[Any] = []

    @shared_task(name=name, base=LockedTask, bind=True, lock_key="account:{account_id}")
    def sync(self: Any, account_id: int, other: Any = None) -> None:
        fences.append(self.lock.fence)
        if other is not None:
            other.tasks[name](account_id)

    one, two = make_app("one"), make_app("two")
    one.tasks[name](1, two)
    assert len(set(fences)) == 2


def test_a_class_is_registered_as_a_class_or_as_a_task(make_app: Callable[..., Celery]) -> None:
    app = make_app()

    class Sync(LockedTask):
        name = "shop.sync"
        lock_key = "account:{account_id}"

        def run(self, account_id: int) -> List[Any]:
            return [self.lock.resource, self.request.id]

    class Deep(Sync):
        name = "shop.deep"

        def run(self, account_id: int) -> List[Any]:
            return ["deep", *super().run(account_id)]

    sync, deep = app.register_task(Sync), app.register_task(Deep())
    for task, expected in ((sync, ["account:1"]), (deep, ["deep", "account:1"])):
        result = task.apply((1,))
        assert result.get() == [*expected, result.id]
        assert task(1) == [*expected, None]
        assert task.lock_state(1).holders == ()
    assert isinstance(app.tasks["shop.sync"], Task)
