"""A lock that is tried: every script once, on a resource of its own, of which nothing is left."""

from __future__ import annotations

import secrets
from typing import Any, Callable, List, Optional, Tuple

from celery_redlock.core.ports import (
    Acquire,
    Beat,
    Extended,
    Granted,
    HolderView,
    Leave,
    Left,
    Line,
    NoAnswer,
    Queued,
    Reestablish,
    Renew,
    Terms,
)
from celery_redlock.store.connections import Connections
from celery_redlock.store.scripts import command
from celery_redlock.store.single import Server, SingleServer

_LEASE_MS = 10_000

Step = Tuple[Callable[[], Any], type]


def probe(server: Server) -> str:
    """The name of a resource that nobody else uses, and that this server has the keys of."""
    while True:
        name = f"redlock-doctor:{secrets.token_hex(8)}"
        if server.serves(server.frames.keys(name)[0]):
            return name


def reason_of(silence: NoAnswer, connections: Connections) -> str:
    """Why there was no answer, without the address, which is told beside it."""
    text, begin = silence.servers, f"{connections.name} ("
    return text[len(begin) : -1] if text.startswith(begin) else text


def try_scripts(server: Server) -> Optional[str]:
    """None if a lock works, else what does not. Raises NoAnswer for a server that is gone."""
    connections, frames, _serves = server
    store, resource = SingleServer(connections, frames.prefix), probe(server)
    try:
        for step, expected in _steps(store, resource):
            answer = step()
            if not isinstance(answer, expected):
                return f"expected {expected.__name__}, got {type(answer).__name__}"
        return None
    except NoAnswer as silence:
        return reason_of(silence, connections)
    finally:
        h, q, w = frames.keys(resource)
        forget = command("HDEL", h, "f")
        connections.read([forget, *(command("PEXPIRE", key, "1") for key in (h, q, w))])


def _steps(store: SingleServer, resource: str) -> List[Step]:
    """One holds, one waits; the first one leaves, the second one holds and leaves."""
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    inbox = secrets.token_hex(8)
    terms, line = Terms(lease_ms=_LEASE_MS), Line(inbox, _LEASE_MS, _LEASE_MS)
    ask, wait = Acquire(resource, first, terms, ""), Acquire(resource, second, terms, "", line)

    def fence() -> int:
        (holder,) = store.inspect(resource).holders
        return holder.fence

    def reestablish() -> Any:
        return store.reestablish(Reestablish(resource, first, fence(), terms, "", True))

    def leave(token: str) -> Optional[Left]:
        left = store.leave(Leave(resource, (token,)))
        return left if left.what == "holder" else None

    return [
        (lambda: store.acquire(ask), Granted),
        (lambda: store.renew([Renew(resource, first, fence(), _LEASE_MS)])[0], Extended),
        (reestablish, Extended),
        (lambda: store.acquire_all([wait])[0], Queued),
        (lambda: store.heartbeat([Beat(resource, second, _LEASE_MS)])[0], Queued),
        (lambda: leave(first), Left),
        (lambda: store.acquire(wait), Granted),
        (lambda: store.inspect(resource).holders[0], HolderView),
        (lambda: leave(second), Left),
    ]
