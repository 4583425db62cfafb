"""AutoMTLS: the certificate of this process, and TLS that trusts exactly one host.

Used when a host sets PLUGIN_CLIENT_CERT; Grafana itself does not. `ssl` and the optional package
`cryptography` are imported here, and only then. Imports nothing of the project.
"""

import base64
import os
import secrets
import tempfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["server_context"]

_VALIDITY = timedelta(hours=262_980)  # go-plugin's thirty years; the key dies with the process
_CLOCK_SKEW = timedelta(seconds=30)


def server_context(client_cert: str) -> tuple["ssl.SSLContext", str]:
    """TLS for a server that only the owner of `client_cert` (PEM) may call.

    Also returns the server's own certificate as the handshake line carries it: DER in base64
    without padding. Blocks for some milliseconds. Raises ModuleNotFoundError without the package
    cryptography and ValueError when `client_cert` is no certificate.
    """
    import ssl

    certificate, pem, password = _make_certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cadata=client_cert)
    except ssl.SSLError as error:
        raise ValueError(f"PLUGIN_CLIENT_CERT is no certificate in PEM: {error}") from error
    # ssl loads a key from a file only: the file holds it encrypted, for a moment
    handle, path = tempfile.mkstemp(prefix="plugin")
    try:
        with open(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
    return context, base64.b64encode(certificate).decode().rstrip("=")


def _make_certificate() -> tuple[bytes, bytes, str]:
    """The certificate in DER, certificate and encrypted key in PEM, the key's password."""
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
