"""URLs that name several servers, of which any one leads to the others.

sentinel://[[user]:password@]host[:port][/db];sentinel://host[:port]   as Celery writes them
redis+cluster://[[user]:password@]host[:port],host[:port]

Either may be written in either way. User, password and database are the first one's, as Celery
reads them: of the servers that hold the data. The query may stand anywhere.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Tuple
from urllib.parse import urlsplit

_NEXT = re.compile(r"[;,](?=[a-z+]+://)")


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Seeds(NamedTuple):
    """``plain`` is the URL of the first one as of a single server of scheme ``redis``."""

    addresses: Tuple[Address, ...]
    plain: str

    def __str__(self) -> str:
        return ",".join(str(address) for address in self.addresses)


def read_seeds(url: str, default_port: int) -> Seeds:
    """Raises ValueError, with nothing of the URL in it, for one that cannot be read."""
    addresses: List[Address] = []
    users: List[str] = []
    paths: List[str] = []
    queries: List[str] = []
    for each in _NEXT.split(url):
        rest = each.partition("://")[2]
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        user, _, hosts = authority.rpartition("@")
        addresses += (_address(host, default_port) for host in hosts.split(","))
        parts = urlsplit(rest[len(authority) :])
        if parts.fragment:
            raise ValueError("a fragment")
        users.append(f"{user}@" if user else "")
        paths.append(parts.path)
        queries.append(parts.query)
    query = "&".join(filter(None, queries))
    plain = f"redis://{users[0]}{addresses[0]}{paths[0]}{'?' if query else ''}{query}"
    return Seeds(tuple(addresses), plain)


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return Address(parts.hostname, parts.port or default_port)
