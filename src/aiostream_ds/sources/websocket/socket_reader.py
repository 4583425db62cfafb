"""Reads the messages of one WebSocket, and notices when its server is gone."""

from typing import Any, cast

import aiohttp
import anyio

from aiostream_ds.errors import PluginError, UpstreamError
from aiostream_ds.sources.http_client.client import HttpClient
from aiostream_ds.sources.websocket.close_codes import close_error
from aiostream_ds.sources.websocket.websocket_settings import WebSocketSettings

__all__ = ["MESSAGE_BYTES", "SocketReader"]

MESSAGE_BYTES = 64 << 20
"""Maximum bytes of a message: a larger one ends the connection. One above the setting `max_message`
is read and left out."""


class SocketReader:
    """The messages of an open WebSocket, as bytes, whether they came as text or binary."""

    def __init__(
        self,
        client: HttpClient,
        websocket: "aiohttp.ClientWebSocketResponse[Any]",
        settings: WebSocketSettings,
    ) -> None:
        self._client = client
        self._websocket = websocket
        self._settings = settings
        self._had_messages = False
        self._idle = settings.idle_timeout
        self._keep_alive = settings.keep_alive
        now = anyio.current_time()
        self._last_message = self._last_sent = now

    async def send(self, message: str | None) -> None:
        """Send a text; None: nothing. Raises UpstreamError: the connection is lost."""
        if message is None:
            return
        with self._client.translated():
            await self._websocket.send_str(message)

    async def next(self) -> bytes:
        """The next message. Raises PluginError: the connection was closed or lost."""
        while True:
            try:
                message = await self._websocket.receive(self._timeout())
            except TimeoutError:
                await self._overdue()
                continue
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._had_messages = True
                if self._idle or self._keep_alive:
                    self._last_message = anyio.current_time()
                    await self._send_keep_alive()
                return cast("bytes", message.data)
            raise self._closed(message)

    def _timeout(self) -> float | None:
        """Seconds until something is due; None: nothing ever is."""
        if not self._idle and not self._keep_alive:
            return None
        due = []
        if self._idle:
            due.append(self._last_message + self._idle)
        if self._keep_alive and self._settings.ping_interval:
            due.append(self._last_sent + self._settings.ping_interval)
        return max(0.001, min(due) - anyio.current_time()) if due else None

    async def _overdue(self) -> None:
        if self._idle and anyio.current_time() >= self._last_message + self._idle:
            raise UpstreamError(f"{self._client.server} has sent nothing for {self._idle:g} s")
        await self._send_keep_alive()

    async def _send_keep_alive(self) -> None:
        interval = self._settings.ping_interval
        now = anyio.current_time()
        if self._keep_alive and interval and now >= self._last_sent + interval:
            self._last_sent = now
            await self.send(self._keep_alive)

    def _closed(self, message: Any) -> PluginError:
        server = self._client.server
        error = message.data if message.type is aiohttp.WSMsgType.ERROR else None
        if error is None:
            error = self._websocket.exception()
        if isinstance(error, aiohttp.ServerTimeoutError):
            seconds = self._settings.ping_interval / 2
            return UpstreamError(f"{server} has not answered a ping for {seconds:g} s")
        if isinstance(error, aiohttp.WebSocketError):
            if error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                return UpstreamError(
                    f"{server} has sent a message of more than {MESSAGE_BYTES:,} bytes"
                )
            return UpstreamError(f"{server} has sent an invalid frame: {error}")
        reason = message.extra if isinstance(message.extra, str) else ""
        code = self._websocket.close_code
        return close_error(code, reason, server, had_messages=self._had_messages)
