"""Certificates of test servers and clients, made in memory once for a test run."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import trustme

NAMES = ("127.0.0.1", "localhost")
"""The names of a server in its certificate."""

CLIENT_NAME = "grafana"
"""The common name of the client's certificate."""


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key, both PEM text."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Certificates:
    """A CA and what it has signed; and a CA that has signed none of these."""

    ca: str
    other_ca: str
    server: Certificate
    expired: Certificate
    """A server's, as `server`, that was valid until the end of 2001."""
    other_name: Certificate
    """A server's, for the name `elsewhere.test` only."""
    client: Certificate
    other_client: Certificate
    """A client's, signed by `other_ca`."""


@cache
def certificates() -> Certificates:
    ca, other = trustme.CA(), trustme.CA()
    return Certificates(
        ca=_pem(ca.cert_pem),
        other_ca=_pem(other.cert_pem),
        server=_of(ca.issue_cert(*NAMES)),
        expired=_of(ca.issue_cert(*NAMES, not_after=datetime(2001, 12, 31, tzinfo=UTC))),
        other_name=_of(ca.issue_cert("elsewhere.test")),
        client=_of(ca.issue_cert("grafana@client.test", common_name=CLIENT_NAME)),
        other_client=_of(other.issue_cert("grafana@client.test", common_name=CLIENT_NAME)),
    )


def _of(issued: trustme.LeafCert) -> Certificate:
    return Certificate(
        "".join(_pem(each) for each in issued.cert_chain_pems), _pem(issued.private_key_pem)
    )


def _pem(blob: trustme.Blob) -> str:
    return blob.bytes().decode("ascii")
