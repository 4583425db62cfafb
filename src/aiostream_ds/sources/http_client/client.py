"""The HTTP client of the sources `http` and `websocket`, over aiohttp.

It follows no redirect, keeps no cookies and reads no file for credentials: a request goes to the
server of the settings, or fails.
"""

import socket
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, cast

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from aiostream_ds._tls import TlsSettings, ssl_context
from aiostream_ds.sources.http_client.answers import answer_error
from aiostream_ds.sources.http_client.client_settings import HttpClientSettings, check_headers
from aiostream_ds.sources.http_client.credentials import Credentials
from aiostream_ds.sources.http_client.failures import CLIENT_ERRORS, failure
from aiostream_ds.sources.http_client.proxies import find_proxy
from aiostream_ds.sources.http_client.templates import UrlTemplate

__all__ = ["HttpClient", "HttpSettings"]

CHUNK = 1 << 18
"""Bytes that are buffered of an answer that is read too slowly."""

_SENTENCE = 4_096  # bytes of an error's body that are read
# attrs makes its __init__, which type checkers do not see
_CLOSE_TIMEOUT = cast("Any", aiohttp.ClientWSTimeout)(ws_close=1.0)
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class HttpSettings(TlsSettings, HttpClientSettings):
    """How a server is reached over HTTP and TLS."""


class HttpClient:
    """Requests to one server. Enter it with `async with`.

    Args:
        url: where requests go; others are refused.

    Raises:
        ConfigError: the settings contradict each other, or a certificate cannot be read.
    """

    def __init__(self, settings: HttpSettings, url: UrlTemplate) -> None:
        self._settings = settings
        self._url = url
        self._headers = check_headers(settings)
        self._credentials = Credentials(settings)
        self._proxy = find_proxy(settings, url.is_secure, url.host)
        self._errors: tuple[type[Exception], ...] = CLIENT_ERRORS
        self._session: aiohttp.ClientSession | None = None

    @property
    def server(self) -> str:
        """Scheme, host and port, for messages."""
        return self._url.origin

    @property
    def route(self) -> str:
        """The proxy on the way, for messages; "" without one."""
        return f" through the proxy {self._proxy}" if self._proxy else ""

    async def __aenter__(self) -> Self:
        tls: Any = True
        if self._url.is_secure:
            tls = await anyio.to_thread.run_sync(ssl_context, self._settings)
        self._session = aiohttp.ClientSession(
            connector=self._connector(tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "aiostream-ds"},
            timeout=aiohttp.ClientTimeout(total=None),
            middlewares=(self._refuse_other_answers,),
            read_bufsize=CHUNK,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
        idle: float | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request: the answer, of which the head has arrived. It is closed at the end.

        Args:
            idle: seconds without a byte of the body after which reading it raises.

        Raises:
            PluginError: there is no answer, or it is not 200.
        """
        with self.translated(idle or 0.0):
            with anyio.fail_after(self._settings.timeout):
                response = await self._entered.request(
                    method,
                    self._credentials.url(url),
                    headers=self._request_headers(headers),
                    data=body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=idle),
                    **self._options(),
                )
        try:
            yield response
        finally:
            response.close()

    @asynccontextmanager
    async def open_websocket(
        self,
        url: str,
        *,
        protocols: Sequence[str] = (),
        heartbeat: float | None = None,
        compress: int = 0,
        max_message: int = 0,
    ) -> AsyncGenerator["aiohttp.ClientWebSocketResponse[Any]"]:
        """Open a WebSocket, which is closed at the end.

        Raises:
            PluginError: it cannot be opened.
        """
        with self.translated():
            with anyio.fail_after(self._settings.timeout):
                websocket = await self._entered.ws_connect(
                    self._credentials.url(url),
                    headers=self._request_headers(),
                    protocols=protocols,
                    heartbeat=heartbeat,
                    compress=compress,
                    max_msg_size=max_message,
                    decode_text=False,
                    timeout=_CLOSE_TIMEOUT,
                    **self._options(),
                )
        try:
            yield websocket
        finally:
            await websocket.close()

    async def probe(self) -> None:
        """Reach the server and present the credentials, without a stream: any answer will do.

        Raises:
            PluginError: there is no answer, or it refuses the credentials.
        """
        with self.translated(), anyio.fail_after(self._settings.timeout):
            response = await self._entered.get(  # some servers end the connection at HEAD
                self._credentials.url(self._url.base),
                headers=self._request_headers(),
                allow_redirects=False,
                middlewares=(),
                **self._options(),
            )
        response.close()
        if response.status in (401, 403, 407):
            raise answer_error(
                response.status, response.headers, "", self.server, self._credentials.exist
            )

    @contextmanager
    def translated(self, idle: float = 0.0) -> Iterator[None]:
        """Raise the client's errors as errors for the user.

        Args:
            idle: the seconds without a byte after which reading raises.
        """
        try:
            yield
        except self._errors as error:
            raise failure(error, self._url, self._proxy, self._settings.timeout, idle) from None

    @property
    def _entered(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("expected the client to be entered with `async with`")
        return self._session

    def _request_headers(self, headers: Mapping[str, str] = {}) -> dict[str, str]:
        replaced = {name.lower() for name in headers}
        found = {name: text for name, text in self._headers.items() if name.lower() not in replaced}
        found |= {**headers, **self._credentials.headers()}
        if self._proxy is not None and self._proxy.user and not self._url.is_secure:
            if not self._proxy.is_socks:  # without a tunnel the proxy reads the request itself
                found["Proxy-Authorization"] = self._proxy.authorization
        return found

    def _options(self) -> dict[str, Any]:
        """The arguments of each request that concern its connection."""
        options: dict[str, Any] = {}
        proxy = self._proxy
        if proxy is not None and not proxy.is_socks:
            options["proxy"] = URL(str(proxy))
            if proxy.user:
                options["proxy_headers"] = {"Proxy-Authorization": proxy.authorization}
        return options

    def _connector(self, tls: Any) -> aiohttp.TCPConnector:
        # each channel keeps its connection: a limit would make further ones wait for ever
        options: dict[str, Any] = {"limit": 0, "ssl": tls, "force_close": True}
        if self._proxy is not None and self._proxy.is_socks:
            from aiostream_ds.sources.http_client.socks import SOCKS_ERRORS, socks_connector

            self._errors = (*CLIENT_ERRORS, *SOCKS_ERRORS)
            return socks_connector(self._proxy, options)
        return aiohttp.TCPConnector(socket_factory=_keepalive_socket, **options)

    async def _refuse_other_answers(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status in (101, 200):
            return response
        text = b""
        try:
            with anyio.move_on_after(1.0):
                text = await response.content.read(_SENTENCE)
        except (aiohttp.ClientError, OSError):
            pass  # the status is known
        finally:
            response.close()
        raise answer_error(
            response.status,
            response.headers,
            text.decode("utf-8", "replace"),
            self.server,
            self._credentials.exist,
        )


def _keepalive_socket(address: Any) -> socket.socket:
    """A socket whose kernel notices after a minute that the other machine is gone."""
    family, kind, protocol, *_ = address
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # they have other names on macOS
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return found
