"""Facts about a lock server, learnt as the app's user with the app's own URL and options.

What the user may do is learnt by doing it, on keys of a probe resource under the app's prefix:
asking for a user's rights is a right that few have. Nothing is left of the probe. An answer that is
none of ours is a fact like any other: nothing here raises for what a server says.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from typing import Any, Dict, Optional, Tuple

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from celery_redlock.core.checkup.facts import Permissions, ServerFacts
from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.connections import Connections
from celery_redlock.store.frames import INSPECT
from celery_redlock.store.probing import probe, reason_of, try_scripts
from celery_redlock.store.scripts import command
from celery_redlock.store.single import Server

#: Requests whose time is taken.
_TRIPS = 20

#: Milliseconds after which a probe that could not be taken away goes by itself.
_PROBE_MS = "10000"

_SETTINGS = ("save", "appendfsync")

#: What the scripts and the connections call. {h} and {q} are keys of the probe, {c} its channel; in
#: this order nothing is left of them.
NEEDED: Tuple[Tuple[str, ...], ...] = (
    ("INFO", "server"),
    ("TIME",),
    ("PING",),
    ("SCRIPT|LOAD", INSPECT.text),
    ("EVALSHA", INSPECT.sha, "1", "{h}"),
    ("HSET", "{h}", "f", "1"),
    ("PEXPIRE", "{h}", _PROBE_MS),
    ("PTTL", "{h}"),
    ("HGET", "{h}", "f"),
    ("HGETALL", "{h}"),
    ("EXISTS", "{h}"),
    ("HDEL", "{h}", "f"),
    ("ZADD", "{q}", "1", "x"),
    ("PEXPIRE", "{q}", _PROBE_MS),
    ("ZCARD", "{q}"),
    ("ZRANGE", "{q}", "0", "0"),
    ("ZRANK", "{q}", "x"),
    ("ZSCORE", "{q}", "x"),
    ("ZREM", "{q}", "x"),
    ("PUBLISH", "{c}", "probe"),
    ("SUBSCRIBE", "{c}"),
)

#: What looking at all locks calls besides.
LOOKING: Tuple[Tuple[str, ...], ...] = (("SCAN", "0", "COUNT", "1"), ("HLEN", "{h}"))


def examine(server: Server) -> ServerFacts:
    """Whatever can be learnt of a server; takes a few of its timeouts if it does not answer."""
    server = server._replace(connections=server.connections.apart())
    connections, frames, _serves = server
    try:
        known = _known_before(server)
        trips = [_timed(connections) for _ in range(_TRIPS)]
        info = _pairs_of_info(_answer(connections, command("INFO")))
        permissions = _permissions(server)
        failed = None
        if not (permissions.commands or permissions.keys or permissions.channels):
            failed = try_scripts(server)
        best = min(trips, key=lambda trip: trip.length)
        return ServerFacts(
            **known,
            info=info,
            config=_config(connections),
            clock_ahead=best.ahead,
            clock_error=best.length / 2 + 0.001,
            round_trips=tuple(sorted(trip.length for trip in trips)),
            permissions=permissions,
            scripts_failed=failed,
        )
    except NoAnswer as silence:
        return ServerFacts(
            address=connections.name, silence=reason_of(silence, connections), prefix=frames.prefix
        )
    finally:
        connections.close()


def _known_before(server: Server) -> Dict[str, Any]:
    """What its connections are made with. Raises NoAnswer where that asks for an address first."""
    try:
        connection: Any = server.connections.unconnected()
    except RedisError as error:
        raise NoAnswer(f"{server.connections.name} ({error})", may_run=False) from error
    host = getattr(connection, "host", None)
    secret = getattr(connection, "password", None) or getattr(
        connection, "credential_provider", None
    )
    return {
        "address": server.connections.name,
        "prefix": server.frames.prefix,
        "timeout": getattr(connection, "socket_timeout", None),
        "is_authenticated": bool(secret),
        "is_local": host is None or _is_loopback(host),
        "host": host or "",
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- asking


class _Trip:
    """One round trip: how long it took, and by how much the server's clock is ahead of ours."""

    def __init__(self, length: float, ahead: float) -> None:
        self.length = length
        self.ahead = ahead


def _timed(connections: Connections) -> _Trip:
    began, before = time.monotonic(), time.time()
    answer = _answer(connections, command("TIME"))
    length = time.monotonic() - began
    try:
        theirs = int(answer[0]) + int(answer[1]) / 1e6
    except (TypeError, ValueError, IndexError):
        return _Trip(length, 0.0)
    return _Trip(length, theirs - before - length / 2)


def _answer(connections: Connections, frame: bytes) -> Any:
    """The answer; what is refused is an answer too, its error."""
    (answer,) = connections.read([frame])
    return answer


def _pairs_of_info(answer: Any) -> Dict[str, str]:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, mark, value in lines if mark}


def _config(connections: Connections) -> Dict[str, str]:
    """Managed servers refuse to tell."""
    found = {}
    for name in _SETTINGS:
        answer = _answer(connections, command("CONFIG", "GET", name))
        if isinstance(answer, list) and len(answer) == 2 and isinstance(answer[1], bytes):
            found[name] = answer[1].decode(errors="replace")
    return found


# --- permissions


def _permissions(server: Server) -> Permissions:
    connections, frames, _serves = server
    h, q, _w = frames.keys(probe(server))
    places = {"{h}": h, "{q}": q, "{c}": frames.channel(secrets.token_hex(8))}
    denied = [(words[0], _denied(connections, words, places)) for words in NEEDED]
    looking = [(words[0], _denied(connections, words, places)) for words in LOOKING]
    return Permissions(
        commands=_unique(name for name, what in denied if what == "command"),
        looking=_unique(name for name, what in looking if what == "command"),
        keys=any(what == "key" for _, what in denied),
        channels=any(what == "channel" for _, what in denied),
    )


def _unique(names: Any) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _denied(
    connections: Connections, words: Tuple[str, ...], places: Dict[str, str]
) -> Optional[str]:
    """What the user lacks for this command: "command", "key", "channel", or None for nothing."""
    name, *arguments = words
    frame = command(*name.split("|"), *(places.get(word, word) for word in arguments))
    ask = _subscribed if name == "SUBSCRIBE" else _answer
    answer = ask(connections, frame)
    if not isinstance(answer, NoPermissionError):
        return None
    text = str(answer)
    return "channel" if "channel" in text else "command" if "command" in text else "key"


def _subscribed(connections: Connections, frame: bytes) -> Any:
    """On a connection of its own: afterwards it takes no other command."""
    link = connections.dedicated()
    try:
        link.send(frame)
        return link.receive()
    except ResponseError as refusal:
        return refusal
    except (RedisError, OSError) as error:
        raise NoAnswer(f"{connections.name} ({error})", may_run=False) from error
    finally:
        link.close()
