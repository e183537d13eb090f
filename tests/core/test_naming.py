from __future__ import annotations

import inspect
import re
from typing import Any, Callable, List, Tuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from celery_redlock.core.naming import Naming
from celery_redlock.core.template import resource
from celery_redlock.exceptions import ConfigurationError
from tests.core.strategies import alike, has_clashing_keys, values

TASK = "shop.tasks.sync"


def sync(account_id: Any, full: Any = False) -> None: ...


def variadic(a: Any, *rest: Any, flag: Any = None, **extra: Any) -> None: ...


def naming(lock_key: Any, run: Callable[..., Any] = sync, task: str = TASK) -> Naming:
    return Naming.of(task, inspect.signature(run), lock_key)


def names(lock_key: Any, *args: Any, **kwargs: Any) -> Tuple[str, ...]:
    return naming(lock_key).names(args, kwargs)


def variadic_names(lock_key: Any, *args: Any, **kwargs: Any) -> Tuple[str, ...]:
    return naming(lock_key, variadic).names(args, kwargs)


@given(values, values)
def test_a_call_has_one_name_however_its_arguments_are_passed(one: Any, other: Any) -> None:
    assume(not has_clashing_keys(one) and not has_clashing_keys(other))
    for key in (None, ("account_id", "full"), ("full",)):
        name = names(key, one, other)
        assert names(key, one, full=other) == name
        assert names(key, account_id=one, full=other) == name


@given(values)
def test_a_default_is_the_same_whether_it_is_passed_or_not(value: Any) -> None:
    assume(not has_clashing_keys(value))
    assert (
        names(None, value) == names(None, value, False) == names(None, full=False, account_id=value)
    )


@given(st.tuples(values, values), st.tuples(values, values))
def test_two_calls_share_a_name_only_if_their_arguments_are_alike(one: Any, other: Any) -> None:
    assume(not has_clashing_keys(one) and not has_clashing_keys(other))
    assert (names(None, *one) == names(None, *other)) == alike(one, other)
    assert (names(("full",), *one) == names(("full",), *other)) == alike(one[1], other[1])


def test_extra_arguments_are_part_of_the_name_in_any_order() -> None:
    assert variadic_names(None, 1, x=1, y=2) == variadic_names(None, 1, y=2, x=1)
    calls = [((1,), {}), ((1, 2), {}), ((1,), {"x": 2}), ((1,), {"flag": 2}), ((1, (2,)), {})]
    assert len({variadic_names(None, *args, **kwargs) for args, kwargs in calls}) == len(calls)


@pytest.mark.parametrize("key", [None, ("account_id",), "a:{account_id}", lambda account_id: "x"])
def test_a_call_that_does_not_fit_the_signature_raises_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match=f"^task {TASK}: missing a required argument"):
        names(key)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        names(key, 1, other=2)


def test_a_hashed_name_is_the_tasks_name_and_a_hash() -> None:
    (name,) = names(None, 1)
    assert re.fullmatch(re.escape(TASK) + r"\([0-9a-f]{64}\)", name)


def test_an_empty_tuple_is_the_task_alone() -> None:
    assert names((), 1) == names((), 2, full=True) == (f"{TASK}()",)


def test_tasks_with_hashed_names_never_share_them() -> None:
    other = naming(None, task="shop.tasks.other")
    assert other.names((1,), {}) != names(None, 1)


def test_other_names_of_arguments_give_other_names() -> None:
    keys: List[Any] = [None, ("account_id",), ("full",), ()]
    assert len({names(key, 1, 1) for key in keys}) == len(keys)


def test_naming_every_argument_is_the_same_as_none_and_order_does_not_matter() -> None:
    every = names(("account_id", "full"), 1)
    assert names(("full", "account_id"), 1) == every == names(None, 1)


def test_a_tuple_may_name_what_double_star_takes() -> None:
    assert variadic_names(("x",), 1, x=5) == variadic_names(("x",), 2, x=5, y=6)
    assert variadic_names(("x",), 1, x=5) != variadic_names(("x",), 1, x=6)
    with pytest.raises(ConfigurationError, match="needs the argument 'x'"):
        variadic_names(("x",), 1)


def test_hashed_names_are_pinned_because_a_change_would_rename_locks() -> None:
    assert names(None, 1) == (
        f"{TASK}(24c39e54f1ead33a1cc0946b0400c93576281c73b3e13cbd73b1a209474cbd80)",
    )


