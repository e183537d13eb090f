"""What is refused when a task is bound, whoever gave it, and what is bound how."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
from celery import Celery

from celery_redlock import ConfigurationError, LockedTask
from tests.worker.local import apps_apart, local_app

#: One unfit value for each option, and what its error expects.
BAD: Dict[str, Tuple[Any, str]] = {
    "lock_key": (7, "a tuple of argument names, a template"),
    "lock_limit": (0, "a whole number of at least 1"),
    "lock_mode": ("Shared", '"exclusive", "shared"'),
    "lock_ttl": (0, "a duration from 1 to 86400 seconds"),
    "lock_max_hold": (0, "a duration of more than 0 seconds"),
    "lock_on_conflict": ("drop", '"wait", "retry", "skip", "fail" or a callable'),
    "lock_wait_timeout": (-1, "a duration of at least 0 seconds"),
    "lock_max_waiting": (0, "a whole number of at least 1"),
    "lock_overflow": ("drop", '"skip", "drop_oldest"'),
    "lock_on_retry": ("Keep", '"release", "keep"'),
    "lock_on_lost": ("ignore", '"cancel", "cancel_unsure", "warn"'),
    "lock_on_outage": ("wait", '"retry", "fail", "run"'),
}


def by_decorator(app: Celery, **options: Any) -> Any:
    @app.task(name="shop.sync", base=LockedTask, **options)
    def sync(account_id: int, full: bool = False) -> None: ...

    return sync


def by_class_attribute(app: Celery, **options: Any) -> Any:
    def run(self: Any, account_id: int, full: bool = False) -> None: ...

    body = {"name": "shop.sync", "run": run, **options}
    return app.register_task(type("Sync", (LockedTask,), body)())


def by_base_class(app: Celery, **options: Any) -> Any:
    base = type("Base", (LockedTask,), {"abstract": True, **options})

    @app.task(name="shop.sync", base=base)
    def sync(account_id: int, full: bool = False) -> None: ...

    return sync


def by_init(app: Celery, **options: Any) -> Any:
    class Sync(LockedTask):
        name = "shop.sync"

        def __init__(self) -> None:
            vars(self).update(options)

        def run(self, account_id: int, full: bool = False) -> None: ...

    return app.register_task(Sync())


def by_annotation(app: Celery, **options: Any) -> Any:
    app.conf.task_annotations = {"shop.sync": options}
    return by_decorator(app)


def by_annotation_of_all(app: Celery, **options: Any) -> Any:
    app.conf.task_annotations = {"*": options}
    return by_decorator(app)


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


WAYS = [
    by_decorator,
    by_class_attribute,
    by_base_class,
    by_init,
    by_annotation,
    by_annotation_of_all,
]
Give = Callable[..., Any]


def bound(app: Celery, give: Give, **options: Any) -> None:
    give(app, **options)
    app.finalize()  # what is declared by decorator is bound here


def refusal(give: Give, **options: Any) -> str:
    """The error's text, which says what was expected, what was got and what to do."""
    with apps_apart():
        app = local_app()
        with pytest.raises(ConfigurationError) as caught:
            bound(app, give, **options)
        assert "shop.sync" not in app.tasks
    text = str(caught.value)
    assert re.match(r"task shop\.sync: .*(must|expected).* got .*; \w+", text), text
    return text


def options_of(task: Any) -> Any:
    return task.redlock_options()


@pytest.mark.parametrize("give", WAYS)
@pytest.mark.parametrize("option", BAD)
def test_an_unfit_option_is_refused_when_the_task_is_bound(give: Give, option: str) -> None:
    value, expected = BAD[option]
    text = refusal(give, **{option: value})
    assert f"{option} " in text
    assert expected in text
    assert f"got {value!r};" in text


@pytest.mark.parametrize("give", [by_decorator, by_class_attribute, by_init, by_annotation])
def test_an_unknown_option_is_refused_with_the_one_that_was_meant(give: Give) -> None:
    assert "lock_tll" in refusal(give, lock_tll=5)
    assert refusal(give, lock_tll=5).endswith("did you mean lock_ttl?")
    assert "; there are: lock_key, lock_limit, " in refusal(give, lock_zzz=5)


