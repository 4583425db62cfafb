"""Why a request has failed, in words: the errors of aiohttp and of SOCKS proxies."""

import aiohttp

from aiostream_ds._connection_errors import connection_error
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError
from aiostream_ds.sources.http_client.proxies import Proxy
from aiostream_ds.sources.http_client.templates import UrlTemplate

__all__ = ["CLIENT_ERRORS", "failure"]

# the errors of requests that are failures of the network or the server, without SOCKS
CLIENT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, EOFError)


def failure(
    error: Exception, url: UrlTemplate, proxy: Proxy | None, timeout: float, idle: float = 0.0
) -> PluginError:
    """The error for viewers. It never has the URL of the request, which may hold a token.

    Args:
        timeout: the seconds in which an answer had to begin.
        idle: those in which bytes of it had to come.
    """
    server = url.origin
    if isinstance(error, PluginError):
        return error
    if proxy is not None and (found := _proxy_failure(error, proxy, server)) is not None:
        return found
    if isinstance(error, aiohttp.SocketTimeoutError):
        return UpstreamError(f"{server} has sent nothing for {idle:g} s")
    if isinstance(error, TimeoutError):
        return UpstreamError(
            f"{server} does not answer within {timeout:g} s: it may be overloaded, a firewall may"
            " be between, or the port may be that of another protocol"
        )
    if _is_disconnected(error):
        reason = "ask for a clientCertificate" if url.is_secure else f"expect {url.secure_scheme}"
        return UpstreamError(
            f"{server} has closed the connection without an answer; it may {reason}"
        )
    if isinstance(error, aiohttp.ClientPayloadError):
        if "decod" in str(error).lower():
            return UpstreamError(f"{server}: the answer is not compressed as its head states")
        return UpstreamError(f"{server}: the connection was lost during the answer")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return ConfigError(
            f"{server} answers {error.status} without a WebSocket ({error.message.lower()}): the"
            " path may be another one"
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamError(f"{server} answers with something else than HTTP/1.1")
    if isinstance(error, aiohttp.InvalidURL):
        return ConfigError(f"url must be a URL, got one of {server} that cannot be requested")
    found = connection_error(error, url.host, url.port, "the server")
    text = found.message.replace("set tls to false", f"use {url.plain_scheme}:// in url")
    return type(found)(text)


def _is_disconnected(error: Exception) -> bool:
    """Whether the server has closed an open connection: a refused client certificate of TLS 1.3 is
    seen as a reset, too."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return True
    is_connected = not isinstance(error, aiohttp.ClientConnectorError)
    return isinstance(error, aiohttp.ClientOSError | ConnectionResetError) and is_connected


def _proxy_failure(error: Exception, proxy: Proxy, server: str) -> PluginError | None:
    """The error of the way to the proxy, or of the proxy itself; None for one of the server."""
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return type(found := connection_error(error, proxy.host, proxy.port, "the proxy"))(
            found.message
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return ConfigError(
                f"the proxy {proxy} answers 407 Proxy Authentication Required: set proxyUser and"
                " proxyPassword"
            )
        return UpstreamError(f"the proxy {proxy} answers {error.status} for {server}")
    if type(error).__module__.startswith(("aiohttp_socks", "python_socks")):
        if type(error).__name__ == "ProxyConnectionError":
            return UpstreamError(f"the proxy {proxy} cannot be reached: {_cause(error)}")
        if type(error).__name__ == "ProxyTimeoutError":
            return UpstreamError(f"the proxy {proxy} does not answer in time")
        text = str(error).rstrip(".")
        if any(word in text.lower() for word in ("auth", "username", "password")):
            return ConfigError(f"the proxy {proxy} refuses the credentials: {text}")
        return UpstreamError(f"the proxy {proxy} does not connect to {server}: {text}")
    return None


def _cause(error: BaseException) -> str:
    """The system's text for the failure of a connection."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror and inner.__cause__ is None:
            return inner.strerror
        inner = inner.__cause__
    return str(error)
