"""TLS of a connection to a server: the settings, and the `ssl.SSLContext` that they make."""

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret, Settings, secret, section

__all__ = ["TlsSettings", "ssl_context"]

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.S)
_MULTILINE = {"multiline": True}
_SECTION = section("TLS certificates")
_LINE = 64  # characters of base64 in a line of PEM


class TlsSettings(Settings):
    """The certificates of a connection with TLS."""

    ca_certificate: Annotated[str, Meta(extra_json_schema=_MULTILINE), _SECTION] = ""
    """Certificates in PEM of the authorities that may sign the server's certificate. Empty: those
    of the system."""
    client_certificate: Annotated[str, Meta(extra_json_schema=_MULTILINE), _SECTION] = ""
    """Certificate in PEM that the server asks of its clients, with its chain."""
    client_key: Annotated[Secret, Meta(extra_json_schema=_MULTILINE), _SECTION] = secret()
    """Private key in PEM of the client certificate, without a password."""
    server_name: Annotated[str, _SECTION] = ""
    """Name that the server's certificate must have. Empty: the host."""
    skip_verify: Annotated[bool, _SECTION] = False
    """Accept any certificate: anybody on the network can then read and change what is sent."""


class _Context(ssl.SSLContext):
    """A context that asks for another server name than the client library."""

    server_name = ""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Called by asyncio for each connection."""
        if self.server_name:
            options["server_hostname"] = self.server_name
        return super().wrap_bio(*args, **options)


def ssl_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context for connections with these settings, with any asyncio client.

    Blocks for some milliseconds, to read the certificates of the system.

    Raises:
        ConfigError: a certificate or key is not PEM, or they do not belong together.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.server_name = settings.server_name.strip()
    if settings.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.ca_certificate.strip():
        _load_authorities(context, settings.ca_certificate)
    else:
        context.load_default_certs()
    _load_client(context, settings)
    return context


def _load_authorities(context: ssl.SSLContext, text: str) -> None:
    pem = _blocks("caCertificate", text, "CERTIFICATE")
    try:
        context.load_verify_locations(cadata=pem)
    except ssl.SSLError as error:
        raise ConfigError(f"caCertificate must be certificates in PEM: {_reason(error)}") from None


def _load_client(context: ssl.SSLContext, settings: TlsSettings) -> None:
    certificate, key = settings.client_certificate.strip(), settings.client_key.reveal().strip()
    if not certificate and not key:
        return
    if not certificate or not key:
        given, missing = ("clientCertificate", "clientKey")[:: 1 if certificate else -1]
        raise ConfigError(
            f"expected clientCertificate and clientKey, got {given} without {missing}"
        )
    pem = _blocks("clientCertificate", certificate, "CERTIFICATE")
    pem += _blocks("clientKey", key, "PRIVATE KEY")
    try:
        with _private_file(pem.encode()) as path:
            # the password of a key that is not encrypted is not used; without one OpenSSL would
            # ask for it on the terminal
            context.load_cert_chain(path, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                "clientKey must be the key of clientCertificate, got that of another certificate"
            ) from None
        raise ConfigError(
            f"clientCertificate and clientKey must be a certificate and a key in PEM:"
            f" {_reason(error)}"
        ) from None


def _blocks(name: str, text: str, kind: str) -> str:
    """The blocks of a PEM text whose label ends with `kind`.

    Line breaks are those of PEM again: an input of one line removes them, and a provisioning file
    may have `\\n` for them.
    """
    found = ""
    for label, body in _PEM.findall(text.replace("\\n", "\n")):
        if "ENCRYPTED" in label or "ENCRYPTED" in body:
            raise ConfigError(f"{name} must be a key without a password, got an encrypted one")
        if label.endswith(kind):
            data = "".join(body.split())
            lines = [data[start : start + _LINE] for start in range(0, len(data), _LINE)]
            found += "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
    if not found:
        raise ConfigError(
            f"{name} must have a block -----BEGIN {kind}----- … -----END {kind}-----, got"
            f" {len(text)} characters without one"
        )
    return found


@contextlib.contextmanager
def _private_file(data: bytes) -> Iterator[str]:
    """The path of a file that nobody else can read. `ssl` loads keys only from files."""
    if hasattr(os, "memfd_create"):  # in memory
        handle = os.memfd_create("key")
        path, is_stored = f"/proc/self/fd/{handle}", False
    else:
        handle, path = tempfile.mkstemp(prefix="plugin")
        is_stored = True
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            yield path
    finally:
        if is_stored:
            os.unlink(path)


def _reason(error: ssl.SSLError) -> str:
    """The reason of an error of OpenSSL, without the line of its source code."""
    return (error.reason or str(error)).replace("_", " ").lower()
