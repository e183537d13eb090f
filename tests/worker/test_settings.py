"""The app's settings: where they may stand, what they are by default, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
from celery import Celery

from celery_redlock import ConfigurationError, LockedTask
from celery_redlock.core.options import SETTINGS
from celery_redlock.integration import settings as conf
from celery_redlock.integration.runtime import runtime_of
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app

#: Nobody listens on port 1: who asks for a lock is told which server did not answer.
NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def declare(app: Celery, **options: Any) -> Any:
    @app.task(bind=True, name="shop.sync", **{"base": LockedTask, **options})
    def sync(self: Any, account_id: int = 1, within: Any = None) -> Any:
        return within() if within else self.lock.is_held

    return app.tasks["shop.sync"] if app.finalized else sync


def of_task(name: str) -> Callable[[Any], Any]:
    return lambda task: getattr(task.redlock_options(), name)


def of_app(name: str) -> Callable[[Any], Any]:
    return lambda task: getattr(runtime_of(task.app).settings, name)


def of_server(place: int) -> Callable[[Any], Any]:
    return lambda task: conf.server(task.app, runtime_of(task.app).settings)[place]


def given(name: str) -> Callable[[Any], Any]:
    return lambda task: runtime_of(task.app).settings.given[name]


def policy(conflict: Any) -> str:
    return "fail"


#: By setting: a value, what it means, and where that is seen.
EVERY: Dict[str, Tuple[Any, Any, Callable[[Any], Any]]] = {
    "redlock_url": ("redis://locks/7", "redis://locks/7", of_server(0)),
    "redlock_options": ({"db": 9}, {"db": 9}, given("redlock_options")),
    "redlock_prefix": ("locks:", "locks:1:", of_app("prefix")),
    "redlock_enabled": (False, False, of_app("enabled")),
    "redlock_eager": (True, True, of_app("eager")),
    "redlock_max_parked": (5, 5, given("redlock_max_parked")),
    "redlock_max_park": (60, 60, given("redlock_max_park")),
    "redlock_nested_wait_timeout": (timedelta(minutes=1), 60.0, of_app("nested_wait_timeout")),
    "redlock_fence_ttl": (timedelta(days=2), 172800.0, of_app("fence_ttl")),
    "redlock_restart_grace": (0.5, 0.5, of_app("restart_grace")),
    "redlock_allow_release": (True, True, of_app("allow_release")),
    "redlock_ttl": (timedelta(minutes=2), 120.0, of_task("ttl")),
    "redlock_max_hold": (timedelta(hours=1), 3600.0, of_task("max_hold")),
    "redlock_on_conflict": (policy, policy, of_task("on_conflict")),
    "redlock_wait_timeout": (timedelta(seconds=7), 7.0, of_task("wait_timeout")),
    "redlock_max_waiting": (3, 3, of_task("max_waiting")),
    "redlock_overflow": ("drop_oldest", "drop_oldest", of_task("overflow")),
    "redlock_on_retry": ("keep", "keep", of_task("on_retry")),
    "redlock_on_lost": ("warn", "warn", of_task("on_lost")),
    "redlock_on_outage": ("fail", "fail", of_task("on_outage")),
}


def plain_before(name: str, value: Any) -> Any:
    return declare(local_app(**{name: value}))


def plain_after(name: str, value: Any) -> Any:
    app = local_app()
    task = declare(app)
    app.finalize()
    setattr(app.conf, name, value)
    return task


def django_settings(name: str, value: Any) -> Any:
    """As django.conf.settings: one object for every package's settings."""
    others = {"CELERY_BROKER_URL": "memory://", "DEBUG": True, "REDLOCK_OF_ANOTHER_PACKAGE": 1}
    return SimpleNamespace(**others, **{f"CELERY_{name.upper()}": value})


def namespaced_before(name: str, value: Any) -> Any:
    app = Celery("shop", set_as_current=False)
    app.config_from_object(django_settings(name, value), namespace="CELERY")
    return declare(app)


def namespaced_after(name: str, value: Any) -> Any:
    app = Celery("shop", set_as_current=False)
    task = declare(app)
    app.config_from_object(django_settings(name, value), namespace="CELERY")
    return task


WAYS = [plain_before, plain_after, namespaced_before, namespaced_after]


def test_every_setting_is_covered_here() -> None:
    assert set(EVERY) == set(SETTINGS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EVERY)
def test_a_setting_counts_wherever_it_stands(way: Callable[..., Any], name: str) -> None:
    value, expected, seen = EVERY[name]
    task = way(name, value)
    assert seen(task) == expected


@pytest.mark.parametrize("way", WAYS)
def test_an_unknown_setting_is_refused_at_the_first_use(way: Callable[..., Any]) -> None:
    task = way("redlock_ttll", 5)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"redlock_ttll must be .*; did you mean"):
            task()


@pytest.mark.parametrize("way", WAYS)
def test_an_unfit_setting_is_refused_at_the_first_use(way: Callable[..., Any]) -> None:
    expected = "setting redlock_ttl must be a duration from 1 to 86400 seconds, got '30'; write a"
    with pytest.raises(ConfigurationError, match=expected):
        way("redlock_ttl", "30")()


def test_a_setting_of_one_task_only_is_refused_with_advice() -> None:
    with pytest.raises(ConfigurationError, match="lock_key has no setting: write it on the task"):
        plain_before("redlock_key", "a")()


def test_another_packages_settings_are_none_of_ours() -> None:
    app = Celery("shop", set_as_current=False)
    app.config_from_object(django_settings("redlock_ttl", 5), namespace="CELERY")
    assert conf.configured(app) == {"redlock_ttl": 5}
    app.conf.redlock_eager = True
    assert conf.configured(app) == {"redlock_ttl": 5, "redlock_eager": True}


def test_a_task_attribute_wins_over_the_setting() -> None:
    app = local_app(redlock_ttl=50, redlock_on_lost="warn")
    options = declare(app, lock_ttl=60).redlock_options()
    assert (options.ttl, options.on_lost) == (60, "warn")


def test_a_disabled_app_locks_nothing_and_needs_no_server() -> None:
    app = local_app(redlock_enabled=False)
    assert declare(app)() is False
    runtime_of(app).check()


@pytest.mark.parametrize("eager", [True, False])
def test_eager_mode_locks_where_it_is_told_to(eager: bool, lock_server: LockServer) -> None:
    app = local_app(redlock_eager=eager, redlock_url=lock_server.url, task_always_eager=True)
    assert declare(app).delay().get() is eager
