from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_redlock.core.options import (
    OPTIONS,
    SETTINGS,
    LockOptions,
    check_attributes,
    check_settings,
    read_setting,
    resolve,
)
from celery_redlock.exceptions import ConfigurationError

INF, NAN = float("inf"), float("nan")


def policy(conflict: Any) -> str:
    return "wait"


GOOD: Dict[str, Any] = {
    "lock_key": [None, (), ("a",), "a:{a}", ["a:{a}"], policy, staticmethod(policy)],
    "lock_limit": [1, 5],
    "lock_mode": ["exclusive", "shared"],
    "lock_ttl": [1, 30, 86400, 1.5, timedelta(seconds=1), timedelta(days=1), None],
    "lock_max_hold": [0.1, 3600, timedelta(hours=1), None],
    "lock_on_conflict": ["wait", "retry", "skip", "fail", policy, staticmethod(policy), None],
    "lock_wait_timeout": [0, 1, 600.5, timedelta(minutes=1), None],
    "lock_max_waiting": [1, 100, None],
    "lock_overflow": ["skip", "drop_oldest", None],
    "lock_on_retry": ["release", "keep", None],
    "lock_on_lost": ["cancel", "cancel_unsure", "warn", None],
    "lock_on_outage": ["retry", "fail", "run", None],
}

_NO_DURATIONS = ["30", True, NAN, INF, -INF, -1, b"1", [1], 10**400, 1e300, timedelta(seconds=-1)]

BAD: Dict[str, Any] = {
    "lock_key": [7, {"a"}, {"a": 1}, b"a", True],
    "lock_limit": [0, -1, 1.0, True, "1", None],
    "lock_mode": ["Shared", "", None, True, ["shared"], policy],
    "lock_ttl": [*_NO_DURATIONS, 0, 0.99, 86401, timedelta(days=2)],
    "lock_max_hold": [*_NO_DURATIONS, 0],
    "lock_on_conflict": ["Wait", "", "drop", 1, ["wait"]],
    "lock_wait_timeout": _NO_DURATIONS,
    "lock_max_waiting": [0, -1, 1.0, True, "1", INF],
    "lock_overflow": ["drop", "", policy, 1],
    "lock_on_retry": ["Keep", "", True, policy],
    "lock_on_lost": ["ignore", "", policy, True],
    "lock_on_outage": ["wait", "", policy, False],
}


def pairs(table: Dict[str, Any]) -> Any:
    return [(name, value) for name, row in table.items() for value in row]


def test_the_tables_name_every_option() -> None:
    assert set(GOOD) == set(BAD) == set(OPTIONS)
    assert [f"lock_{field.name}" for field in fields(LockOptions)] == list(OPTIONS)


@pytest.mark.parametrize(("name", "value"), pairs(GOOD))
def test_a_fit_value_is_taken(name: str, value: Any) -> None:
    check_attributes({name: value})
    resolve({name: value}, {}, {})


@pytest.mark.parametrize(("name", "value"), pairs(BAD), ids=lambda given: type(given).__name__)
def test_an_unfit_value_is_refused_with_task_expected_got_and_advice(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^task t: {name} must be .*, got .*; \w+"):
        check_attributes({name: value}, "t")


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, value in pairs(BAD) if OPTIONS[name].setting],
    ids=lambda given: type(given).__name__,
)
def test_what_is_unfit_for_a_task_is_unfit_for_its_setting_and_flag(name: str, value: Any) -> None:
    setting = OPTIONS[name].setting
    assert setting is not None
    with pytest.raises(ConfigurationError, match=f"^setting {setting} must be "):
        check_settings({setting: value})
    with pytest.raises(ConfigurationError, match=r"^worker flag --redlock-"):
        resolve({}, {setting: value}, {})


def test_the_defaults_are_the_documented_ones() -> None:
    assert resolve({}, {}, {}) == LockOptions(
        key=None,
        limit=1,
        mode="exclusive",
        ttl=30.0,
        max_hold=None,
        on_conflict="wait",
        wait_timeout=None,
        max_waiting=None,
        overflow="skip",
        on_retry="release",
        on_lost="cancel",
        on_outage="retry",
    )


@given(*[st.none() | st.integers(1, 86400)] * 3)
def test_the_task_speaks_before_the_flag_the_flag_before_the_setting(
    attribute: Any, flag: Any, setting: Any
) -> None:
    options = resolve(
        {"lock_ttl": attribute}, {"redlock_ttl": flag}, {"redlock_ttl": setting, "timezone": "UTC"}
    )
    said = [value for value in (attribute, flag, setting, 30) if value is not None]
    assert options.ttl == said[0]


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3000)))
def test_durations_become_seconds(length: timedelta) -> None:
    seconds = length.total_seconds()
    assert resolve({"lock_wait_timeout": length}, {}, {}).wait_timeout == seconds
    assert resolve({}, {}, {"redlock_wait_timeout": seconds}).wait_timeout == seconds


def test_nobody_may_wait_is_said_with_a_policy_and_the_error_tells_so() -> None:
    with pytest.raises(ConfigurationError, match='for nobody to wait: on_conflict "skip"'):
        check_attributes({"lock_max_waiting": 0})


