"""The app's settings, read when they are first needed: under their own names or a namespace's.

Which server: ``redlock_url``, else the broker's own write URL, else the result backend's, where
that is Redis. Passwords are never shown: Celery masks what it shows of these settings.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import celery.app.utils

from celery_redlock.core.options import check_settings, read_setting
from celery_redlock.core.template import escape_name
from celery_redlock.exceptions import ConfigurationError

#: The worker's flags and its app's name, as JSON: a child finds them here whether it was forked or
#: spawned.
FLAGS_VARIABLE = "CELERY_REDLOCK_WORKER_FLAGS"

SCHEMA_VERSION = 1

_REDIS = ("redis://", "rediss://", "redis+socket://", "valkey://", "valkeys://", "unix://")

_SENTINEL = "sentinel://"

#: What of a transport's options finds its master.
_OF_SENTINEL = ("master_name", "min_other_sentinels", "sentinel_kwargs")


@dataclass(frozen=True)
class Settings:
    """Everything said in the app's configuration, checked. Durations in seconds.

    ``given`` are the settings and ``flags`` the worker's flags that give task options a default,
    by setting name.
    """

    given: Mapping[str, Any]
    flags: Mapping[str, Any]
    prefix: str
    enabled: bool
    eager: bool
    nested_wait_timeout: float
    fence_ttl: float
    restart_grace: float
    allow_release: bool
    #: Over several independent servers.
    is_redlock: bool
    max_parked: int
    max_park: Optional[float]

    def __repr__(self) -> str:
        return f"<Settings {self.prefix}>"


def read(app: Any) -> Settings:
    """The app's settings; ConfigurationError for an unknown one or a bad value."""
    given = configured(app)
    check_settings(given)
    flags = worker_flags(app)

    def value(name: str) -> Any:
        return read_setting(given, f"redlock_{name}")

    return Settings(
        given=given,
        flags=flags,
        prefix=f"{value('prefix') or _own_prefix(app)}{SCHEMA_VERSION}:",
        enabled=value("enabled") and not flags.get("redlock_disable"),
        eager=value("eager"),
        nested_wait_timeout=value("nested_wait_timeout"),
        fence_ttl=value("fence_ttl"),
        restart_grace=value("restart_grace"),
        allow_release=value("allow_release"),
        is_redlock=isinstance(_given_url(flags, given), list),
        max_parked=flags.get("redlock_max_parked", value("max_parked")),
        max_park=value("max_park"),
    )


def configured(app: Any) -> Dict[str, Any]:
    """Every ``redlock_*`` setting that the app's configuration has, without its namespace."""
    conf = app.conf
    conf.finalize()  # it does not know its namespace before
    prefix = (conf.prefix or "").lower()
    found = {}
    for key in conf:
        name = key.lower()
        if prefix and name.startswith(prefix):
            name = name[len(prefix) :]
        elif prefix and name != key:
            continue  # in a file of many packages' settings: what is not in our namespace
        if name.startswith("redlock_"):
            found[name] = conf[key]
    return found


def server(app: Any, settings: Settings) -> Tuple[Union[str, List[str]], Mapping[str, Any]]:
    """The lock server's URL, or a list of several for Redlock, and the options of connections.

    ConfigurationError if there is none.
    """
    options = settings.given.get("redlock_options") or {}
    url = _given_url(settings.flags, settings.given)
    if url:
        return url, options
    return _inherited(app, options)


def _given_url(flags: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    return flags.get("redlock_url") or read_setting(given, "redlock_url")


def _own_prefix(app: Any) -> str:
    """After the app's name, so that two projects on one server do not meet."""
    return f"redlock:{escape_name(app.main or 'celery')}:"


def _inherited(app: Any, options: Mapping[str, Any]) -> Tuple[str, Mapping[str, Any]]:
    conf = app.conf
    # The properties, not the keys: they know what the command line and the environment say.
    places = [
        (conf.broker_write_url, "broker_use_ssl", "broker_transport_options"),
        (conf.result_backend, "redis_backend_use_ssl", "result_backend_transport_options"),
    ]
    for urls, tls_setting, transport_setting in places:
        tls = conf.get(tls_setting)
        theirs = dict(tls) if isinstance(tls, Mapping) else {}
        url = _first(urls)
        if url.startswith(_REDIS):
            return _with_tls(url, tls), {**theirs, **options}
        if url.startswith(_SENTINEL):
            transport = conf.get(transport_setting) or {}
            theirs.update((name, transport[name]) for name in _OF_SENTINEL if name in transport)
            return url, {**({"ssl": True} if tls else {}), **theirs, **options}
    raise ConfigurationError(
        "redlock_url: expected the URL of a Redis or Valkey server, got none, and neither the "
        "broker nor the result backend is one; set it, for example to redis://localhost:6379/2"
    )


def _first(urls: Any) -> str:
    """A broker's alternates are for its own failover: only the first one counts.

    Several Sentinels are no alternates: they watch the same server.
    """
    if isinstance(urls, (list, tuple)):
        urls = ";".join(urls)
    if not isinstance(urls, str):
        return ""
    first, *others = urls.split(";")
    if not first.startswith(_SENTINEL):
        return first
    return ";".join([first, *(other for other in others if other.startswith(_SENTINEL))])


def _with_tls(url: str, tls: Any) -> str:
    """Celery speaks TLS where it is told to, whatever the URL says."""
    for plain in ("redis", "valkey"):
        if tls and url.startswith(f"{plain}://"):
            return f"{plain}s{url[len(plain) :]}"
    return url


def tell_flags(app: Any, flags: Mapping[str, Any]) -> None:
    """Let this process and those that it starts know the flags of the app's worker."""
    os.environ.pop(FLAGS_VARIABLE, None)
    if flags:
        os.environ[FLAGS_VARIABLE] = json.dumps({"app": app.main, "flags": flags})


@contextmanager
def with_flags(app: Any, flags: Mapping[str, Any]) -> Iterator[None]:
    """Go by these flags as well, for a while and in this process."""
    before = os.environ.get(FLAGS_VARIABLE)
    tell_flags(app, {**worker_flags(app), **flags})
    try:
        yield
    finally:
        os.environ.pop(FLAGS_VARIABLE, None)
        if before is not None:
            os.environ[FLAGS_VARIABLE] = before


def worker_flags(app: Any) -> Mapping[str, Any]:
    """The flags that this process was started with; none for another app in the process."""
    text = os.environ.get(FLAGS_VARIABLE)
    told: Dict[str, Any] = json.loads(text) if text else {}
    # By name: a spawned child has another object for the same app.
    return told["flags"] if told and told["app"] == app.main else {}


def mask_in_celery() -> None:
    """Have ``celery inspect conf``, ``celery report`` and their kin mask our URLs and options."""
    known = celery.app.utils.HIDDEN_SETTINGS
    if "REDLOCK_URL" not in known.pattern:
        celery.app.utils.HIDDEN_SETTINGS = re.compile(
            f"{known.pattern}|REDLOCK_URL|REDLOCK_OPTIONS", known.flags
        )


# At import, not when a task is bound: a client may look at its configuration before that.
mask_in_celery()
