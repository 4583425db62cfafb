"""The source `websocket`: messages of a WebSocket.

Channels share one connection if a value in the messages distinguishes them; else each has its own.
What a server sends while there is no connection is lost: WebSockets cannot resume.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import anyio
from msgspec import Meta

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.models import Health, User
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.decoding import MessageDecoder, with_labels
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.http_client.channel_runs import ChannelRuns
from aiostream_ds.sources.http_client.client import HttpClient
from aiostream_ds.sources.http_client.recent_values import RecentValues
from aiostream_ds.sources.websocket.shared_socket import ReceivedMessage, SharedSocket, SocketKey
from aiostream_ds.sources.websocket.socket_reader import MESSAGE_BYTES, SocketReader
from aiostream_ds.sources.websocket.websocket_settings import (
    Subscriptions,
    WebSocketSettings,
    login_secrets,
)

__all__ = ["WebSocket", "WebSocketSettings"]

HEALTH_WAIT = 3.0
"""Seconds in which Save & test waits for a message."""

Row = dict[str, Any]

Parameters = Annotated[
    str | None,
    Meta(
        description="The values of the placeholders of url and subscribe: VALUE for one,"
        " NAME=VALUE&… for several; without placeholders the key of the messages"
    ),
]


class WebSocket(DataSource[WebSocketSettings]):
    """Messages of a WebSocket.

    Query type `messages`, field `parameters`: the values of the placeholders of the URL and of the
    message that subscribes.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "messages": {"event_time": "if messages have one"}
    }

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Check the settings and open the client; connections are made by streams."""
        settings = self.settings
        self._subscriptions = Subscriptions(settings)
        self._login_parts = login_secrets(settings.login)
        self._runs = ChannelRuns(settings, settings.sequence)
        self._parameters = RecentValues()
        self._shared: SharedSocket | None = None
        async with HttpClient(settings, self._subscriptions.url) as self._client:
            keys = self._subscriptions.keys
            if keys is None:
                yield
                return
            shared = SharedSocket(
                lambda: self._open({}),
                self._subscriptions,
                keys,
                self._runs.errors,
                settings.max_message,
                settings.timeout,
                self._client.server,
            )
            async with shared as self._shared:
                yield

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings)

    # a value that does not fit its column is left out: one bad message must not end the stream
    @stream("messages/{parameters:any?}", schema=SchemaPolicy(conflict="null"))
    async def messages(self, parameters: Parameters = None) -> Rows[list[Row] | Status]:
        """The messages of one channel, as they arrive.

        The connection is opened again when it is lost. What was sent in between is missing.
        """
        address = parameters or ""
        with self._runs.begin(parameters, address) as run:
            if (changed := run.waiting()) is not None:
                yield changed
                await run.wait()
            async with self._channel(parameters) as next_message:
                if (changed := run.connected()) is not None:
                    yield changed
                while True:
                    payload, received, _ = await next_message()
                    rows = run.decoder.rows(payload, received=received, address=address)
                    if rows:
                        yield rows
                    if (changed := run.received(rows)) is not None:
                        yield changed

    @messages.subscribe
    async def may_read(self, user: User | None, parameters: str | None = None) -> None:
        """Refuse parameters that do not fit the placeholders."""
        self._check(parameters)

    @messages.suggest("parameters")
    async def suggest_parameters(self, typed: str) -> list[str]:
        """The parameters of the channels that ran last, the keys of messages that were received,
        and the names of the placeholders."""
        names = self._subscriptions.names
        further = ["&".join(f"{name}=" for name in names)] if len(names) > 1 else []
        if self._shared is not None and len(names) < 2 and not self.settings.key:
            further += self._shared.keys_seen.containing(typed)
        return self._parameters.containing(typed, *further)

    async def health(self) -> Health:
        """Connect, log in and subscribe, and wait for a message; fails if the server refuses.

        With placeholders it needs `test_parameters`; without them only the connection is tried.
        """
        parameters = self.settings.test_parameters or None
        if self._subscriptions.names and parameters is None:
            text = await self._try_connection()
        else:
            text = await self._try_channel(parameters)
        able = stream_capabilities(type(self))["messages"].text()
        details = {"parameters": list(self._subscriptions.names), **self._runs.details()}
        if self._shared is not None:
            counts = self._shared.statistics()
            details |= {
                "channels": counts.keys,
                "connects": counts.connects,
                "messages": counts.messages,
                "messages_of_no_channel": counts.unmatched,
                "messages_without_key": self._shared.without_key,
                "keys_seen": len(self._shared.keys_seen),
            }
        return health_report([text], self._runs.findings(), [f"messages {able}"], details)

    # -- connections ---------------------------------------------------------------------------

    def _check(self, parameters: str | None) -> SocketKey:
        """What a channel follows. Raises BadQuery."""
        subscriptions = self._subscriptions
        if subscriptions.keys is not None and not subscriptions.names:
            return SocketKey(parameters or "", {})
        values = subscriptions.values(parameters)
        subscriptions.url.fill(values)
        subscriptions.message(values)
        key = "" if subscriptions.keys is None else subscriptions.key(values, parameters)
        return SocketKey(key, values)

    @asynccontextmanager
    async def _channel(
        self, parameters: str | None
    ) -> AsyncGenerator[Callable[[], Awaitable[ReceivedMessage]]]:
        """Subscribe to a channel: a function for its next message, with the time of arrival."""
        key = self._check(parameters)
        if parameters:
            self._parameters.add(parameters)
        if self._shared is not None:
            async with self._shared.follow(key) as messages:
                yield messages.__anext__
            return
        async with self._open(key.values) as reader:
            await reader.send(self._subscriptions.message(key.values))

            async def next_message() -> ReceivedMessage:
                payload = await reader.next()
                return ReceivedMessage(payload, time.time_ns() // 1_000_000, len(payload))

            yield next_message

    @asynccontextmanager
    async def _open(self, values: Mapping[str, str]) -> AsyncGenerator[SocketReader]:
        """Connect and log in."""
        settings = self.settings
        async with self._client.open_websocket(
            self._subscriptions.url.fill(values),
            protocols=settings.subprotocols,
            heartbeat=settings.ping_interval or None,
            max_message=MESSAGE_BYTES,
        ) as websocket:
            reader = SocketReader(self._client, websocket, settings)
            if settings.login:
                await reader.send(settings.login.reveal())
            yield reader

    # -- Save & test ---------------------------------------------------------------------------

    async def _try_channel(self, parameters: str | None) -> str:
        """Subscribe to a channel, and read until a message has a row."""
        decoder = MessageDecoder(self.settings)
        server = f"{self._client.server}{self._client.route}"
        async with self._channel(parameters) as next_message:
            with anyio.move_on_after(HEALTH_WAIT):
                while True:
                    payload, _, _ = await next_message()
                    if rows := decoder.rows(payload):
                        columns = ", ".join(name for name in rows[0] if name != "time")
                        return f"{server} sends messages; the first row has {columns}"
        text = f"{server} is connected, without a row in {HEALTH_WAIT:g} s"
        return "; ".join(filter(None, (text, decoder.errors.text())))

    async def _try_connection(self) -> str:
        """Connect without a subscription, if the URL is known."""
        if self._shared is not None:
            await self._shared.check()
        elif not self._subscriptions.url.names:
            async with self._open({}):
                pass
        else:
            await self._client.probe()
        server = f"{self._client.server}{self._client.route}"
        return f"{server} answers; set testParameters to try a channel"
