"""Certificates for one test run, signed by an authority that only it knows."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from tests.harness.servers import require


class Certificate(NamedTuple):
    certificate: str
    key: str


class Authority:
    """Signs certificates; ``certificate`` is what its clients are given to trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        subject = ["-subj", "/CN=the tests' authority", "-days", "2"]
        may_sign = ["-addext", "keyUsage=critical,keyCertSign"]  # Python 3.13 looks at it
        self.certificate, self._key = self._make("authority", ["-x509", *subject, *may_sign])

    def sign(self, name: str, hosts: Sequence[str] = ()) -> Certificate:
        """A certificate for a server with these names and addresses, or for a client."""
        made = self._make(name, ["-subj", f"/CN={name}"])
        extensions = self._directory / f"{name}.ext"
        kinds = [f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts]
        extensions.write_text(
            f"subjectAltName={','.join(kinds) or f'DNS:{name}'}\nauthorityKeyIdentifier=keyid\n"
        )
        signer = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2"]
        signed = ["-in", made.certificate, "-out", made.certificate, "-extfile", str(extensions)]
        _openssl(["x509", "-req", *signer, *signed])
        return made

    def _make(self, name: str, options: List[str]) -> Certificate:
        made = Certificate(*(str(self._directory / f"{name}.{kind}") for kind in ("pem", "key")))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl(["req", *curve, "-keyout", made.key, "-out", made.certificate, *options])
        return made


def tls_options(authority: Authority, own: Certificate, port: int, clients: str) -> List[str]:
    """A server's command line for TLS on this port; ``clients``: must they show a certificate?"""
    return [
        *("--tls-port", str(port), "--tls-auth-clients", clients),
        *("--tls-ca-cert-file", authority.certificate),
        *("--tls-cert-file", own.certificate, "--tls-key-file", own.key),
    ]


def of_clients(authority: Authority) -> Dict[str, Any]:
    """What redis-py's client is given for TLS."""
    return {"ssl": True, "ssl_ca_certs": authority.certificate}


def _openssl(arguments: List[str]) -> None:
    subprocess.run([require("openssl"), *arguments], check=True, capture_output=True)
