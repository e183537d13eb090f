"""TLS: whom a client believes, and what it shows."""

from __future__ import annotations

from typing import Any, Dict, Iterator

import pytest

from celery_redlock.core.ports import NoAnswer
from tests.contract.test_urls import used_with
from tests.harness.certificates import Authority, Certificate, tls_options
from tests.harness.process import free_port
from tests.harness.servers import LockServer, missing


class Tls:
    """Two servers that speak TLS: one for every client, one for those with a certificate."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.client: Certificate = authority.sign("client")
        own = authority.sign("server", ["localhost", "127.0.0.1"])
        self.ports = {clients: free_port() for clients in ("no", "yes")}
        self.servers = []
        for clients, port in self.ports.items():
            options = tls_options(authority, own, port, clients)
            options += ["--bind", "127.0.0.1", "127.0.0.2"]
            self.servers.append(LockServer.start("redis", extra=options))

    def url(self, scheme: str = "rediss", host: str = "127.0.0.1", clients: str = "no") -> str:
        return f"{scheme}://{host}:{self.ports[clients]}/0"

    @property
    def trust(self) -> Dict[str, Any]:
        return {"ssl_ca_certs": self.authority.certificate}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    try:
        tls = Tls(Authority(tmp_path_factory.mktemp("tls")))
    except RuntimeError as error:
        missing(f"a redis-server with TLS ({error})")
    yield tls
    for server in tls.servers:
        server.stop()


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_a_server_whose_authority_is_known_is_used(tls: Tls, scheme: str) -> None:
    used_with(tls.url(scheme), tls.trust)
    for required in ("required", "CERT_REQUIRED"):
        query = f"ssl_cert_reqs={required}&ssl_ca_certs={tls.authority.certificate}"
        used_with(f"{tls.url(scheme)}?{query}")


def test_a_server_whose_authority_is_not_known_is_refused(tls: Tls) -> None:
    with pytest.raises(NoAnswer, match=r"(?i)certificate verify failed"):
        used_with(tls.url())


def test_a_server_of_another_name_is_refused_unless_names_do_not_matter(tls: Tls) -> None:
    # Another address of this machine, for which the certificate is not.
    elsewhere = tls.url(host="127.0.0.2")
    with pytest.raises(NoAnswer, match=r"(?i)certificate verify failed.*(mismatch|not valid)"):
        used_with(elsewhere, tls.trust)
    used_with(elsewhere, {**tls.trust, "ssl_check_hostname": False})
    used_with(f"{elsewhere}?ssl_check_hostname=false", tls.trust)


@pytest.mark.parametrize("none", ["none", "CERT_NONE"])
def test_nothing_is_verified_where_that_is_asked_for(tls: Tls, none: str) -> None:
    used_with(f"{tls.url(host='127.0.0.2')}?ssl_cert_reqs={none}")


def test_a_server_may_want_a_certificate_of_its_clients(tls: Tls) -> None:
    url = tls.url(clients="yes")
    with pytest.raises(NoAnswer):
        used_with(url, tls.trust)
    shown = {"ssl_certfile": tls.client.certificate, "ssl_keyfile": tls.client.key}
    used_with(url, {**tls.trust, **shown})
    query = "&".join(f"{name}={value}" for name, value in {**tls.trust, **shown}.items())
    used_with(f"{url}?{query}")


def test_plain_text_to_a_tls_port_is_no_answer(tls: Tls) -> None:
    with pytest.raises(NoAnswer):
        used_with(tls.url("redis"))
