"""One connection that listens, shared by all channels of NOTIFY of a data source."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from typing import Any

import anyio
import asyncpg
from anyio.abc import TaskGroup

from aiostream_ds.errors import ConfigError, PluginError, UpstreamError
from aiostream_ds.sources.gaps import now_ms
from aiostream_ds.sources.postgres.database import CLIENT_ERRORS, Database, close, server_error
from aiostream_ds.sources.postgres.postgres_settings import PostgresSettings
from aiostream_ds.upstream import Upstream

__all__ = ["NotificationListener", "Wakeups", "check_channels"]

PING = 10.0
"""Seconds of silence after which the connection is checked: a lost network is silent, too."""

QUEUED = 10_000
"""Notifications that may wait to be read; with more the connection is opened again, with a gap."""

CHANNEL_BYTES = 63
"""Most bytes of the name of a channel in PostgreSQL."""

_REFUSED = 60.0
"""Seconds between two attempts to listen if the settings do not allow it."""

_RETRY = 1.0


def check_channels(settings: PostgresSettings) -> None:
    """Check the names of channels: the server cuts long ones, and nothing would be received.

    Raises:
        ConfigError: a name is empty, or too long.
    """
    notified = [(f"tables.{name}.notify", t.notify) for name, t in settings.tables.items()]
    for setting, channel in [*notified, *(("channels", each) for each in settings.channels)]:
        is_valid = len(channel.encode()) <= CHANNEL_BYTES and "\0" not in channel
        if not is_valid or (setting == "channels" and not channel):
            raise ConfigError(
                f"{setting}: a channel must have 1 to {CHANNEL_BYTES} bytes, got {channel!r}"
            )


class _Connection:
    """A connection that listens: asyncpg runs one statement at a time."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.lock = anyio.Lock()
        self._queue, self.notifications = anyio.create_memory_object_stream[tuple[str, str] | None](
            QUEUED
        )
        self.is_full = False
        """Whether notifications were lost: more were sent than this process could read."""
        connection.add_termination_listener(self._lost)

    def received(self, _: Any, process: int, channel: str, payload: str) -> None:
        try:
            self._queue.send_nowait((channel, payload))
        except anyio.WouldBlock:
            self.is_full = True

    def _lost(self, _: Any) -> None:
        with suppress(anyio.WouldBlock):  # then `messages` ends anyway
            self._queue.send_nowait(None)

    async def aclose(self) -> None:
        self.connection.remove_termination_listener(self._lost)
        try:
            await close(self.connection)
        finally:
            self._queue.close()
            self.notifications.close()


class NotificationListener(Upstream[str, str]):
    """The payloads of channels of NOTIFY, from the moment that they are followed."""

    def __init__(self, database: Database, settings: PostgresSettings) -> None:
        super().__init__(name="LISTEN", timeout=settings.connect_timeout, concurrency=1)
        self._database = database
        self._settings = settings
        self.received_until = now_ms()
        """When the last message or answer was received, in Unix ms."""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[_Connection]:
        if self._settings.pooler:
            raise ConfigError("LISTEN does not work through a pooler in transaction mode")
        connection = _Connection(await self._database.connect())
        self.received_until = now_ms()
        try:
            yield connection
        finally:
            await connection.aclose()

    async def subscribe(self, connection: _Connection, key: str) -> None:
        try:
            async with connection.lock:
                await connection.connection.add_listener(key, connection.received)
        except CLIENT_ERRORS as error:
            raise server_error(error, self._settings) from error

    async def unsubscribe(self, connection: _Connection, key: str) -> None:
        async with connection.lock:
            await connection.connection.remove_listener(key, connection.received)

    async def messages(self, connection: _Connection) -> AsyncGenerator[tuple[str, str]]:
        while True:
            notification = None
            with anyio.move_on_after(PING) as waited:
                notification = await connection.notifications.receive()
            if waited.cancelled_caught:
                await self._ping(connection)
                continue
            if notification is None:
                raise UpstreamError("PostgreSQL has closed the connection that listens")
            self.received_until = now_ms()
            yield notification
            if connection.is_full:
                raise UpstreamError(f"more than {QUEUED:,} notifications came at once")

    async def _ping(self, connection: _Connection) -> None:
        try:
            with anyio.fail_after(PING):
                async with connection.lock:
                    await connection.connection.execute("SELECT 1")
        except TimeoutError:
            raise UpstreamError(
                f"PostgreSQL has not answered for {PING:g} s on the connection that listens"
            ) from None
        self.received_until = now_ms()


class Wakeup:
    """An event that can be reset."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    def reset(self) -> None:
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Wakeups:
    """Events that are set when a channel of NOTIFY has a message. Create it in `lifespan`.

    While it cannot listen, events are not set: those who wait also poll.
    """

    def __init__(self, listener: NotificationListener, tasks: TaskGroup) -> None:
        self._listener = listener
        self._tasks = tasks
        self._events: dict[str, set[Wakeup]] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._context = copy_context()
        self.errors: dict[str, str] = {}
        """Why a channel is not listened to, by channel."""

    @contextmanager
    def of(self, channel: str) -> Iterator[Wakeup]:
        """An event that is set at each message of the channel; of "" one that is never set."""
        event = Wakeup()
        if not channel:
            yield event
            return
        waiting = self._events.setdefault(channel, set())
        waiting.add(event)
        if channel not in self._scopes:
            scope = self._scopes[channel] = anyio.CancelScope()
            # not in the context of the run of a stream, which ends its subscriptions
            self._context.run(self._tasks.start_soon, self._listen, channel, scope)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and channel in self._scopes:
                self._scopes.pop(channel).cancel()

    def _wake(self, channel: str) -> None:
        for event in self._events[channel]:
            event.set()

    async def _listen(self, channel: str, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    async with self._listener.follow(channel) as messages:
                        self.errors.pop(channel, None)
                        self._wake(channel)  # what was announced before
                        async for _ in messages:
                            self._wake(channel)
                except PluginError as error:
                    self.errors[channel] = error.message
                    await anyio.sleep(_REFUSED if error.permanent else _RETRY)
