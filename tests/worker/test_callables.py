"""What a callable option is given, by how it was written."""

from __future__ import annotations

import functools
from typing import Any, Iterator

import pytest

from celery_redlock import LockedTask
from tests.worker.local import apps_apart, local_app


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def task_with(**options: Any) -> Any:
    app = local_app()

    @app.task(base=LockedTask, **options)
    def sync() -> None: ...

    return sync


def test_a_policy_that_is_a_method_gets_the_task_too() -> None:
    class Sync(LockedTask):
        name = "shop.sync"

        def lock_on_conflict(self, conflict: Any) -> str:
            return f"{self.name} {conflict}"

        def run(self) -> None: ...

    task = local_app().register_task(Sync())
    assert task.redlock_options().on_conflict("conflict") == "shop.sync conflict"
    by_function = task_with(lock_on_conflict=lambda conflict: f"{conflict}")
    assert by_function.redlock_options().on_conflict("conflict") == "conflict"


class ByMethod(LockedTask):
    name = "shop.by_method"
    tenant = "acme"

    def lock_key(self, account_id: int) -> str:
        return f"{self.tenant}:{self.name}:{account_id}"

    def run(self, account_id: int, full: bool = False) -> None: ...


class ByMethodOfAnotherName(LockedTask):
    name = "shop.by_other"
    tenant = "acme"

    def resource_name(self, account_id: int) -> str:
        return f"{self.tenant}:{account_id}"

    lock_key = resource_name

    def run(self, account_id: int, full: bool = False) -> None: ...


class ByStatic(ByMethod):
    name = "shop.by_static"

    @staticmethod
    def lock_key(account_id: int) -> str:
        return f"static:{account_id}"


class ByClass(ByMethod):
    name = "shop.by_class"

    @classmethod
    def lock_key(cls, account_id: int) -> str:
        return f"{cls.tenant}:{account_id}"


class ByLambda(ByMethod):
    name = "shop.by_lambda"
    lock_key = lambda account_id: f"lambda:{account_id}"  # noqa: E731


def by_function(account_id: int) -> str:
    return f"function:{account_id}"


class ByFunction(ByMethod):
    name = "shop.by_function"
    lock_key = by_function


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (ByMethod, "acme:shop.by_method:7"),
        (ByMethodOfAnotherName, "acme:7"),
        (ByStatic, "static:7"),
        (ByClass, "acme:7"),
        (ByLambda, "lambda:7"),
        (ByFunction, "function:7"),
    ],
)
def test_only_a_method_gets_the_task(cls: Any, name: str) -> None:
    assert local_app().register_task(cls()).lock_resource(7, full=True) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (by_function, "function:7"),
        (lambda account_id: f"lambda:{account_id}", "lambda:7"),
        (lambda account_id, full: f"{account_id}:{full}", "7:True"),
        (functools.partial(lambda prefix, account_id: f"{prefix}:{account_id}", "p"), "p:7"),
        (staticmethod(by_function), "function:7"),
    ],
)
@pytest.mark.parametrize("bind", [False, True])
def test_a_callable_gets_the_calls_arguments(key: Any, name: str, bind: bool) -> None:
    app = local_app()
    if bind:

        @app.task(base=LockedTask, bind=True, lock_key=key)
        def sync(self: Any, account_id: int, full: bool = False) -> None: ...
    else:

        @app.task(base=LockedTask, lock_key=key)
        def sync(account_id: int, full: bool = False) -> None: ...

    assert sync.lock_resource(7, full=True) == name
