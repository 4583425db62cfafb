"""TLS contexts of the server: AutoMTLS for a go-plugin host, and certificates from files.

AutoMTLS is used when a host sets PLUGIN_CLIENT_CERT, which Grafana does not. Certificates from
files are for a remote plugin, whose client is the launcher of `aiostream-ds package --address
--tls`. This module is imported only when TLS is used, and the optional package `cryptography` only
for AutoMTLS.
"""

import base64
import os
import secrets
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiostream_ds.errors import ConfigError

__all__ = ["auto_mtls_context", "server_context"]

_VALIDITY = timedelta(hours=262_980)  # thirty years, as in go-plugin; the key is never stored
_CLOCK_SKEW = timedelta(seconds=30)


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """A context with this certificate. With `client_ca`, clients need a certificate of that CA.

    The files are PEM. Blocks. Raises ConfigError for a file that cannot be used.
    """
    context = _http2_context()
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"expected a certificate and its key in PEM, got {cert} and {key}: {error}"
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"expected CA certificates in PEM, got {client_ca}: {error}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def auto_mtls_context(client_cert: str) -> tuple[ssl.SSLContext, str]:
    """A context that accepts only the owner of `client_cert` (PEM), with a new certificate.

    Also returns that certificate as in the handshake line: DER in base64 without padding. Blocks
    for some milliseconds. Raises ModuleNotFoundError without the package cryptography, and
    ValueError when `client_cert` is not a certificate.
    """
    certificate, pem, password = _create_certificate()
    context = _http2_context()
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=client_cert)
    except ssl.SSLError as error:
        raise ValueError(
            f"PLUGIN_CLIENT_CERT must be a certificate in PEM, got {client_cert[:60]!r}: {error}"
        ) from error
    # ssl loads a key only from a file: the key in it is encrypted, and it is removed at once
    handle, path = tempfile.mkstemp(prefix="plugin")
    try:
        with open(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
    return context, base64.b64encode(certificate).decode().rstrip("=")


def _http2_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


def _create_certificate() -> tuple[bytes, bytes, str]:
    """The certificate in DER, the certificate and the encrypted key in PEM, the key's password."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "HashiCorp"),
            x509.NameAttribute(NameOID.COMMON_NAME, "localhost"),
        ]
    )
    start = datetime.now(UTC) - _CLOCK_SKEW
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_agreement=True,
        key_cert_sign=True,
        content_commitment=False,
        data_encipherment=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(key, hashes.SHA512())
    )
    password = secrets.token_hex(16)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + private
    return certificate.public_bytes(serialization.Encoding.DER), pem, password
