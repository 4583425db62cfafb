"""AutoMTLS, with Python's TLS client as the host."""

import asyncio
import base64
import os
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from grpclib.client import Channel, UnaryUnaryMethod

from aiostream_ds._grpc.call import Codec
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from aiostream_ds._process import server_tls
from aiostream_ds._process.handshake import Handshake, Listener, StartError, listen
from aiostream_ds._process.host_services import host_services

x509 = pytest.importorskip("cryptography.x509")

pytestmark = pytest.mark.mtls


class Host:
    """A host's certificate, and TLS that trusts only the one in the handshake line."""

    def __init__(self, tmp_path):
        # in go-plugin, too, both sides create their certificates in the same way
        _, pem, self.password = server_tls._create_certificate()
        self.file = tmp_path / f"{os.urandom(4).hex()}.pem"
        self.file.write_bytes(pem)
        self.certificate = pem.partition(b"-----BEGIN ENCRYPTED")[0].decode()

    def context(self, line, *, show=True):
        der = decode(line.split("|")[5])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=der)
        context.set_alpn_protocols(["h2"])
        if show:
            context.load_cert_chain(self.file, password=self.password)
        return context


def decode(field):
    return base64.b64decode(field + "=" * (-len(field) % 4), validate=True)


@asynccontextmanager
async def serving(host, tmp_path):
    server = Server(host_services(None))
    handshake = Handshake(client_cert=host.certificate, socket_dir=str(tmp_path))
    listener = await listen(server, handshake)
    try:
        yield listener, server
    finally:
        server.close()
        await server.wait_closed()
        listener.close()


async def first_bytes(listener, context):
    """What a client receives that connects and waits: bytes, or b"" at the end."""
    reader, writer = await asyncio.open_unix_connection(
        listener.address, ssl=context, server_hostname="localhost"
    )
    try:
        return await reader.read(100)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (ssl.SSLError, OSError):
            pass


async def test_a_call_with_the_certificates_of_both_sides(tmp_path):
    host = Host(tmp_path)
    async with serving(host, tmp_path) as (listener, server):
        context = host.context(listener.line)
        channel = Channel(path=listener.address, ssl=context, codec=Codec())
        channel._config = channel._config.__class__(ssl_target_name_override="localhost")
        channel._config = channel._config.__for_client__()
        check = UnaryUnaryMethod(
            channel, "/grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse
        )
        reply = await check(HealthCheckRequest(service="plugin"))
        assert reply.status.name == "SERVING"
        (connection,) = server.connections
        session = connection.write_buffer.get_extra_info("ssl_object")
        assert session.selected_alpn_protocol() == "h2"
        assert session.version() in {"TLSv1.2", "TLSv1.3"}
        channel.close()


async def test_a_client_with_another_certificate_is_refused(tmp_path):
    host, stranger = Host(tmp_path), Host(tmp_path)
    async with serving(host, tmp_path) as (listener, server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert await first_bytes(listener, stranger.context(listener.line)) == b""
            raise ConnectionError("closed")
        assert not server.connections


async def test_a_client_without_a_certificate_is_refused(tmp_path):
    host = Host(tmp_path)
    async with serving(host, tmp_path) as (listener, server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert await first_bytes(listener, host.context(listener.line, show=False)) == b""
            raise ConnectionError("closed")
        assert not server.connections


async def test_http2_without_tls_is_refused(tmp_path):
    host = Host(tmp_path)
    async with serving(host, tmp_path) as (listener, server):
        reader, writer = await asyncio.open_unix_connection(listener.address)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        answer = await reader.read()
        assert not answer.startswith(b"\0")  # at most a TLS alert, no SETTINGS frame
        writer.close()
        await writer.wait_closed()
        assert not server.connections


async def test_older_tls_is_refused(tmp_path):
    context, _ = server_tls.auto_mtls_context(Host(tmp_path).certificate)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_the_handshake_line_has_the_certificate_that_go_plugin_expects(tmp_path):
    handshake = Handshake(client_cert=Host(tmp_path).certificate, socket_dir=str(tmp_path))
    listener = Listener(handshake)
    field = listener.line.split("|")[5]
    listener.close()
    assert len(field) > 50  # the host ignores shorter ones
    assert "=" not in field
    certificate = x509.load_der_x509_certificate(decode(field))
    assert certificate.public_key().curve.name == "secp521r1"
    assert certificate.issuer == certificate.subject
    names = {a.rfc4514_attribute_name: a.value for a in certificate.subject}
    assert names == {"O": "HashiCorp", "CN": "localhost"}
    extensions = certificate.extensions
    alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["localhost"]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment
    assert usage.key_agreement and usage.key_cert_sign
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {p.dotted_string for p in purposes} == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert end - start == timedelta(hours=262_980)
    assert timedelta(seconds=29) < datetime.now(UTC) - start < timedelta(seconds=60)


def test_the_key_file_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    certificate = Host(tmp_path).certificate
    before = set(tmp_path.iterdir())
    server_tls.auto_mtls_context(certificate)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("text", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_malformed_client_certificate_is_refused(tmp_path, text):
    with pytest.raises(StartError, match="PLUGIN_CLIENT_CERT must be a certificate"):
        Listener(Handshake(client_cert=text, socket_dir=str(tmp_path)))
