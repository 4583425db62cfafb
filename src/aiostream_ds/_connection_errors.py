"""Why a server cannot be reached, in words: DNS, refused, no answer, TLS."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping

from aiostream_ds.errors import ConfigError, PluginError, UpstreamError

__all__ = ["address", "connection_error"]

_UNKNOWN_AUTHORITY = (
    "its certificate is signed by an unknown authority; caCertificate must be the certificate of"
    " that authority"
)

_CERTIFICATE_ERRORS: Mapping[int, tuple[type[PluginError], str]] = {
    9: (UpstreamError, "its certificate is not valid yet; compare the clocks"),
    10: (UpstreamError, "its certificate has expired; the server needs a new one"),
    18: (ConfigError, "its certificate is self-signed; set caCertificate to it to trust it"),
    19: (ConfigError, _UNKNOWN_AUTHORITY),
    20: (ConfigError, _UNKNOWN_AUTHORITY),
    21: (ConfigError, _UNKNOWN_AUTHORITY),
    23: (UpstreamError, "its certificate has been revoked; the server needs a new one"),
}
"""By OpenSSL's number. A server gets a new certificate without a change of the settings."""

_INNER_ERRORS = ("certificate_error", "os_error")
"""Attributes of aiohttp's errors: the error of ssl or the system."""

_NAME_ERRORS = frozenset({62, 64})
"""OpenSSL's numbers for a certificate of another host name or address."""

_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"}
)
_CLIENT_REFUSED = re.compile("ALERT_(UNKNOWN_CA|CERTIFICATE|.*_CERTIFICATE)|CERTIFICATE_REQUIRED")

_SYSTEM_ERRORS: Mapping[int, str] = {
    errno.ECONNREFUSED: "refuses the connection; is it running, and is the port right?",
    errno.ECONNRESET: "has closed the connection",
    errno.ECONNABORTED: "has closed the connection",
    errno.EPIPE: "has closed the connection",
    errno.ENETUNREACH: "cannot be reached: there is no route to its network",
    errno.EHOSTUNREACH: "cannot be reached: there is no route to the host",
    errno.ENETDOWN: "cannot be reached: the network is down",
    errno.EHOSTDOWN: "cannot be reached: the host is down",
}
_ERRNO = re.compile(r"\[Errno (\d+)\]")

_SILENT = (
    "does not answer in time; a firewall may be between, or the port may be that of another"
    " protocol, or with TLS where tls is off"
)


def address(host: str, port: int | None = None) -> str:
    """A host and a port as URLs have them: `host:1883`, `[::1]:1883`."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def connection_error(error: BaseException, host: str, port: int | None, what: str) -> PluginError:
    """The error for viewers and Save & test, for an exception of a client that connects.

    `what` names the server, as "the MQTT broker". A `ConfigError` if an admin must change the
    settings, else an `UpstreamError`, after which the connection is tried again. A `PluginError` is
    returned as it is. The causes of an exception are read, too: clients wrap those of asyncio.
    """
    if isinstance(error, PluginError):
        return error
    server = f"{what} {address(host, port)}"
    for each in _causes(error):
        found = _explained(each, server, host)
        if found is not None:
            found.__cause__ = error
            return found
    text = str(error) or type(error).__name__
    unknown = UpstreamError(f"{server}: {text}")
    unknown.__cause__ = error
    return unknown


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was made of."""
    unvisited, seen = [error], set()
    while unvisited:
        each = unvisited.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            unvisited.extend(each.exceptions)
        for name in (*_INNER_ERRORS, "__cause__", "__context__"):
            found = getattr(each, name, None)
            if isinstance(found, BaseException):
                unvisited.append(found)


def _explained(error: BaseException, server: str, host: str) -> PluginError | None:
    """The error for an exception of asyncio or the system; None for any other."""
    if any(hasattr(error, name) for name in _INNER_ERRORS):
        return None  # of a class that derives from these, without their attributes
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(error, server)
    if isinstance(error, ssl.SSLError):
        return _tls_error(error, server)
    if isinstance(error, socket.gaierror):
        return UpstreamError(f"{server}: the host name {host!r} is not found by DNS")
    if isinstance(error, TimeoutError):
        return UpstreamError(f"{server} {_SILENT}")
    if isinstance(error, UnicodeError):
        return ConfigError(f"host must be a host name or an address, got {host!r}")
    if isinstance(error, EOFError):
        return UpstreamError(f"{server} has closed the connection")
    if isinstance(error, OSError):
        number = error.errno or _errno_in_text(error)
        if number in _SYSTEM_ERRORS:
            return UpstreamError(f"{server} {_SYSTEM_ERRORS[number]}")
        if isinstance(error, ConnectionError):
            return UpstreamError(f"{server} has closed the connection")
        if type(error) is OSError and number:
            return UpstreamError(f"{server}: {error.strerror or error}")
    return None


def _errno_in_text(error: OSError) -> int:
    """The first number in the text, which asyncio makes of those of several addresses; else 0."""
    found = _ERRNO.search(str(error))
    return int(found[1]) if found else 0


def _certificate_error(error: ssl.SSLCertVerificationError, server: str) -> PluginError:
    number = error.verify_code
    if number in _NAME_ERRORS:
        return ConfigError(
            f"{server}: {error.verify_message.rstrip('.')}; use the host of the certificate, or set"
            " serverName to it"
        )
    kind, text = _CERTIFICATE_ERRORS.get(number, (ConfigError, ""))
    return kind(f"{server}: {text or f'its certificate is refused: {error.verify_message}'}")


def _tls_error(error: ssl.SSLError, server: str) -> PluginError:
    reason = error.reason or ""
    if reason in _NO_TLS:
        return ConfigError(f"{server} does not use TLS on this port; set tls to false, or the port")
    if _CLIENT_REFUSED.search(reason):
        return ConfigError(
            f"{server} refuses the client's certificate"
            f" ({reason.replace('_', ' ').lower()}); set clientCertificate and clientKey"
        )
    if "ALERT_HANDSHAKE_FAILURE" in reason:
        return ConfigError(
            f"{server} refuses the handshake of TLS; it may need a clientCertificate, or have no"
            " common version or cipher"
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return UpstreamError(f"{server} has closed the connection during the handshake of TLS")
    return UpstreamError(
        f"{server}: TLS failed: {(reason or str(error)).replace('_', ' ').lower()}"
    )
