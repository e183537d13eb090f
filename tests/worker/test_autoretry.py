"""``autoretry_for`` retries a body's own errors, and the loss of its lock only where it says so."""

from __future__ import annotations

import uuid
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type

import pytest
from celery import Celery, shared_task

from celery_redlock import (
    LockConflict,
    LockedTask,
    LockError,
    LockLost,
    LockNotOwned,
    LockUnsure,
    RedlockError,
)
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app

Raised = Type[BaseException]

FIELDS: Dict[Raised, Tuple[Any, ...]] = {
    LockLost: ("account:1", 7),
    LockUnsure: ("account:1", 7),
    LockNotOwned: ("account:1",),
    LockConflict: ("account:1", "rival", 1.5),
    ValueError: ("a body's own",),
    KeyError: ("a body's own",),
}


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture
def app(lock_server: LockServer) -> Celery:
    return local_app(redlock_url=lock_server.url, redlock_eager=True)


def by_decorator(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    task = app.task(name="shop.sync", base=LockedTask, bind=True, **options)(body)
    app.finalize()
    return app.tasks[task.name]


def by_class(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    return app.register_task(
        type("Sync", (LockedTask,), {"name": "shop.sync", "run": body, **options})
    )


def by_base(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    base = type("Base", (LockedTask,), {"abstract": True, **options})
    app.task(name="shop.sync", base=base, bind=True)(body)
    app.finalize()
    return app.tasks["shop.sync"]


def by_registration(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    task = type("Sync", (LockedTask,), {"name": "shop.sync", "run": body})()
    return app.register_task(task, **options)


def shared(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    # Every app that is alive gets it, also those of earlier tests.
    name = f"shop.sync-{uuid.uuid4().hex}"
    shared_task(name=name, base=LockedTask, bind=True, **options)(body)
    return app.tasks[name]


def as_the_apps_class(app: Celery, body: Callable[..., Any], **options: Any) -> Any:
    app.Task = LockedTask
    app.task(name="shop.sync", bind=True, **options)(body)
    app.finalize()
    return app.tasks["shop.sync"]


WAYS = [by_decorator, by_class, by_base, by_registration, shared, as_the_apps_class]
Declare = Callable[..., Any]

AT_ONCE = {"retry_kwargs": {"countdown": 0, "max_retries": 2}}


def runs(declare: Declare, app: Celery, error: Raised, **options: Any) -> int:
    """How often the body runs that always raises this error, which is what its caller gets."""
    seen: List[int] = []

    def sync(self: Any, account_id: int) -> None:
        assert self.lock.is_held
        seen.append(self.request.retries)
        raise error(*FIELDS[error])

    task = declare(app, sync, **{**AT_ONCE, **options})
    with pytest.raises(error) as caught:
        task.apply(args=(1,)).get()
    assert caught.value.args == FIELDS[error]
    assert task.lock_state(1).holders == ()
    assert seen == list(range(len(seen)))
    return len(seen)


@pytest.mark.parametrize("declare", WAYS)
def test_the_loss_of_a_lock_is_not_retried(app: Celery, declare: Declare) -> None:
    assert runs(declare, app, LockLost, autoretry_for=(Exception,)) == 1


@pytest.mark.parametrize("declare", WAYS)
def test_a_bodys_own_error_is_retried(app: Celery, declare: Declare) -> None:
    assert runs(declare, app, ValueError, autoretry_for=(Exception,)) == 3


@pytest.mark.parametrize("error", [LockUnsure, LockNotOwned])
def test_neither_is_a_lock_that_may_be_lost_or_is_not_owned(app: Celery, error: Raised) -> None:
    assert runs(by_decorator, app, error, autoretry_for=(Exception,)) == 1


@pytest.mark.parametrize("declare", [by_decorator, by_class, by_base, shared])
@pytest.mark.parametrize("named", [LockLost, LockNotOwned, LockError, RedlockError])
def test_the_loss_is_retried_where_it_is_named(
    app: Celery, declare: Declare, named: Raised
) -> None:
    assert runs(declare, app, LockLost, autoretry_for=(OSError, named)) == 3


# Not by_registration: of what is given to register_task only Celery knows.
@pytest.mark.parametrize("declare", [by_decorator, by_class, by_base, shared, as_the_apps_class])
@pytest.mark.parametrize("error", [KeyError, LockLost])
def test_what_a_task_names_not_to_be_retried_counts_too(
    app: Celery, declare: Declare, error: Raised
) -> None:
    options = {"autoretry_for": (Exception,), "dont_autoretry_for": (KeyError,)}
    assert runs(declare, app, error, **options) == 1


def test_a_conflict_that_a_body_meets_is_its_own_error(app: Celery) -> None:
    """It comes out of a direct call that the body made."""
    assert runs(by_decorator, app, LockConflict, autoretry_for=(Exception,)) == 3


@pytest.mark.parametrize("declare", [by_decorator, by_class])
def test_binding_twice_wraps_the_body_once(app: Celery, declare: Declare) -> None:
    def sync(self: Any, account_id: int) -> None: ...

    task = declare(app, sync, autoretry_for=(Exception,))
    wrapped = task.run
    task.bind(app)
    assert task.run is wrapped


def test_a_decorators_autoretry_comes_before_an_annotations(app: Celery) -> None:
    """As with Celery's own tasks: annotations come too late for it."""
    app.conf.task_annotations = {"shop.sync": {"autoretry_for": (ValueError,)}}
    assert runs(by_decorator, app, ValueError, autoretry_for=(OSError,)) == 1


def test_a_direct_call_raises_the_bodys_error(app: Celery) -> None:
    def sync(self: Any, account_id: int) -> None:
        raise ValueError(account_id)

    task = by_decorator(app, sync, autoretry_for=(Exception,))
    with pytest.raises(ValueError, match="1"):
        task(1)
    assert task.lock_state(1).holders == ()