def test_shared_with_a_limit_is_refused() -> None:
    both = {"lock_mode": "shared", "lock_limit": 2}
    with pytest.raises(ConfigurationError, match="task t: lock_limit must be 1 with lock_mode"):
        check_attributes(both, "t")
    with pytest.raises(ConfigurationError, match="task t: lock_limit must be 1 with lock_mode"):
        resolve(both, {}, {}, "t")
    check_attributes({"lock_mode": "shared", "lock_limit": 1})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lock_tll", "did you mean lock_ttl?"),
        ("lock_timeout", "did you mean lock_wait_timeout?"),
        ("lock_on_conflicts", "did you mean lock_on_conflict?"),
        ("lock_zzz", "there are: lock_key, lock_limit, "),
    ],
)
def test_an_option_that_does_not_exist_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^task t: {name} must be ") as caught:
        check_attributes({name: 1}, "t")
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["lock", "lock_resource", "lock_state"])
def test_what_a_locked_task_offers_cannot_be_replaced(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must stay"):
        check_attributes({name: policy})


@pytest.mark.parametrize("name", ["unique", "unique_key", "unique_on_conflict", "unique_ttl"])
def test_uniqueness_is_refused_as_long_as_there_is_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not available in this version"):
        check_attributes({name: "until_start"})
    check_attributes({name: None})


def test_other_attributes_of_a_task_are_none_of_our_business() -> None:
    check_attributes({"max_retries": -1, "locker": object(), "rate_limit": None})


GOOD_SETTINGS: Dict[str, Any] = {
    "redlock_url": ["redis://h/2", ["redis://a", "redis://b", "redis://c"], ("a", "b", "c")],
    "redlock_options": [{}, {"socket_timeout": 5}],
    "redlock_prefix": ["redlock:shop:", "x", "käse:"],
    "redlock_enabled": [True, False],
    "redlock_eager": [True, False],
    "redlock_max_parked": [1, 100],
    "redlock_max_park": [1, 0.5, timedelta(minutes=10)],
    "redlock_nested_wait_timeout": [0, 60, timedelta(minutes=1)],
    "redlock_fence_ttl": [1, 86400, timedelta(days=1)],
    "redlock_restart_grace": [0, 2, timedelta(seconds=30)],
    "redlock_allow_release": [True, False],
}

BAD_SETTINGS: Dict[str, Any] = {
    "redlock_url": ["", " ", 7, b"redis://h", [], ["a"], list("ab"), list("abcd"), list("aab")],
    "redlock_options": [[], "a=1", {1: 2}, 7],
    "redlock_prefix": ["", "a b", "a{b}", "a}", "a\n", "\x00", "\u2028", "\ud800", 7, b"a"],
    "redlock_enabled": ["true", 1, 0, "no"],
    "redlock_eager": ["false", 1],
    "redlock_max_parked": [0, -1, 1.5, True, "10"],
    "redlock_max_park": [*_NO_DURATIONS, 0],
    "redlock_nested_wait_timeout": _NO_DURATIONS,
    "redlock_fence_ttl": [*_NO_DURATIONS, 0],
    "redlock_restart_grace": _NO_DURATIONS,
    "redlock_allow_release": ["yes", 1],
}


def test_the_tables_name_every_setting() -> None:
    own = set(SETTINGS) - {option.setting for option in OPTIONS.values()}
    assert set(GOOD_SETTINGS) == set(BAD_SETTINGS) == own


@pytest.mark.parametrize(("name", "value"), pairs(GOOD_SETTINGS))
def test_a_fit_setting_is_taken_and_none_means_the_default(name: str, value: Any) -> None:
    check_settings({name: value})
    check_settings({name: None})
    assert read_setting({name: None}, name) == read_setting({}, name) == SETTINGS[name].default


@pytest.mark.parametrize(
    ("name", "value"), pairs(BAD_SETTINGS), ids=lambda given: type(given).__name__
)
def test_an_unfit_setting_is_refused_with_expected_got_and_advice(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^setting {name} must be .*, got .*; \w+"):
        check_settings({name: value})


def test_settings_give_defaults_for_these_options_and_no_others() -> None:
    with_setting = {option.setting for option in OPTIONS.values()} - {None}
    assert with_setting == {
        "redlock_ttl",
        "redlock_max_hold",
        "redlock_on_conflict",
        "redlock_wait_timeout",
        "redlock_max_waiting",
        "redlock_overflow",
        "redlock_on_retry",
        "redlock_on_lost",
        "redlock_on_outage",
    }


def test_a_setting_is_read_in_its_normal_form() -> None:
    assert read_setting({"redlock_max_park": timedelta(minutes=1)}, "redlock_max_park") == 60.0


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("redlock_urls", "did you mean redlock_url?"),
        ("redlock_wait_timout", "did you mean redlock_wait_timeout?"),
        ("redlock_limit", "lock_limit has no setting: write it on the task"),
        ("redlock_qqqqqqqqqq", "there are: redlock_allow_release, "),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^setting {name} must be ") as caught:
        check_settings({name: 1})
    assert hint in str(caught.value)


def test_other_settings_are_none_of_our_business() -> None:
    check_settings({"broker_url": "redis://h", "task_annotations": None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redlock_url", ["redis://:hunter2@h"]),
        ("redlock_url", {"password": "hunter2"}),
        ("redlock_options", [("password", "hunter2")]),
        ("redlock_passwort", "hunter2"),
    ],
)
def test_an_error_about_a_setting_never_shows_a_password(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_settings({name: value})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
