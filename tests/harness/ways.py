"""The ways to a lock server, each for several that know nothing of one another.

``WAYS`` gives for each what starts the servers: over TLS, with a password or a user, on a unix
socket, in a database other than the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, Type, TypeVar
from urllib.parse import quote

import redis

from tests.harness import acl
from tests.harness.certificates import Authority, tls_options
from tests.harness.independent import Start
from tests.harness.process import free_port
from tests.harness.servers import LockServer

#: A server that keeps every write shows that to a user who may ask.
MAY_ASK = "+config|get"

Self = TypeVar("Self", bound="OverTls")


class OverTls(LockServer):
    """Speaks TLS; the tests look behind its back in plain."""

    tls_port: int
    user = ""
    database = 0

    @property
    def url(self) -> str:
        return f"rediss://{self.user}127.0.0.1:{self.tls_port}/{self.database}"

    @property
    def public_port(self) -> int:
        return self.tls_port

    @classmethod
    def of(
        cls: Type[Self], authority: Authority, extra: Sequence[str], home: Optional[Path] = None
    ) -> Self:
        """One that shows a certificate of its own."""
        port = free_port()
        own = authority.sign(f"server-{port}", ["localhost", "127.0.0.1"])
        # At a second address as well, for which the certificate is not.
        options = [*tls_options(authority, own, port, "no"), "--bind", "127.0.0.1", "127.0.0.2"]
        server = cls.start("redis", extra=[*options, *extra], directory=home)
        server.tls_port = port
        server.options = {"ssl_ca_certs": authority.certificate}
        return server


class WithPassword(LockServer):
    """Has a password of its own, which stands in its URL."""

    @property
    def password(self) -> str:
        return f"p:w@rd/#{self.port}"

    @property
    def url(self) -> str:
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password, decode_responses=True)

    def _launch(self) -> None:
        if "--requirepass" not in self.extra:
            self.extra += ["--requirepass", self.password]
        super()._launch()


class InDatabase(LockServer):
    """Keeps the locks in its fourth database."""

    @property
    def url(self) -> str:
        if self.socket:
            return f"redis+socket://{self.socket}?virtual_host=3"
        return f"redis://127.0.0.1:{self.port}/3"


def tls(directory: Path) -> Start:
    """Each shows a certificate of its own, all of one authority."""
    authority = Authority(directory)

    def start(_number: int, extra: Sequence[str], home: Path) -> LockServer:
        return OverTls.of(authority, extra, home)

    return start


def tls_with_user(directory: Path) -> Start:
    """With the documented user, whose login stands in the URL, and a database."""
    authority = Authority(directory)

    def start(_number: int, extra: Sequence[str], home: Path) -> LockServer:
        server = OverTls.of(authority, [*extra, *acl.user_option(MAY_ASK)], home)
        server.user, server.database = f"{acl.NAME}:{quote(acl.PASSWORD, safe='')}@", 3
        return server

    return start


def password(_directory: Path) -> Start:
    def start(_number: int, extra: Sequence[str], home: Path) -> LockServer:
        return WithPassword.start(extra=extra, directory=home)

    return start


def user(_directory: Path) -> Start:
    """The documented user, which may see whether the server keeps its writes."""

    def start(_number: int, extra: Sequence[str], home: Path) -> LockServer:
        server = LockServer.start(extra=[*extra, *acl.user_option(MAY_ASK)], directory=home)
        server.options = acl.LOGIN
        return server

    return start


def unix(_directory: Path) -> Start:
    def start(_number: int, extra: Sequence[str], home: Path) -> LockServer:
        return LockServer.start(unix=True, extra=extra, directory=home)

    return start


def database(_directory: Path) -> Start:
    """The first one on a unix socket, the others over TCP."""

    def start(number: int, extra: Sequence[str], home: Path) -> LockServer:
        return InDatabase.start(unix=number == 0, extra=extra, directory=home)

    return start


WAYS: Dict[str, Callable[[Path], Start]] = {
    "tls": tls,
    "tls, user and database": tls_with_user,
    "password": password,
    "user": user,
    "unix": unix,
    "database": database,
}
