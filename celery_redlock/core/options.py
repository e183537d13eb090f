"""Every option and setting as data: name, default, what it may be.

An option is a task attribute; most have a setting (and some a worker flag) that speaks for the
tasks that do not say. There, None on the task means what the setting says.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Union

from celery_redlock.core.kinds import (
    CLIENT_OPTIONS,
    KEY,
    PREFIX,
    SWITCH,
    URL,
    Kind,
    choice,
    duration,
    whole,
)
from celery_redlock.core.kinds import seconds as seconds
from celery_redlock.core.ports import Terms
from celery_redlock.core.timing import to_ms
from celery_redlock.exceptions import ConfigurationError

OnConflict = Union[str, Callable[..., str]]


@dataclass(frozen=True)
class LockOptions:
    """What one task asks for, settled; durations in seconds, None where there is no bound."""

    key: Any = None
    limit: int = 1
    mode: str = "exclusive"
    ttl: float = 30.0
    max_hold: Optional[float] = None
    on_conflict: OnConflict = "wait"
    wait_timeout: Optional[float] = None
    max_waiting: Optional[int] = None
    overflow: str = "skip"
    on_retry: str = "release"
    on_lost: str = "cancel"
    on_outage: str = "retry"

    @cached_property
    def terms(self) -> Terms:
        return Terms(mode=self.mode, limit=self.limit, lease_ms=to_ms(self.ttl))


class Option(NamedTuple):
    """A task attribute ``lock_<name>`` and the setting ``redlock_<name>``, if it has one."""

    name: str
    kind: Kind
    has_setting: bool = True

    @property
    def attribute(self) -> str:
        return f"lock_{self.name}"

    @property
    def setting(self) -> Optional[str]:
        return f"redlock_{self.name}" if self.has_setting else None

    @property
    def default(self) -> Any:
        return getattr(LockOptions, self.name)


class Setting(NamedTuple):
    default: Any
    kind: Kind


_NOBODY_WAITS = 'write None for no bound; for nobody to wait: on_conflict "skip" or "fail"'

_OPTIONS = (
    Option("key", KEY, has_setting=False),
    Option("limit", whole("write how many may hold it at once"), has_setting=False),
    Option("mode", choice("exclusive", "shared"), has_setting=False),
    Option("ttl", duration(1, 86400)),
    Option("max_hold", duration(above=True)),
    Option("on_conflict", choice("wait", "retry", "skip", "fail", or_callable=True)),
    Option("wait_timeout", duration()),
    Option("max_waiting", whole(_NOBODY_WAITS)),
    Option("overflow", choice("skip", "drop_oldest")),
    Option("on_retry", choice("release", "keep")),
    Option("on_lost", choice("cancel", "cancel_unsure", "warn")),
    Option("on_outage", choice("retry", "fail", "run")),
)

#: Every option, by the name of its task attribute.
OPTIONS: Dict[str, Option] = {option.attribute: option for option in _OPTIONS}

SETTINGS: Dict[str, Setting] = {
    "redlock_url": Setting(None, URL),
    "redlock_options": Setting({}, CLIENT_OPTIONS),
    "redlock_prefix": Setting(None, PREFIX),
    "redlock_enabled": Setting(True, SWITCH),
    "redlock_eager": Setting(False, SWITCH),
    "redlock_max_parked": Setting(100, whole("write how many messages a worker may keep")),
    "redlock_max_park": Setting(None, duration(above=True)),
    "redlock_nested_wait_timeout": Setting(60.0, duration()),
    "redlock_fence_ttl": Setting(86400.0, duration(above=True)),
    "redlock_restart_grace": Setting(2.0, duration()),
    "redlock_allow_release": Setting(False, SWITCH),
    **{
        option.setting: Setting(option.default, option.kind)
        for option in _OPTIONS
        if option.setting is not None
    },
}

#: Part of a LockedTask's interface: giving one as an option would replace it.
RESERVED = ("lock", "lock_resource", "lock_state")


def check_attributes(given: Mapping[str, Any], task: Optional[str] = None) -> None:
    """Refuses options with unfit values and ``lock_*``/``unique*`` names that are no option.

    ``given`` is what the task was given, without what a user's own base class defines; other names
    are none of our business.
    """
    for name, value in given.items():
        where = _where(task, name)
        if name in OPTIONS:
            _read_option(OPTIONS[name], value, where)
        elif name in RESERVED:
            raise ConfigurationError(
                f"{where} must stay what LockedTask makes it, got a {type(value).__name__}; "
                f"give yours another name"
            )
        elif name.startswith("lock_"):
            raise ConfigurationError(
                f"{where} must be an option of LockedTask, got a name that is none; "
                f"{_did_you_mean(name, OPTIONS)}"
            )
        elif name.startswith("unique") and value is not None:
            raise ConfigurationError(
                f"{where} must be left out, got a {type(value).__name__}: uniqueness at publish "
                f"is not available in this version; take it out"
            )
    _check_together(given.get("lock_mode") or LockOptions.mode, given.get("lock_limit") or 1, task)


def check_settings(conf: Mapping[str, Any]) -> None:
    """Refuses unknown ``redlock_*`` settings and unfit values; None leaves the default."""
    for name, value in conf.items():
        if name in SETTINGS:
            read_setting(conf, name)
        elif name.startswith("redlock_"):
            raise ConfigurationError(
                f"setting {name} must be one that exists, got "
                f"{'None' if value is None else 'a value'}; {_other_setting(name)}"
            )


def read_setting(conf: Mapping[str, Any], name: str) -> Any:
    """The setting's value in its normal form, or its default where it is absent or None."""
    setting = SETTINGS[name]
    value = conf.get(name)
    return setting.default if value is None else setting.kind.check(f"setting {name}", value)


