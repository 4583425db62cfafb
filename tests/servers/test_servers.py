"""The servers with TLS present the certificate of the test and demand a client's."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from . import Certificate, Mosquitto, Redis, Server, certificates

pytestmark = pytest.mark.slow  # real servers


def handshake(server: Server, ca: str, client: Certificate | None = None) -> None:
    """Connect with verification, and wait for the server's word on the client's certificate."""
    context = ssl.create_default_context(cadata=ca)
    if client is not None:
        pair = server.folder / "test_client.pem"
        pair.write_text(client.certificate + client.key, "utf-8")
        context.load_cert_chain(pair)
    with context.wrap_socket(server.connect_plain(), server_hostname="localhost") as connection:
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # neither server speaks first
            connection.recv(1)


@pytest.fixture(scope="module", params=[Mosquitto, Redis])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param(tls=certificates().server) as running:
        yield running


def test_a_server_with_tls_is_verified_by_its_ca_only(server: Server):
    handshake(server, certificates().ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, certificates().other_ca)


@pytest.mark.parametrize("kind", [Mosquitto, Redis])
def test_a_certificate_is_replaced_by_a_restart_and_clients_need_one(kind: type[Server]):
    with kind(tls=certificates().expired, client_ca=certificates().ca) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            handshake(server, certificates().ca, certificates().client)
        server.tls = certificates().other_name
        server.restart()
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(server, certificates().ca, certificates().client)
        server.tls = certificates().server
        server.restart()
        handshake(server, certificates().ca, certificates().client)
        for client in (None, certificates().other_client):
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                handshake(server, certificates().ca, client)


def test_a_server_with_tls_refuses_a_client_without(server: Server):
    with server.connect_plain() as connection:
        connection.sendall(b"AUTH swordfish\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"OK" not in read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while block := connection.recv(1024):
        received += block
    return received
