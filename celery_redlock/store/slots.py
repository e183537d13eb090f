"""Which node of a cluster serves which slot, and what a node says when it does not.

The map is asked for when it is first needed and when a node is away; a single slot is corrected by
the node that says MOVED. A stale map costs a request more and harms nothing: a node that does not
serve a slot runs nothing for it.
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from celery_redlock.core.ports import NoAnswer
from celery_redlock.store.answers import STRANGE, UNREADABLE
from celery_redlock.store.connections import Connections
from celery_redlock.store.scripts import command
from celery_redlock.store.seeds import Address

_SLOTS = command("CLUSTER", "SLOTS")

#: Seconds in which the map is not asked for again because a node is away, and in which it is asked
#: for at the most: further nodes would have to be waited for as well.
_PAUSE, _PATIENCE = 0.25, 3.0

_REDIRECT = re.compile(r"(?:(ASK|MOVED) )?(\d+) (.*):(\d+)")


class Redirect(NamedTuple):
    """Another node serves this slot (MOVED), or has what is left of it already (ASK).

    Without a host in its address it is where the node is that says so: ``Slots.follow``.
    """

    asking: bool
    slot: int
    address: Address


def redirect(error: Optional[BaseException]) -> Optional[Redirect]:
    """What an error says of where a slot is, if it does; older redis-py has no class for it."""
    found = _REDIRECT.match(str(error)) if isinstance(error, ResponseError) else None
    if found is None or not (found[1] or isinstance(error, AskError)):
        return None
    slot = int(found[2])
    if slot >= REDIS_CLUSTER_HASH_SLOTS:
        return None
    asking = not isinstance(error, MovedError) if found[1] is None else found[1] == "ASK"
    return Redirect(asking, slot, Address(found[3], int(found[4])))


def is_moving(error: Optional[BaseException]) -> bool:
    """Whether the keys of a resource are on both sides of a move of their slot."""
    return isinstance(error, TryAgainError) or str(error).startswith("TRYAGAIN ")


class Slots:
    """Thread-safe: what is replaced is replaced at once. ``name`` is the cluster's, for people."""

    def __init__(
        self, seeds: Sequence[Address], connect: Callable[[Address], Connections], name: str
    ) -> None:
        self._seeds = tuple(seeds)
        self._connect = connect
        self._name = name
        self._servers: Dict[Address, Connections] = {}
        self._owners: List[Optional[Address]] = []
        self._looked_at = -_PAUSE
        self._turn = 0

    def server_of(self, key: str) -> Connections:
        """Who serves this key's slot; raises NoAnswer."""
        if not self._owners:
            self.look()
        slot = key_slot(key.encode())
        if self._owners[slot] is None:
            self.look_again()
        address = self._owners[slot]
        if address is None:
            raise NoAnswer(f"{self._name} (no node serves slot {slot})", may_run=False)
        return self.server_at(address)

    def server_at(self, address: Address) -> Connections:
        server = self._servers.get(address)
        return server or self._servers.setdefault(address, self._connect(address))

    def masters(self) -> List[Connections]:
        """All that serve slots, as it is now; raises NoAnswer."""
        self.look()
        return [self.server_at(address) for address in self._known()]

    def follow(self, to: Redirect, told_by: Connections) -> Connections:
        """The node that another one points to."""
        address = to.address
        if not address.host:
            address = Address(self._host_of(told_by), address.port)
        if not to.asking:
            self._owners[to.slot] = address
        return self.server_at(address)

    def look_again(self, away: Optional[Connections] = None) -> None:
        """Ask for the map because a node is away, if it was not just asked for. Never raises."""
        if time.monotonic() - self._looked_at >= _PAUSE:
            try:
                self.look(away)
            except NoAnswer:
                return

    def look(self, away: Optional[Connections] = None) -> None:
        """Ask for the map, each time another node first; raises NoAnswer if none answers.

        The one that is ``away`` is asked last.
        """
        until = time.monotonic() + _PATIENCE
        nodes = list(dict.fromkeys([*self._known(), *self._seeds]))
        self._turn += 1
        start = self._turn % len(nodes)
        order = sorted(
            nodes[start:] + nodes[:start],
            key=lambda node: away is not None and self._servers.get(node) is away,
        )
        said = []
        for node in order:
            self._looked_at = time.monotonic()
            try:
                (answer,) = self.server_at(node).read([_SLOTS])
                if isinstance(answer, ResponseError):
                    raise answer
                owners = _read(answer, node)
                if not any(owners):
                    # It belongs to no cluster, or to none that has begun: others may know more.
                    raise ResponseError("it knows of no slots")
            except NoAnswer as silence:
                said.append(silence.servers)
            except ResponseError as refusal:
                said.append(f"{node} ({refusal})")
            except UNREADABLE:
                said.append(f"{node} ({STRANGE})")
            else:
                self._take_over(owners)
                return
            if time.monotonic() > until:
                break
        raise NoAnswer(f"{self._name}: {'; '.join(said)}", may_run=False)

    def close(self) -> None:
        for server in list(self._servers.values()):
            server.close()

    def _host_of(self, server: Connections) -> str:
        known = list(self._servers.items())
        return next((address.host for address, each in known if each is server), "")

    def _known(self) -> List[Address]:
        return list(dict.fromkeys(filter(None, self._owners)))

    def _take_over(self, owners: List[Optional[Address]]) -> None:
        self._owners = owners
        # Who left the cluster is not kept; a seed is only asked for the map. Another thread may
        # have the same news.
        for address in set(self._servers) - {*self._known(), *self._seeds}:
            gone = self._servers.pop(address, None)
            if gone:
                gone.close()


def _read(ranges: Any, told_by: Address) -> List[Optional[Address]]:
    """The owner of each slot; raises one of UNREADABLE for what is no map."""
    owners: List[Optional[Address]] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, master, *_replicas in ranges:
        if not 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
            raise ValueError("slots that no cluster has")
        # A node that does not know its own name is where it was asked.
        host = (master[0] or b"").decode() or told_by.host
        owners[first : last + 1] = [Address(host, int(master[1]))] * (last + 1 - first)
    return owners
