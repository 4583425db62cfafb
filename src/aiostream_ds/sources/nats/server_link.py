"""One connection to the servers, which all streams of a data source share.

It is opened when it is needed, and closed when nothing has used it for a while. Subscriptions and
requests of all streams go over it. When it is lost, they get an UpstreamError; the first stream
that is retried opens the next one.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

import anyio

from aiostream_ds._channels.policy import Buffer
from aiostream_ds._connection_errors import connection_error
from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds._nats.nats_errors import NatsErrors
from aiostream_ds._nats.nats_protocol import NatsMessage
from aiostream_ds._nats.nats_servers import NatsServer, known_servers
from aiostream_ds.errors import BadQuery, ConfigError, PluginError, UpstreamError, copy_error
from aiostream_ds.sources.gaps import now_ms
from aiostream_ds.sources.nats.connection_settings import NatsAccess
from aiostream_ds.upstream.message_queue import MessageQueue

__all__ = ["LackingRight", "ServerLink", "MessageSink", "ask", "flush"]

CONNECT_TIMEOUT = 5.0
"""Seconds in which a server must accept a connection and the login."""

ANSWER_TIMEOUT = 5.0
"""Seconds in which a server must confirm a subscription, or answer a request."""

LINGER = 10.0
"""Seconds for which the connection stays open after its last use."""

QUEUE = 10_000
"""Messages that wait for one stream; beyond it the oldest are dropped, and counted."""

QUEUE_BYTES = 16 << 20
"""Bytes of their payloads, with the same rule."""


_PUBLISH = ' for Publish to "'
"""In the text of an error: what is refused is not a subscription."""


class LackingRight(ConfigError):
    """The user may not publish to a subject, or subscribe to it."""


def _explained(server: NatsServer, error: OSError) -> PluginError:
    return connection_error(error, server.host, server.port, "NATS")


class MessageSink(Protocol):
    """What gets the messages of a subscription."""

    def put(self, message: NatsMessage, /) -> object:
        """A message has arrived."""

    def fail(self, error: Exception, /) -> None:
        """The subscription has ended."""


class _Subscription:
    __slots__ = ("connection", "error", "is_confirmed", "requests", "sink", "subject")

    def __init__(
        self,
        connection: NatsConnection,
        subject: str,
        requests: str,
        sink: MessageSink | None = None,
    ) -> None:
        self.connection = connection
        self.subject = subject
        self.requests = requests
        self.sink = sink
        self.error: Exception | None = None
        """Why the server has refused it."""
        self.is_confirmed = False
        """The server has it: an error that names no subject is not about it."""

    def fail(self, error: Exception) -> None:
        self.error = error
        if self.sink is not None:
            self.sink.fail(error)


class ServerLink:
    """The connection of a data source. Used in one event loop.

    Attributes:
        received_until: until when the last lost connection is known to have delivered everything
            (Unix ms).
    """

    def __init__(self, access: NatsAccess) -> None:
        self._access = access
        hint = f"it refuses {access.shown}; set user and password, token or credentials"
        self._errors = NatsErrors(UpstreamError, LackingRight, hint, _explained)
        self._lock = anyio.Lock()
        self._connection: NatsConnection | None = None
        self._error: PluginError | None = None
        self._attempts = self._users = 0
        self._unused_since = 0.0
        self._numbers = itertools.count(1)
        self._subscriptions: dict[int, _Subscription] = {}
        self.received_until = now_ms()

    # -- the connection ------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[NatsConnection]:
        """The connection, which is opened if there is none.

        Raises:
            PluginError: no server can be reached, or the login is refused.
        """
        self._users += 1
        try:
            yield await self._opened()
        finally:
            self._users -= 1
            loop = asyncio.get_running_loop()
            self._unused_since = loop.time()
            if not self._users and self._connection is not None:
                loop.call_later(LINGER, self._close_if_unused)

    async def close(self) -> None:
        """Close the connection; what uses it gets an error."""
        if self._connection is not None:
            self._connection.close("the data source is closing")
            self._connection = None
            await asyncio.sleep(0)  # until `connection_lost` was called

    def _close_if_unused(self) -> None:
        is_unused = asyncio.get_running_loop().time() - self._unused_since >= LINGER * 0.99
        if self._connection is not None and not self._users and is_unused:
            self._connection.close("nothing uses it")
            self._connection = None

    async def _opened(self) -> NatsConnection:
        """The open connection. Those who wait for an attempt that fails get its error."""
        attempts = self._attempts
        async with self._lock:
            if self._connection is not None and not self._connection.lost.done():
                return self._connection
            if self._attempts > attempts and self._error is not None:
                raise copy_error(self._error)
            try:
                connection = await self._connect()
            except PluginError as error:
                self._error = error
                self._attempts += 1
                raise
            self._connection = connection
            return connection

    @asynccontextmanager
    async def dial(self) -> AsyncGenerator[NatsConnection]:
        """A connection of one owner, for Save & test. Raises PluginError."""
        connection = await self._connect()
        try:
            yield connection
        finally:
            connection.close("it is not needed")
            await asyncio.sleep(0)

    async def _connect(self) -> NatsConnection:
        """Connect to the first server that accepts. Raises the most useful of the errors."""
        pool, last = self._access.servers, self._connection
        if last is not None:
            pool = known_servers(pool, last.server, last.info)
        errors: list[PluginError] = []
        for server in random.sample(pool, len(pool)):
            connection = self._make(server)
            try:
                with anyio.fail_after(CONNECT_TIMEOUT):
                    await connection.open()
            except TimeoutError:
                errors.append(UpstreamError(connection.timeout_reason))
            except PluginError as error:
                errors.append(error)
            else:
                return connection
        if all(each.permanent for each in errors):  # else one may accept when it is there again
            raise errors[0]
        if len(errors) == 1:
            raise errors[0]
        raise UpstreamError("; ".join(each.message for each in errors))

    def _make(self, server: NatsServer) -> NatsConnection:
        def refused(subject: str, error: Exception) -> None:
            self._refused(made, subject, error)

        made = NatsConnection(server, self._access, self._errors, refused)
        made.lost.add_done_callback(lambda _: self._lost(made))
        return made

    def _lost(self, connection: NatsConnection) -> None:
        if connection is self._connection:
            self.received_until = now_ms() - round(connection.silence * 1_000)
        error = UpstreamError(f"NATS {connection.server}: {connection.lost.result()}")
        for each in tuple(self._subscriptions.values()):
            if each.connection is connection:
                each.fail(error)

    def _refused(self, connection: NatsConnection, subject: str, error: Exception) -> None:
        """The server has refused a subject, or something when there is no subject."""
        is_publish = _PUBLISH in str(error)
        for each in tuple(self._subscriptions.values()):
            if each.connection is not connection:
                continue
            found = each.requests if is_publish else each.subject
            if subject == found or not (subject or each.is_confirmed):
                each.fail(error)

    # -- subscriptions -------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self, subject: str) -> AsyncGenerator[MessageQueue[NatsMessage]]:
        """The messages of a subject from now on. It may have wildcards.

        Raises:
            PluginError: there is no connection, or the user may not subscribe; also raised by the
                queue.
        """
        buffer = Buffer(rows=QUEUE, bytes=QUEUE_BYTES)
        queue: MessageQueue[NatsMessage] = MessageQueue(buffer, subject, _payload_bytes)
        async with self.connection() as connection, self.subscribe(connection, subject, queue):
            yield queue

    @asynccontextmanager
    async def subscribe(
        self, connection: NatsConnection, subject: str, sink: MessageSink, requests: str = ""
    ) -> AsyncGenerator[None]:
        """Give the messages of a subject to `sink`, until the context ends.

        `requests` is the subject to which its reader publishes: it fails if the user may not.

        Raises:
            PluginError: the connection is lost, or the user may not subscribe.
        """
        number = next(self._numbers)
        subscription = _Subscription(connection, subject, requests, sink)
        self._subscriptions[number] = subscription
        try:
            connection.subscribe(number, subject, sink.put)
            await flush(connection)
            if subscription.error is not None:
                raise copy_error(subscription.error)
            subscription.is_confirmed = True
            yield
        finally:
            del self._subscriptions[number]
            if not connection.lost.done():
                connection.unsubscribe(number)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish, and wait until the server has processed it.

        Raises:
            PluginError: there is no connection, the message is too large, or the user may not.
        """
        async with self.connection() as connection:
            most = connection.max_payload
            if len(payload) > most:  # the server would close the connection
                raise BadQuery(f"payload must have at most {most:,} bytes, got {len(payload):,}")
            number = next(self._numbers)
            publication = self._subscriptions[number] = _Subscription(connection, "", subject)
            try:
                await connection.publish(subject, payload, {})
                await flush(connection)
            finally:
                del self._subscriptions[number]
            if publication.error is not None:
                raise copy_error(publication.error)


async def flush(connection: NatsConnection) -> None:
    """Wait until the server has processed what was sent. Raises PluginError."""
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            await connection.flush()
    except TimeoutError:
        raise _late(connection) from None


async def ask(connection: NatsConnection, subject: str, payload: bytes = b"") -> NatsMessage:
    """The answer to a request.

    Raises:
        LackingRight: the user may not publish to the subject.
        PluginError: the connection is lost, or there is no answer in time.
    """
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            return (await connection.request(subject, payload))[0]
    except TimeoutError:
        raise _late(connection) from None


def _late(connection: NatsConnection) -> UpstreamError:
    return UpstreamError(f"NATS {connection.server} does not answer in {ANSWER_TIMEOUT:g} s")


def _payload_bytes(message: NatsMessage) -> int:
    return len(message.payload)
