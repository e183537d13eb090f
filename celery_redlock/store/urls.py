"""From a URL to a store. Passwords stay in what connects; names for people never have them.

redis://[[user]:password@]host[:port][/db]       rediss:// for TLS; valkey:// and valkeys:// too
redis+socket:///path/to.sock[?virtual_host=db]   unix:// and valkey+socket:// too
sentinel://…  redis+cluster://…                  several servers: see ``store.seeds``
embedded://[name]                                a private Valkey for development
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, Mapping, Optional

from redis.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import ConnectionError, RedisError

from celery_redlock.core.ports import Store
from celery_redlock.core.unpatched import original
from celery_redlock.exceptions import ConfigurationError, LockUnavailable
from celery_redlock.store import embedded
from celery_redlock.store.arguments import completed, plain, shown
from celery_redlock.store.cluster import Cluster
from celery_redlock.store.connections import Connections
from celery_redlock.store.native import native
from celery_redlock.store.seeds import Address, Seeds, read_seeds
from celery_redlock.store.sentinel import MakeAt, MasterConnections, Sentinels
from celery_redlock.store.single import SingleServer
from celery_redlock.store.slots import Slots

_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "valkey+socket": "unix",
    "sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "clusters",
    "embedded": "embedded",
}

#: The schemes that name several servers, and their ports unless said otherwise.
_OF_SEVERAL = {"sentinel": 26379, "redis+cluster": 6379, "rediss+cluster": 6379}

_ANOTHER = re.compile(r"[;,]\s*[a-z+]+://")

_QUERY_WITH_AT = re.compile(r"[?&]\w+=.*@", re.DOTALL)

Make = Callable[[], AbstractConnection]
Choice = Callable[[Any], Any]


def _as_it_is(connection_class: Any) -> Any:
    return connection_class


def open_store(
    url: str,
    *,
    prefix: str,
    options: Optional[Mapping[str, Any]] = None,
    fence_ttl: float = 86400.0,
    restart_grace: float = 2.0,
    unpatched: bool = False,
) -> Store:
    """The store at ``url``; connects at the first use. ``options`` go to redis-py's connection.

    ``unpatched``: for threads that no greenlet may hold up, see ``store.native``.

    Raises ConfigurationError for a URL or an option that cannot be used.
    """
    chosen = native if unpatched else _as_it_is
    if is_cluster(url):
        slots = _slots(url, options or {}, restart_grace, chosen)
        sleep = original("time", "sleep") if unpatched else time.sleep
        return Cluster(slots, prefix, fence_ttl, sleep)
    connections = _connections(url, options or {}, restart_grace, chosen)
    return SingleServer(connections, prefix, fence_ttl)


def check_server(url: str, options: Optional[Mapping[str, Any]] = None) -> None:
    """Raise ConfigurationError for a URL or an option that cannot be used; connects to nothing."""
    make = _slots if is_cluster(url) else _connections
    make(url, options or {}, 0.0, _as_it_is)


def check_url(url: str) -> None:
    """Raise ConfigurationError for a URL that cannot be used; looks at nothing but the text."""
    kind = _scheme(url)
    if kind in ("sentinel", "cluster", "clusters"):
        connection_arguments(_seeds(url).plain, {})
    elif kind != "embedded":
        connection_arguments(url, {})


def is_of_several(url: str) -> bool:
    """Whether it names Sentinels or a cluster."""
    return url.partition("://")[0] in _OF_SEVERAL


def is_cluster(url: str) -> bool:
    return _scheme(url) in ("cluster", "clusters")


def _connections(
    url: str, options: Mapping[str, Any], restart_grace: float, chosen: Choice
) -> Connections:
    kind = _scheme(url)
    if kind == "embedded":
        make = _embedded_maker(url.partition("://")[2], options, chosen)
        return Connections(make, safe(url))
    if kind == "sentinel":
        return _master_connections(url, options, restart_grace, chosen)
    make = _maker(connection_arguments(url, options), chosen)
    return Connections(make, safe(url), restart_grace)


def _maker(arguments: Dict[str, Any], chosen: Choice) -> Callable[..., AbstractConnection]:
    """What makes connections, after it has been tried without connecting."""
    connection_class: Any = chosen(arguments.pop("connection_class", Connection))

    def make(**address: Any) -> AbstractConnection:
        connection: AbstractConnection = connection_class(**arguments, **address)
        return connection

    _try(make)
    return make


def _maker_at(arguments: Dict[str, Any], chosen: Choice) -> MakeAt:
    """The same for connections to more than one address."""
    make = _maker(arguments, chosen)
    return lambda address: make(host=address.host, port=address.port)


def _master_connections(
    url: str, options: Mapping[str, Any], restart_grace: float, chosen: Choice
) -> MasterConnections:
    seeds = _seeds(url)
    arguments = connection_arguments(seeds.plain, options)
    name, others = arguments.pop("master_name", None), arguments.pop("min_other_sentinels", 0)
    their_own = arguments.pop("sentinel_kwargs", None) or {}
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"redlock_options: expected master_name, the name by which the Sentinels know the "
            f"lock server, got {name!r}; give it there or in the URL: {safe(url)}?master_name=…"
        )
    theirs = {key: value for key, value in options.items() if key.startswith("socket_")}
    if not isinstance(their_own, Mapping):
        raise ConfigurationError(
            f"redlock_options: expected sentinel_kwargs to be a mapping of options by name, got a "
            f"{type(their_own).__name__}; write a dict"
        )
    theirs.update(their_own)
    if not re.fullmatch("[0-9]+", str(others)):  # a str where it stands in the URL's query
        raise ConfigurationError(
            f"redlock_options: expected min_other_sentinels to be a whole number, got "
            f"{shown(others)}; write for instance 1"
        )
    make_theirs = _maker_at(_of_address(theirs), chosen)
    sentinels = Sentinels(seeds.addresses, make_theirs, name, int(others))
    address = f"sentinel://{seeds}/{name}"
    return MasterConnections(
        sentinels, _maker_at(_of_address(arguments), chosen), address, restart_grace
    )


def _of_address(arguments: Mapping[str, Any]) -> Dict[str, Any]:
    """For a connection to any address; ``ssl`` is what chooses TLS, as in redis-py's clients."""
    given = {key: value for key, value in arguments.items() if key not in ("host", "port", "ssl")}
    if arguments.get("ssl"):
        given["connection_class"] = SSLConnection
    return completed("rediss" if arguments.get("ssl") else "redis", given)


