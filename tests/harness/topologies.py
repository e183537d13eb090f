"""Lock servers of every kind, each with the interface of one server.

Where the documentation names the fewest rights that will do, the clients have no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

from tests.harness import acl
from tests.harness.certificates import Authority, tls_options
from tests.harness.cluster import ClusterServers
from tests.harness.process import free_port
from tests.harness.sentinels import Sentinels
from tests.harness.servers import LockServer


def redis(_directory: Path) -> LockServer:
    """Redis, used as the documented user."""
    return _single("redis")


def valkey(_directory: Path) -> LockServer:
    """Valkey, used as the documented user."""
    return _single("valkey")


def _single(flavour: str) -> LockServer:
    server = LockServer.start(flavour, extra=acl.user_option())
    server.options = acl.LOGIN
    return server


class Guarded(LockServer):
    """Speaks TLS with clients that show a certificate; the tests look behind its back in plain."""

    tls_port: int

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.tls_port}/0"


def guarded(directory: Path) -> LockServer:
    """A server with all that can be asked of its clients."""
    authority, port = Authority(directory), free_port()
    own, client = authority.sign("server", ["localhost"]), authority.sign("client")
    extra = [*tls_options(authority, own, port, clients="yes"), *acl.user_option()]
    server = Guarded.start("redis", extra=extra)
    server.tls_port = port
    server.options = {
        **acl.LOGIN,
        "ssl_ca_certs": authority.certificate,
        "ssl_certfile": client.certificate,
        "ssl_keyfile": client.key,
    }
    return server


class Watched(LockServer):
    """Found through Sentinels, which are not to have it fail over however busy the machine is."""

    sentinels: Sentinels

    @property
    def url(self) -> str:
        return self.sentinels.url()

    def stop(self) -> None:
        self.sentinels.stop()
        super().stop()


def sentinel(directory: Path) -> LockServer:
    """A master behind Sentinels, both with passwords."""
    server = Watched.start("redis", extra=acl.user_option("+role"))
    server.sentinels = Sentinels(directory, server, count=2, down_after=60)
    server.options = {**acl.LOGIN, **server.sentinels.options}
    return server


def cluster(directory: Path) -> ClusterServers:
    """Three masters."""
    extra = acl.user_option("+cluster|slots", "+asking")
    servers = ClusterServers(directory, extra=extra)
    servers.options = acl.LOGIN
    return servers


TOPOLOGIES: Dict[str, Callable[[Path], Any]] = {
    "redis": redis,
    "valkey": valkey,
    "guarded": guarded,
    "sentinel": sentinel,
    "cluster": cluster,
}
