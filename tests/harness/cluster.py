"""A cluster of lock servers with the interface of one server."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

import redis
from redis.crc import key_slot

from tests.harness.certificates import Authority
from tests.harness.process import free_port
from tests.harness.servers import LockServer
from tests.harness.ways import OverTls

SLOTS = 16384

_AGREES_WITHIN = 30.0


class ClusterServers:
    """Masters that share the slots evenly, and as many replicas if asked for.

    With an ``authority`` they speak TLS, among themselves as well. ``client`` is of the first one;
    ``flush`` and ``restart`` concern them all.
    """

    def __init__(
        self,
        directory: Path,
        *,
        masters: int = 3,
        replicas: bool = False,
        node_timeout: float = 60.0,
        extra: Sequence[str] = (),
        authority: Optional[Authority] = None,
    ) -> None:
        self.options: Dict[str, Any] = {}
        self._scheme = "rediss+cluster" if authority else "redis+cluster"
        self.nodes: List[LockServer] = []
        for number in range(masters * (2 if replicas else 1)):
            home = directory / f"node-{number}"
            home.mkdir()
            settings = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            settings += ["--cluster-node-timeout", str(int(node_timeout * 1000))]
            settings += ["--repl-diskless-sync-delay", "0", *extra]
            # By default 10000 above the other one, where there may be none.
            settings += ["--cluster-port", str(free_port())]
            if authority is None:
                self.nodes.append(LockServer.start("redis", directory=home, extra=settings))
            else:
                settings += ["--tls-cluster", "yes", "--tls-replication", "yes"]
                self.nodes.append(OverTls.of(authority, settings, home))
                self.options = {"ssl_ca_certs": authority.certificate}
        self.masters = self.nodes[:masters]
        try:
            self._share_out()
            self._meet()
            if replicas:
                self._have_replicated()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.public_port}" for node in self.masters)
        return f"{self._scheme}://{hosts}"

    def client(self) -> redis.Redis:
        return self.masters[0].client()

    def owner(self, key: str) -> LockServer:
        """The node that serves this key's slot, as the first that answers knows it."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                for first, last, (_host, port, *_), *_replicas in _slots(node):
                    if first <= slot <= last:
                        return next(
                            each for each in self.nodes if port in (each.port, each.public_port)
                        )
        raise AssertionError(f"nobody serves {slot}")

    def flush(self) -> None:
        for node in self.masters:
            node.flush()

    def restart(self) -> None:
        for node in self.masters:
            node.restart()
        self.wait_until_well()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def wait_until_well(self) -> None:
        """Until every living node says that the whole cluster is served."""
        with self._clients() as clients:
            _wait(
                lambda: all("cluster_state:ok" in _told(client, "info") for client in clients),
                "the cluster is well",
            )

    def wait_until_agreed(self) -> None:
        """Until all know of the latest move: two at once may be given one number, and be undone."""

        def epochs() -> Set[str]:
            lines = (line for client in clients for line in _told(client, "info").splitlines())
            return {line for line in lines if line.startswith("cluster_current_epoch:")}

        with self._clients() as clients:
            _wait(lambda: len(epochs()) == 1, "all know of the latest move")

    @contextlib.contextmanager
    def moving(self, key: str) -> Iterator[Mover]:
        """In the middle of the move of this key's slot to another master; it is finished after."""
        mover = Mover(self, key)
        mover.begin()
        yield mover
        mover.finish()

    def move(self, key: str) -> None:
        """Move this key's slot, with what is in it, to another master."""
        with self.moving(key) as mover:
            mover.move_keys(mover.keys())

    def _share_out(self) -> None:
        bounds = [SLOTS * number // len(self.masters) for number in range(len(self.masters) + 1)]
        for node, first, end in zip(self.masters, bounds, bounds[1:]):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)

    def _meet(self) -> None:
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number:
                    first = self.nodes[0]
                    bus = first.extra[first.extra.index("--cluster-port") + 1]
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.public_port, bus)
        with self._clients() as clients:
            count = f"cluster_known_nodes:{len(self.nodes)}"
            _wait(lambda: all(count in _told(c, "info") for c in clients), "all know one another")
        self.wait_until_well()

    def _have_replicated(self) -> None:
        for master, replica in zip(self.masters, self.nodes[len(self.masters) :]):
            with master.client() as theirs, replica.client() as ours:
                ours.execute_command("CLUSTER", "REPLICATE", theirs.execute_command("CLUSTER MYID"))
                _wait(partial(_is_linked, ours), "a replica has its master's data")

    @contextlib.contextmanager
    def _clients(self) -> Iterator[List[redis.Redis]]:
        with contextlib.ExitStack() as opened:
            yield [opened.enter_context(node.client()) for node in self.nodes if node.is_running]


class Mover:
    """The move of one slot from its owner to another master, step by step."""

    def __init__(self, cluster: ClusterServers, key: str) -> None:
        self._slot = key_slot(key.encode())
        self.source = cluster.owner(key)
        self.target = next(node for node in cluster.masters if node is not self.source)
        self._cluster = cluster

    def begin(self) -> None:
        with self.source.client() as source, self.target.client() as target:
            theirs, ours = (c.execute_command("CLUSTER MYID") for c in (source, target))
            target.execute_command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", theirs)
            source.execute_command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", ours)

    def keys(self) -> List[str]:
        with self.source.client() as client:
            return list(client.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 1000))

    def move_keys(self, keys: Sequence[str]) -> None:
        with self.source.client() as client:
            for key in keys:
                client.migrate("127.0.0.1", self.target.public_port, key, 0, 5000)

    def finish(self) -> None:
        self.move_keys(self.keys())
        with self.target.client() as target:
            ours = target.execute_command("CLUSTER MYID")
        # The new owner first: until it knows, nobody would serve the slot.
        for node in (self.target, *self._cluster.masters):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", self._slot, "NODE", ours)
        self._cluster.wait_until_agreed()


def _slots(node: LockServer) -> Any:
    """The map as the node tells it: what redis-py makes of it differs from version to version."""
    connection = redis.Connection(host="127.0.0.1", port=node.port)
    try:
        connection.connect()
        connection.send_command("CLUSTER", "SLOTS")
        return connection.read_response()
    finally:
        connection.disconnect()


def _is_linked(replica: redis.Redis) -> bool:
    return replica.info("replication").get("master_link_status") == "up"


def _told(client: redis.Redis, what: str) -> str:
    told = client.execute_command(f"CLUSTER {what}")
    return told if isinstance(told, str) else "\n".join(f"{k}:{v}" for k, v in told.items())


def _wait(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + _AGREES_WITHIN
    while not is_so():
        assert time.monotonic() < deadline, f"in {_AGREES_WITHIN} s it did not happen that {what}"
        time.sleep(0.02)