def resolve(
    attributes: Mapping[str, Any],
    flags: Mapping[str, Any],
    settings: Mapping[str, Any],
    task: Optional[str] = None,
) -> LockOptions:
    """What holds for one task: its attribute, else the worker flag, the setting, the default.

    ``attributes`` by attribute name, ``flags`` and ``settings`` by the setting's name.
    """
    settled = {
        option.name: _resolve_option(option, attributes, flags, settings, task)
        for option in OPTIONS.values()
    }
    _check_together(settled["mode"], settled["limit"], task)
    return LockOptions(**settled)


def _resolve_option(
    option: Option,
    attributes: Mapping[str, Any],
    flags: Mapping[str, Any],
    settings: Mapping[str, Any],
    task: Optional[str],
) -> Any:
    value = attributes.get(option.attribute)
    if value is not None:
        return _read_option(option, value, _where(task, option.attribute))
    if option.setting is None:
        return option.default
    flag = flags.get(option.setting)
    if flag is not None:
        return option.kind.check(f"worker flag --{option.setting.replace('_', '-')}", flag)
    return read_setting(settings, option.setting)


def _read_option(option: Option, value: Any, where: str) -> Any:
    if value is None and option.has_setting:
        return None
    return option.kind.check(where, value)


def _check_together(mode: str, limit: int, task: Optional[str]) -> None:
    if mode == "shared" and limit > 1:
        raise ConfigurationError(
            f'{_where(task, "lock_limit")} must be 1 with lock_mode="shared", got {limit}; any '
            f"number may share a lock: leave out lock_limit, or lock_mode to bound the number"
        )


def _where(task: Optional[str], name: str) -> str:
    return name if task is None else f"task {task}: {name}"


def _other_setting(name: str) -> str:
    attribute = name.replace("redlock_", "lock_", 1)
    if attribute in OPTIONS:
        return f"{attribute} has no setting: write it on the task"
    return _did_you_mean(name, SETTINGS)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Compares what follows the prefix: it is common to all, so all would look near."""
    by_ending = {_ending(other): other for other in known}
    close = get_close_matches(_ending(name), by_ending, n=1)
    if close:
        return f"did you mean {by_ending[close[0]]}?"
    return f"there are: {', '.join(sorted(by_ending.values()))}"


def _ending(name: str) -> str:
    return name.partition("_")[2]