def _slots(url: str, options: Mapping[str, Any], restart_grace: float, chosen: Choice) -> Slots:
    seeds = _seeds(url)
    scheme = "rediss" if _scheme(url) == "clusters" else "redis"
    given = connection_arguments(seeds.plain, options)
    if int(given.pop("db", 0)):
        raise ConfigurationError(
            f"redlock_url: expected no number of a database, a cluster has only one, got "
            f"{safe(url)}; leave it out"
        )
    make = _maker_at(_of_address({**given, "ssl": scheme == "rediss"}), chosen)

    def connect(address: Address) -> Connections:
        return Connections(lambda: make(address), f"{scheme}://{address}", restart_grace)

    return Slots(seeds.addresses, connect, f"{scheme}+cluster://{seeds}")


def _seeds(url: str) -> Seeds:
    try:
        return read_seeds(url, _OF_SEVERAL[url.partition("://")[0]])
    except ValueError:
        raise _unreadable(url) from None


def _embedded_maker(name: str, options: Mapping[str, Any], chosen: Choice) -> Make:
    arguments = completed("unix", options)
    embedded.check(name)
    connection_class: Any = chosen(UnixDomainSocketConnection)

    def make() -> AbstractConnection:
        # Each time: a server that nobody has used for a while has ended.
        try:
            path = str(embedded.socket_of(name))
        except LockUnavailable as error:
            raise ConnectionError(error.servers) from error
        connection: AbstractConnection = connection_class(path=path, **arguments)
        return connection

    _try(lambda: connection_class(path="", **arguments))
    return make


def _try(make: Make) -> None:
    try:
        make()
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(
            f"redlock_options: expected what redis-py's connection for this kind of URL takes, as "
            f"options or in the URL's query, got {error}; correct it"
        ) from error


def connection_arguments(url: str, options: Mapping[str, Any]) -> Dict[str, Any]:
    """What redis-py's connection to a server is made with."""
    scheme = _scheme(url)
    try:
        parsed = parse_url(plain(url, scheme))
    except ValueError:
        raise _unreadable(url) from None
    return completed(scheme, {**parsed, **options})


def _unreadable(url: str) -> ConfigurationError:
    # Neither shown nor chained: what could not be read may be part of a password.
    scheme = url.partition("://")[0]
    return ConfigurationError(
        f"redlock_url: expected {scheme}://[user:password@]host:port/db, got {safe(url)} that "
        f"cannot be read; percent-encode what is not a letter or digit in a password"
    )


def is_embedded(url: str) -> bool:
    return _scheme(url) == "embedded"


def safe(url: str) -> str:
    """The URL without its password and its query, for people."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    if _QUERY_WITH_AT.search(rest):
        return f"{scheme}{mark}…"  # of a password in the query, or before the host: nobody can tell
    # After the last @, wherever it is: a password may hold what would end a host.
    address = re.split("[?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{mark}{address}"


def _scheme(url: str) -> str:
    name = url.split("://", 1)[0] if "://" in url else ""
    if name not in _OF_SEVERAL and _ANOTHER.search(url):
        raise ConfigurationError(
            "redlock_url: expected the URL of one Redis or Valkey server, got several in one "
            "text; name one, or several as sentinel:// or redis+cluster://"
        )
    try:
        return _SCHEMES[name]
    except KeyError:
        expected = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigurationError(
            f"redlock_url: expected a URL that begins with one of {expected}; got {safe(url)}"
        ) from None
