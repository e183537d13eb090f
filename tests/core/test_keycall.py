from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Dict, Tuple

import pytest

from celery_redlock.core.naming import Naming
from celery_redlock.exceptions import ConfigurationError

TASK = "shop.tasks.sync"


def sync(account_id: Any, full: Any = False) -> None: ...


def variadic(a: Any, *rest: Any, flag: Any = None, **extra: Any) -> None: ...


def naming(lock_key: Any, run: Callable[..., Any] = sync, task: str = TASK) -> Naming:
    return Naming.of(task, inspect.signature(run), lock_key)


def names(lock_key: Any, *args: Any, **kwargs: Any) -> Tuple[str, ...]:
    return naming(lock_key).names(args, kwargs)


def variadic_names(lock_key: Any, *args: Any, **kwargs: Any) -> Tuple[str, ...]:
    return naming(lock_key, variadic).names(args, kwargs)


def test_a_callable_gets_the_arguments_that_it_names() -> None:
    assert names(lambda account_id: f"a:{account_id}", 7) == ("a:7",)
    assert names(lambda full: f"f:{full}", 7) == ("f:False",)
    assert names(lambda full, account_id: f"{account_id}/{full}", 7) == ("7/False",)
    assert names(lambda account_id, prefix="acct": f"{prefix}:{account_id}", 7) == ("acct:7",)
    assert names(lambda: "one", 7) == ("one",)


def test_a_callable_with_other_parameters_is_called_as_the_task_is() -> None:
    assert names(lambda ident, *_: f"a:{ident}", 7) == ("a:7",)
    assert names(lambda ident, whole: f"{ident}:{whole}", 7) == ("7:False",)
    assert names(lambda *args: f"n:{len(args)}", account_id=7) == ("n:2",)


def test_a_callable_with_double_star_gets_every_argument_by_name() -> None:
    assert names(lambda **given: "/".join(sorted(given)), 7) == ("account_id/full",)
    seen: Dict[str, Any] = {}

    def key(a: Any, **others: Any) -> str:
        seen.update(others, a=a)
        return "x"

    variadic_names(key, 1, 2, x=3)
    assert seen == {"a": 1, "rest": (2,), "flag": None, "x": 3}


def test_a_partial_keeps_what_it_has_fixed() -> None:
    def key(account_id: Any, full: Any) -> str:
        return f"{account_id}/{full}"

    assert names(functools.partial(key, full="fixed"), 7) == ("7/fixed",)
    assert names(functools.partial(key, "first"), 7, full=1) == ("first/1",)


def test_a_staticmethod_and_a_class_are_callables() -> None:
    assert names(staticmethod(lambda account_id: f"a:{account_id}"), 7) == ("a:7",)
    assert naming(str, lambda ident: None).names(("abc",), {}) == ("abc",)


def test_a_callable_gives_one_name_several_or_none() -> None:
    assert names(lambda account_id: None, 1) == ()
    assert names(lambda account_id: ["b", "a", "b"], 1) == ("a", "b")
    assert names(lambda account_id: ("a",), 1) == names(lambda account_id: {"a"}, 1) == ("a",)


def test_names_from_a_callable_are_escaped_and_shortened() -> None:
    assert names(lambda account_id: "a:b/c d()\n", 1) == ("a:b/c%20d%28%29%0A",)
    (long,) = names(lambda account_id: "é" * 500, 1)
    assert len(long) < 200


@pytest.mark.parametrize(
    ("result", "got"),
    [
        ("", "an empty name"),
        (["a", ""], "an empty name"),
        ([], "an empty list"),
        (["a", 1], "a int among them"),
        ([None], "a NoneType among them"),
        (7, "a int"),
        (b"a", "a bytes"),
        ({"a": 1}, "a dict"),
        (False, "a bool"),
    ],
)
def test_anything_else_from_a_callable_is_an_error(result: Any, got: str) -> None:
    with pytest.raises(ConfigurationError, match=f"task {TASK}: expected .*, got {got};"):
        names(lambda account_id: result, 1)


def test_what_a_callable_raises_goes_through() -> None:
    error = KeyError("tenant")

    def key(account_id: Any) -> str:
        raise error

    with pytest.raises(KeyError) as caught:
        names(key, 1)
    assert caught.value is error
