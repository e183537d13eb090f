"""The master that Sentinels watch: found anew for each connection, so that a failover is followed.

A server is believed to be the master if a Sentinel names it and it says so itself: Sentinel may
not know yet what the server knows, and the other way round.

An old master may go on taking requests for seconds, until Sentinel tells it. So each process
listens to a Sentinel: when that tells of a failover, no connection made before it is used again.
There is no thread for it; whether something was told is looked at before a connection is used.

A server that became master less than the restart grace ago may lack what the old one acknowledged
last, as one that was restarted empty does: it does not grant what it does not know either, so that
holders come back first. Sentinel knows since when it is the master.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, Dict, NamedTuple, Sequence, TypeVar

from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError

from celery_redlock.store.connections import Connections
from celery_redlock.store.link import Link, reason
from celery_redlock.store.scripts import command
from celery_redlock.store.seeds import Address

#: What makes a connection to an address.
MakeAt = Callable[[Address], AbstractConnection]

Answer = TypeVar("Answer")

_ROLE = command("ROLE")
_DOWN = {"s_down", "o_down"}


class Master(NamedTuple):
    """``since``: for so many seconds it has been the master, as far as the Sentinel knows."""

    address: Address
    since: float


class Sentinels:
    """Asked one after the other, first the one that answered last. Thread-safe."""

    def __init__(
        self, addresses: Sequence[Address], make: MakeAt, master_name: str, others: int = 0
    ) -> None:
        self._addresses = tuple(addresses)
        self._make = make
        self._master_name = master_name
        self._others = others

    def master(self) -> Master:
        """Raises ConnectionError, which says what each of them said."""
        return self._first(lambda address: self._read(self._ask(address)))

    def listen(self) -> AbstractConnection:
        """A connection on which something comes when there was a failover; as ``master``."""
        return self._first(self._subscribe)

    def _first(self, ask: Callable[[Address], Answer]) -> Answer:
        said = []
        order = self._addresses
        for position, address in enumerate(order):
            try:
                answer = ask(address)
            except (RedisError, OSError) as error:
                said.append(f"{address}: {reason(error)}")
            else:
                self._addresses = order[position:] + order[:position]
                return answer
        raise ConnectionError(
            f"no Sentinel names a master {self._master_name!r}: {'; '.join(said)}"
        )

    def _subscribe(self, address: Address) -> AbstractConnection:
        connection = self._make(address)
        try:
            connection.connect()
            connection.send_packed_command([command("SUBSCRIBE", "+switch-master")])
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _ask(self, address: Address) -> Dict[str, str]:
        connection = self._make(address)
        try:
            connection.connect()
            connection.send_packed_command([command("SENTINEL", "MASTER", self._master_name)])
            flat: Any = connection.read_response()
        finally:
            connection.disconnect()
        texts = [text.decode() for text in flat]
        return dict(zip(texts[::2], texts[1::2]))

    def _read(self, told: Dict[str, str]) -> Master:
        address = Address(told["ip"], int(told["port"]))
        if _DOWN.intersection(told["flags"].split(",")):
            raise ConnectionError(f"{address} is down")
        if int(told["num-other-sentinels"]) < self._others:
            raise ConnectionError(f"it knows fewer than {self._others} other Sentinels")
        return Master(address, int(told.get("role-reported-time", 0)) / 1000)


class Term:
    """The time from one failover to the next, as one Sentinel tells it. Thread-safe.

    A connection can be looked at by one thread at a time: who does takes it out of the deque.
    """

    def __init__(self, news: AbstractConnection) -> None:
        self._is_over = False
        self._news: Deque[AbstractConnection] = deque([news])

    def is_over(self) -> bool:
        """Whether a failover was told by now; never waits, also not for another thread."""
        with suppress(IndexError):  # another is looking
            news = self._news.pop()
            try:
                if _has_come(news):
                    self._is_over = True
            finally:
                self._news.append(news)
        if self._is_over:
            self.end()
        return self._is_over

    def end(self) -> None:
        self._is_over = True
        with suppress(IndexError):  # who is looking at it ends it then
            self._news.pop().disconnect()


class MasterConnections(Connections):
    """The held connections of this process to whichever server is the master."""

    def __init__(
        self, sentinels: Sentinels, make: MakeAt, name: str, restart_grace: float = 0.0
    ) -> None:
        super().__init__(lambda: make(sentinels.master().address), name, restart_grace)
        self._sentinels = sentinels
        self._make_at = make
        #: The one that is not over, once there is one: the first that a thread puts there.
        self._term: Dict[str, Term] = {}

    def apart(self) -> Connections:
        """These ask for what no connection of ours is made without: a Sentinel's news, the role."""
        return MasterConnections(self._sentinels, self._make_at, self.name)

    def close(self) -> None:
        term = self._term.pop("now", None)
        if term:
            term.end()
        super().close()

    def forget(self) -> None:
        super().forget()
        self._term = {}

    def _take(self) -> Link:
        term = self._term.get("now")
        if term and term.is_over():
            self.close()
        return super()._take()

    def _is_usable(self, link: Link) -> bool:
        return link.term is self._term.get("now") and super()._is_usable(link)

    def _connect(self) -> Link:
        # First: what happens between the two is told.
        term = self._term.get("now") or self._begin()
        master = self._sentinels.master()
        link = Link(self._make_at(master.address), self._restart_grace, master.since)
        link.term = term
        try:
            link.send(_ROLE)
            if link.receive()[0] != b"master":
                raise ReadOnlyError(f"{master.address} is not the master")
        except BaseException:
            link.close()
            raise
        return link

    def _begin(self) -> Term:
        begun = Term(self._sentinels.listen())
        term = self._term.setdefault("now", begun)
        if term is not begun:
            begun.end()
        return term


def _has_come(news: AbstractConnection) -> bool:
    try:
        return bool(news.can_read(0))
    except (RedisError, OSError):
        return True
