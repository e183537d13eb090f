"""What redis-py's connections are made with, and what we want otherwise than it does."""

from __future__ import annotations

import inspect
import re
from ssl import CERT_NONE
from typing import Any, Dict, Mapping
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from celery_redlock.exceptions import ConfigurationError

#: Seconds. A child of a worker waits no longer than this for a server that does not answer.
TIMEOUTS = {"socket_connect_timeout": 1.0, "socket_timeout": 2.0}

#: Seconds. Much longer ones a socket does not take.
_LONGEST_TIMEOUT = 86400


def completed(scheme: str, given: Mapping[str, Any]) -> Dict[str, Any]:
    """With what we want otherwise than redis-py does.

    Raises ConfigurationError for what redis-py would take and no connection could be made with.
    """
    arguments = {**timeouts(scheme), **given}
    for name in TIMEOUTS:
        _check_timeout(name, arguments.get(name))
    _check_database(arguments.get("db"))
    if scheme == "rediss":
        # Not of itself in older redis-py: there any certificate of the authority would do.
        is_verified = arguments.get("ssl_cert_reqs", "required") not in ("none", None, CERT_NONE)
        arguments.setdefault("ssl_check_hostname", is_verified)
    return _without_resending(arguments)


def timeouts(scheme: str) -> Mapping[str, float]:
    """Older redis-py has for a unix socket one timeout, which counts for connecting too."""
    takes = inspect.signature(AbstractConnection.__init__).parameters
    if scheme == "unix" and "socket_connect_timeout" not in takes:
        return {"socket_timeout": TIMEOUTS["socket_timeout"]}
    return TIMEOUTS


def _without_resending(arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Everything that would send a request twice without our knowing is off."""
    arguments.update(
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        retry_on_error=[],
        health_check_interval=0,
        decode_responses=False,
    )
    if int(redis.__version__.split(".")[0]) >= 5:
        arguments.update(protocol=2)
    return arguments


def _check_timeout(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= _LONGEST_TIMEOUT):
        raise ConfigurationError(
            f"redlock_options: expected {name} to be a number of seconds above 0, at most "
            f"{_LONGEST_TIMEOUT}, or None, got {shown(value)}; write for instance 2.0"
        )


def _check_database(value: Any) -> None:
    if value is not None and not re.fullmatch("[0-9]+", str(value)):
        raise ConfigurationError(
            f"redlock_options: expected db to be the number of a database, got {shown(value)}; "
            f"write for instance 2"
        )


def shown(value: Any) -> str:
    """A value for people; a text may be a password that stands in the wrong place."""
    return str(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def plain(url: str, scheme: str) -> str:
    """The URL as redis-py writes it; raises ValueError for one that it would read as another.

    Kombu's virtual_host is redis-py's db, and its CERT_REQUIRED redis-py's required.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    virtual_host = query.pop("virtual_host", None)
    if virtual_host:
        query["db"] = [virtual_host[0].strip("/")]
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = [_requirement(query["ssl_cert_reqs"][0])]
    path = parts.path
    if scheme == "unix" and not path.startswith("/"):
        path = "/" + path
    if scheme != "unix" and not re.fullmatch("/?[0-9]*/?", path):
        raise ValueError("not the number of a database")
    if parts.fragment:
        raise ValueError("a fragment")
    asked = f"?{urlencode(query, doseq=True)}" if query else ""
    # Not urlunsplit: without a host it writes unix:/path.
    return f"{scheme}://{parts.netloc}{path}{asked}"


def _requirement(given: str) -> str:
    return given[len("CERT_") :].lower() if given.startswith("CERT_") else given
