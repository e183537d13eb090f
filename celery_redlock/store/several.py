"""From a list of URLs to a store over independent servers."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from redis.connection import AbstractConnection, Connection
from redis.exceptions import RedisError

from celery_redlock.core.ports import Store
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.store.ballots import Ballots
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.mending import Mender
from celery_redlock.store.native import native
from celery_redlock.store.quorum import QuorumServers
from celery_redlock.store.urls import connection_arguments, is_embedded, is_of_several, safe
from celery_redlock.store.voter import Voter

#: Seconds after which a server without an answer hangs, if ``socket_timeout`` does not say.
PATIENCE = 0.5


def open_several(
    urls: Sequence[str],
    *,
    prefix: str,
    options: Optional[Mapping[str, Any]] = None,
    fence_ttl: float = 86400.0,
    longest_lease: float = 0.0,
    unpatched: bool = False,
) -> Store:
    """The store over these servers; connects at the first use. Otherwise as ``open_store``.

    ``longest_lease``: seconds for which some process may lock something; for as long a server that
    has lost its data does not vote.
    """
    check_several(urls, options)
    frames = Ballots(prefix, fence_ttl)
    mender = Mender()
    voters = []
    for number, url in enumerate(urls):
        arguments = _arguments(url, options or {})
        patience = float(arguments["socket_timeout"])
        makers = _maker(arguments, unpatched), _maker(arguments, True)
        voters.append(Voter(number, safe(url), *makers, patience, mender.wake))
    return QuorumServers(
        Electorate(voters, mender, frames, is_native=unpatched, longest_lease=longest_lease)
    )


def check_several(urls: Sequence[str], options: Optional[Mapping[str, Any]] = None) -> None:
    """Raise ConfigurationError for a list that cannot be used; connects to nothing."""
    places: Dict[Tuple[str, str], str] = {}
    for url in urls:
        if is_embedded(url):
            raise ConfigurationError(
                f"redlock_url: expected a list to name independent servers, got {safe(url)}, which "
                f"is for development on one machine; name it alone"
            )
        if is_of_several(url):
            raise ConfigurationError(
                f"redlock_url: expected a list to name independent servers, got {safe(url)}, which "
                f"leads to several; write it alone, as one text: all Sentinels, or nodes of the "
                f"cluster, in one URL"
            )
        arguments = _arguments(url, options or {})
        _try(arguments)
        known = places.setdefault(_place(arguments), url)
        if known is not url:
            raise ConfigurationError(
                f"redlock_url: expected a list of different servers, got {safe(known)} and "
                f"{safe(url)}; two databases of one server are lost together"
            )


def _arguments(url: str, options: Mapping[str, Any]) -> Dict[str, Any]:
    arguments = connection_arguments(url, options)
    for name in ("socket_timeout", "socket_connect_timeout"):
        if name in arguments and name not in options and f"{name}=" not in url:
            arguments[name] = PATIENCE
    if arguments.get("socket_timeout") is None:
        arguments["socket_timeout"] = PATIENCE
    return arguments


def _place(arguments: Mapping[str, Any]) -> Tuple[str, str]:
    if "path" in arguments:
        return "unix", str(arguments["path"])
    return str(arguments.get("host", "localhost")), str(arguments.get("port", 6379))


def _maker(arguments: Mapping[str, Any], unpatched: bool) -> Callable[[], AbstractConnection]:
    given = dict(arguments)
    connection_class: Any = given.pop("connection_class", Connection)
    if unpatched:
        connection_class = native(connection_class)

    def make() -> AbstractConnection:
        connection: AbstractConnection = connection_class(**given)
        return connection

    return make


def _try(arguments: Mapping[str, Any]) -> None:
    try:
        _maker(arguments, False)()
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(
            f"redlock_options: expected what redis-py's connection for this kind of URL takes, as "
            f"options or in the URL's query, got {error}; correct it"
        ) from error
