"""TLS settings of sources, with real handshakes; the texts for servers that cannot be reached."""

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from aiostream_ds import ConfigError, NotFound, PluginError, Secret, UpstreamError
from aiostream_ds._connection_errors import address, connection_error
from aiostream_ds._tls import TlsSettings, ssl_context
from tests.servers.certificates import Certificate, certificates

CERTIFICATES = certificates()
CA = TlsSettings(ca_certificate=CERTIFICATES.ca)


def client(certificate: Certificate, **others: str) -> TlsSettings:
    return TlsSettings(
        ca_certificate=CERTIFICATES.ca,
        client_certificate=certificate.certificate,
        client_key=Secret(certificate.key),
        **others,
    )


def server_context(certificate: Certificate, client_ca: str, folder) -> ssl.SSLContext:
    path = folder / "server.pem"
    path.write_text(certificate.certificate + certificate.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if client_ca:
        context.load_verify_locations(cadata=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def listening(context: ssl.SSLContext | None, greeting=b"hello") -> AsyncGenerator[int]:
    """A server that sends its greeting, and closes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def greeting(port: int, settings: TlsSettings, host: str = "127.0.0.1") -> bytes:
    """What the server sends. Errors are those of viewers."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=ssl_context(settings))
        try:
            return await reader.read()  # with TLS 1.3 a client is refused after the handshake
        finally:
            writer.close()
    except Exception as error:
        raise connection_error(error, host, port, "the server") from None


async def refusal(
    port: int, settings: TlsSettings, kind: type[PluginError], host: str = "127.0.0.1"
) -> str:
    with pytest.raises(kind) as found:
        await greeting(port, settings, host)
    return found.value.message.removeprefix(f"the server {host}:{port}")


async def test_a_server_with_a_certificate_of_the_ca_is_trusted(tmp_path):
    async with listening(server_context(CERTIFICATES.server, "", tmp_path)) as port:
        assert await greeting(port, CA) == b"hello"
        assert await greeting(port, CA, "localhost") == b"hello"


async def test_a_pem_text_may_have_lost_its_line_breaks(tmp_path):
    async with listening(server_context(CERTIFICATES.server, CERTIFICATES.ca, tmp_path)) as port:
        pem, key = CERTIFICATES.client.certificate, CERTIFICATES.client.key
        for change in (
            lambda text: text.replace("\n", ""),
            lambda text: text.replace("\n", " "),
            lambda text: text.replace("\n", "\\n"),
            lambda text: text.replace("\n", "\r\n"),
            lambda text: "a note\n" + text,
        ):
            settings = TlsSettings(
                ca_certificate=change(CERTIFICATES.ca),
                client_certificate=change(pem),
                client_key=Secret(change(key)),
            )
            assert await greeting(port, settings) == b"hello"


@pytest.mark.slow
async def test_a_wrong_ca_an_expired_certificate_and_another_name_are_named(tmp_path):
    async with listening(server_context(CERTIFICATES.server, "", tmp_path)) as port:
        wrong = TlsSettings(ca_certificate=CERTIFICATES.other_ca)
        assert "caCertificate must be the certificate of" in await refusal(port, wrong, ConfigError)
        assert "unknown authority" in await refusal(port, TlsSettings(), ConfigError)
        assert await greeting(port, TlsSettings(skip_verify=True)) == b"hello"
    async with listening(server_context(CERTIFICATES.expired, "", tmp_path)) as port:
        assert "expired" in await refusal(port, CA, UpstreamError)
    async with listening(server_context(CERTIFICATES.other_name, "", tmp_path)) as port:
        for host in ("127.0.0.1", "localhost"):
            assert "serverName" in await refusal(port, CA, ConfigError, host)
        named = TlsSettings(ca_certificate=CERTIFICATES.ca, server_name="elsewhere.test")
        assert await greeting(port, named) == b"hello"


@contextmanager
def blocking_server(context: ssl.SSLContext) -> Generator[int]:
    """A server in a thread: OpenSSL names the reason of a failed handshake to the client, which
    asyncio's servers leave out."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(10)
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                    tls.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_asks_for_a_certificate_names_what_it_refuses(tmp_path, version):
    context = server_context(CERTIFICATES.server, CERTIFICATES.ca, tmp_path)
    context.maximum_version = version
    with blocking_server(context) as port:
        assert await greeting(port, client(CERTIFICATES.client)) == b"hello"
        for settings in (CA, client(CERTIFICATES.other_client)):
            assert "clientCertificate" in await refusal(port, settings, ConfigError)


async def test_a_server_without_tls_is_named():
    async with listening(None) as port:
        assert "does not use TLS" in await refusal(port, CA, ConfigError)
    async with listening(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "does not use TLS" in await refusal(port, CA, ConfigError)
    async with listening(None, b"") as port:
        assert "closed the connection" in await refusal(port, CA, UpstreamError)


PAIR = CERTIFICATES.client


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ca_certificate": "abc"}, "caCertificate must have a block -----BEGIN CERTIFICATE"),
        ({"ca_certificate": PAIR.key}, "caCertificate must have a block -----BEGIN CERTIFICATE"),
        (
            {"ca_certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
            "caCertificate must be certificates in PEM",
        ),
        ({"client_certificate": PAIR.certificate}, "got clientCertificate without clientKey"),
        ({"client_key": Secret(PAIR.key)}, "got clientKey without clientCertificate"),
        (
            {"client_certificate": "no", "client_key": Secret(PAIR.key)},
            "clientCertificate must have a block",
        ),
        (
            {"client_certificate": PAIR.certificate, "client_key": Secret("swordfish")},
            "clientKey must have a block .* got 9 characters without one",
        ),
        (
            {
                "client_certificate": PAIR.certificate,
                "client_key": Secret(CERTIFICATES.server.key),
            },
            "clientKey must be the key of clientCertificate",
        ),
        (
            {
                "client_certificate": PAIR.certificate,
                "client_key": Secret(
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n-----END ENCRYPTED PRIVATE KEY-----"
                ),
            },
            "clientKey must be a key without a password",
        ),
    ],
)
def test_a_certificate_or_key_that_cannot_be_used_is_named(settings, message):
    with pytest.raises(ConfigError, match=message) as found:
        ssl_context(TlsSettings(**settings))
    assert "swordfish" not in found.value.message


def test_certificates_of_the_system_are_trusted_without_a_setting():
    context = ssl_context(TlsSettings())
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_host_without_an_address_and_a_closed_port_are_named():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "refuses the connection" in await refusal(port, CA, UpstreamError)
    assert "refuses the connection" in await refusal(port, CA, UpstreamError, "localhost")
    text = await refusal(1, CA, UpstreamError, "no-such-host.invalid")
    assert "'no-such-host.invalid' is not found by DNS" in text
    with pytest.raises(ConfigError, match="host must be a host name or an address, got 'a..b'"):
        await greeting(1, CA, "a..b")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


class WithCause(Exception):
    """As aiohttp's, which has the error of the system as an attribute."""

    os_error = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (TimeoutError(), UpstreamError, "h:1 does not answer in time"),
        (OSError(errno.ENETUNREACH, "x"), UpstreamError, "no route to its network"),
        (OSError(errno.EMFILE, "Too many open files"), UpstreamError, "Too many open files"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), UpstreamError, "refuses"),
        (ConnectionResetError("reset"), UpstreamError, "has closed the connection"),
        (asyncio.IncompleteReadError(b"", 4), UpstreamError, "has closed the connection"),
        (caused(ValueError("no"), TimeoutError()), UpstreamError, "does not answer in time"),
        (ExceptionGroup("", [TimeoutError()]), UpstreamError, "does not answer in time"),
        (WithCause(), UpstreamError, "refuses the connection"),
        (ValueError("an unknown one"), UpstreamError, "h:1: an unknown one"),
        (ValueError(), UpstreamError, "h:1: ValueError"),
        (NotFound("no such table"), NotFound, "no such table"),
    ],
)
def test_errors_of_clients_have_the_text_of_their_cause(error, kind, text):
    found = connection_error(error, "h", 1, "the server")
    assert type(found) is kind and text in found.message


def test_an_address_of_ipv6_has_brackets():
    assert address("::1", 1883) == "[::1]:1883"
    assert address("h") == "h"