@pytest.mark.parametrize("give", WAYS)
@pytest.mark.parametrize("name", ["lock", "lock_resource", "lock_state"])
def test_the_interface_of_a_locked_task_cannot_be_replaced(give: Give, name: str) -> None:
    text = refusal(give, **{name: None})
    assert f"{name} must stay what LockedTask makes it" in text
    assert "give yours another name" in text


@pytest.mark.parametrize("name", ["unique", "unique_key", "unique_ttl", "uniqueness"])
def test_uniqueness_is_refused_for_now(name: str) -> None:
    assert "not available in this version" in refusal(by_decorator, **{name: "until_start"})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("account:{acount_id}", "expected names of the task's arguments (account_id, full), got"),
        (("acount_id",), "expected names of the task's arguments (account_id, full), got"),
        (["a:{account_id}", "b:{other}"], "'other'"),
        ("account:{account_id.x}", "plain name of an argument, got '{account_id.x}'"),
    ],
)
def test_a_key_that_names_no_argument_is_refused(key: Any, text: str) -> None:
    assert text in refusal(by_decorator, lock_key=key)


def test_a_template_that_is_an_arguments_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="would be one lock for everybody") as caught:
        by_decorator(local_app(), lock_key="account_id").bind(local_app())
    assert 'write ("account_id",) or "account:{account_id}"' in str(caught.value)


def test_a_template_without_placeholder_is_one_lock_for_all() -> None:
    assert by_decorator(local_app(), lock_key="accounts").lock_resource(1) == "accounts"


def test_shared_mode_with_a_limit_is_refused() -> None:
    text = refusal(by_decorator, lock_mode="shared", lock_limit=2)
    assert "lock_limit must be 1" in text
    app = local_app()
    app.conf.task_annotations = {"shop.sync": {"lock_mode": "shared"}}
    with pytest.raises(ConfigurationError, match="lock_limit must be 1"):
        by_decorator(app, lock_limit=2).bind(app)


def test_a_task_that_was_refused_is_refused_at_every_use() -> None:
    app = local_app()
    task = by_decorator(app, lock_ttl=0)
    for use in (lambda: task.delay(1), lambda: task(1), lambda: task.apply(args=(1,))):
        with pytest.raises(ConfigurationError, match="lock_ttl"):
            use()


def test_annotations_change_options() -> None:
    app = local_app()
    app.conf.task_annotations = {"shop.sync": {"lock_ttl": timedelta(minutes=2), "lock_key": ()}}
    task = by_decorator(app, lock_ttl=10, lock_key="account:{account_id}")
    assert options_of(task).ttl == 120
    assert task.lock_resource(1) == "shop.sync()"


@pytest.mark.parametrize("give", WAYS)
def test_an_option_counts_whoever_gave_it(give: Give) -> None:
    task = give(local_app(), lock_ttl=timedelta(minutes=2), lock_key="account:{account_id}")
    assert options_of(task).ttl == 120
    assert task.lock_resource(7) == "account:7"


def test_a_users_own_base_class_may_define_names_like_options() -> None:
    class Coloured(LockedTask):
        abstract = True
        lock_colour = "red"
        unique_number = 7

        def lock_up(self) -> str:
            return f"{self.lock_colour} {self.unique_number}"

    app = local_app()

    @app.task(base=Coloured, lock_colour="blue")
    def paint() -> None: ...

    assert paint.lock_up() == "blue 7"


@pytest.mark.parametrize("option", ["lock_ttl", "lock_key", "lock_anything", "unique"])
def test_lock_options_are_refused_with_one_call(option: str) -> None:
    task = by_decorator(local_app())
    with pytest.raises(ConfigurationError, match=f"expected no .* got {option}; give it to"):
        task.apply_async((1,), **{option: 5})
    with pytest.raises(ConfigurationError):
        task.s(1).set(**{option: 5}).apply_async()


def test_a_call_that_asks_for_no_uniqueness_is_as_any_other() -> None:
    assert by_decorator(local_app()).apply_async((1,), unique=None).id