def test_a_task_with_a_long_or_odd_name_has_a_short_and_clean_one() -> None:
    long = naming(None, task="a" * 300).names((1,), {})[0]
    assert len(long) < 200
    assert long != naming(None, task="a" * 300).names((2,), {})[0]
    assert naming((), task="my task()").names((1,), {}) == ("my%20task%28%29()",)


def test_a_value_without_a_stable_encoding_is_an_error_that_names_task_and_argument() -> None:
    class Session:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(ConfigurationError) as caught:
        names(None, 1, full=["hunter2", Session()])
    message = str(caught.value)
    assert message.startswith(f"task {TASK}: expected argument 'full' to have")
    assert "Session has no stable encoding" in message
    assert "hunter2" not in message


def test_an_argument_that_is_not_part_of_the_name_may_be_anything() -> None:
    assert names(("full",), object()) == names(("full",), object())


def test_a_template_names_the_resource_outright_so_that_tasks_share_it() -> None:
    key = "account:{account_id}"
    assert names(key, 7) == naming(key, task="other").names((7,), {}) == ("account:7",)
    assert names(key, 7) == (resource(key, account_id=7),)


def test_a_template_without_placeholders_is_one_name_for_every_call() -> None:
    assert names("nightly", 1) == names("nightly", 2) == ("nightly",)


def test_a_list_of_templates_gives_every_name_sorted_and_once() -> None:
    assert names(["b:{account_id}", "a:{full}"], 1, 2) == ("a:2", "b:1")
    assert names(["a:{account_id}", "a:{full}"], 1, 1) == ("a:1",)
    assert names(["b", "a"], 1) == ("a", "b")


def test_a_template_may_name_what_double_star_takes() -> None:
    assert variadic_names("x:{x}", 1, x=5) == ("x:5",)
    with pytest.raises(ConfigurationError, match=f"task {TASK}: .*needs the argument 'x'"):
        variadic_names("x:{x}", 1)


def test_a_value_that_cannot_be_rendered_is_an_error_that_names_task_and_argument() -> None:
    with pytest.raises(ConfigurationError, match=f"task {TASK}: .*argument 'account_id'.*NoneType"):
        names("account:{account_id}", None)


@given(
    st.text(st.characters()), st.sampled_from(["{account_id}", "x{account_id}", "x:{account_id}"])
)
def test_no_argument_can_forge_a_hashed_name_or_the_task_alone(value: str, key: str) -> None:
    assume(value)
    (hashed,), (alone,) = names(None, 1), names((), 1)
    for text in (value, hashed, alone, f"{value}()"):
        (name,) = names(key, text)
        assert not name.endswith("()")
        assert not re.search(r"\([0-9a-f]{64}\)\Z", name)


async def coroutine_key(account_id: Any) -> str:
    return "x"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (7, "got int"),
        (b"a:{account_id}", "got bytes"),
        ({"account_id"}, "got set"),
        ("", "got ''"),
        ("a:{acount_id}", "got 'acount_id'"),
        ("a:{account_id.x}", "got '{account_id.x}'"),
        ("a:{account_id", "single one"),
        (("acount_id",), "got 'acount_id'"),
        (("account_id", "account_id"), "twice"),
        (("a:{account_id}", "b"), "write a list for several templates"),
        ((1,), "got a int"),
        ([], "empty list"),
        (["a", 1], "got int"),
        (["a", ["b"]], "got list"),
        (["a", "a"], "twice"),
        (coroutine_key, "coroutine"),
    ],
)
def test_a_lock_key_that_cannot_be_is_refused_with_expected_and_got(key: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"task {TASK}: .*expected .* got ") as caught:
        naming(key)
    assert told in str(caught.value)


@pytest.mark.parametrize("key", ["account_id", ["account_id"], "full"])
def test_the_bare_name_of_an_argument_is_refused_with_what_to_write(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="one lock for everybody: write "):
        naming(key)


def test_the_hint_for_a_bare_name_is_ready_to_copy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        naming("tenant_id", lambda tenant_id: None)
    assert str(caught.value).endswith('write ("tenant_id",) or "tenant:{tenant_id}"')


@pytest.mark.parametrize("key", ["x:{rest}", "x:{extra}"])
def test_a_template_cannot_name_what_holds_any_number_of_arguments(key: str) -> None:
    with pytest.raises(ConfigurationError, match="any number of them"):
        naming(key, variadic)


def test_a_task_without_arguments_has_one_name() -> None:
    assert naming(None, lambda: None).names((), {}) == naming(None, lambda: None).names([], {})
    with pytest.raises(ConfigurationError, match=r"arguments \(none\)"):
        naming(("a",), lambda: None)
