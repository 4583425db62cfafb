"""Channels, patterns and keyspace events: one shared connection for all subscribers.

Redis keeps nothing of what it publishes: what is published while the connection is lost is lost.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from aiostream_ds._channels.policy import Buffer
from aiostream_ds.errors import PluginError, UpstreamError
from aiostream_ds.operators import merge
from aiostream_ds.sources.redis.redis_connection import ANSWER_TIMEOUT, Connection
from aiostream_ds.sources.redis.servers import REFRESH, Servers
from aiostream_ds.upstream import Upstream

__all__ = ["PublishedMessage", "PubSub", "PubSubKey", "keyspace"]

PING = 5.0
"""Seconds between two PINGs on a connection that subscribes."""

LINGER = 5.0
"""Seconds for which a channel stays subscribed after its last viewer."""

QUEUE = 10_000
"""Messages that wait for one stream; beyond it the oldest are dropped, and counted."""


class PubSubKey(NamedTuple):
    """What is subscribed: a channel, or a pattern of channels, by its name."""

    name: str
    is_pattern: bool = False

    @property
    def is_local(self) -> bool:
        """Whether each server of a cluster publishes it for its own keys, as keyspace events."""
        return self.name.startswith(("__keyspace@", "__keyevent@"))

    def __str__(self) -> str:
        return self.name


def keyspace(database: int, keys: str) -> PubSubKey:
    """The events of the keys that match a pattern."""
    return PubSubKey(f"__keyspace@{database}__:{keys}", is_pattern=True)


class PublishedMessage(NamedTuple):
    """A published message: the channel, the payload, and when it was received (Unix ms)."""

    channel: bytes
    payload: bytes
    received: int


class _Link:
    """One connection that subscribes. Answers come in the order of the commands, with messages
    between them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._waiting: deque[_Answer] = deque()
        self.received_until = _now()
        """When the last message or answer was received, in Unix ms."""

    async def command(self, *words: str | bytes) -> None:
        """Send a command and wait until it is answered. Raises PluginError."""
        answer = _Answer()
        self._waiting.append(answer)
        await self.connection.send(*words)
        await answer.event.wait()
        if answer.error is not None:
            raise answer.error

    async def keep_alive(self) -> None:
        """PING the server; raises UpstreamError when it has sent nothing for too long."""
        while True:
            await anyio.sleep(PING)
            if _now() - self.received_until > (PING + ANSWER_TIMEOUT) * 1_000:
                raise UpstreamError(
                    f"Redis {self.connection.server} has sent nothing for"
                    f" {PING + ANSWER_TIMEOUT:g} s, not even an answer to PING"
                )
            self._waiting.append(_Answer())
            await self.connection.send("PING")

    async def messages(self) -> AsyncGenerator[tuple[PubSubKey, PublishedMessage]]:
        """The messages, until the connection is lost."""
        while True:
            try:
                found = await self.connection.receive()
            except PluginError as error:
                if not self.connection.is_open:
                    raise
                self._answered(error)  # the server refuses a command
                continue
            self.received_until = now = _now()
            kind = found[0] if isinstance(found, list) else found
            if kind == b"message":
                _, channel, payload = found
                yield (
                    PubSubKey(channel.decode(errors="replace")),
                    PublishedMessage(channel, payload, now),
                )
            elif kind == b"pmessage":
                _, pattern, channel, payload = found
                key = PubSubKey(pattern.decode(errors="replace"), is_pattern=True)
                yield key, PublishedMessage(channel, payload, now)
            else:
                self._answered(None)

    def _answered(self, error: PluginError | None) -> None:
        if self._waiting:
            answer = self._waiting.popleft()
            answer.error = error
            answer.event.set()


class _Answer:
    __slots__ = ("error", "event")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.error: PluginError | None = None


def _now() -> int:
    return time.time_ns() // 1_000_000


class PubSub(Upstream[PubSubKey, PublishedMessage]):
    """The connection that subscribes; in a cluster one to each primary.

    Messages of channels are broadcast in a cluster, so one server suffices for them; keyspace
    events are sent by the server that has the key.
    """

    def __init__(self, servers: Servers) -> None:
        super().__init__(linger=LINGER, buffer=Buffer(rows=QUEUE), name="Redis Pub/Sub")
        self._servers = servers
        self.received_until = _now()
        """When the last lost connection still was known to deliver everything, in Unix ms."""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[list[_Link]]:
        """Connect to all primaries, and PING them."""
        async with anyio.create_task_group() as tasks:
            links: list[_Link] = []
            try:
                for address in await self._servers.primaries():
                    connection = Connection(address, self._servers.login)
                    links.append(_Link(connection))
                    await connection.open()
                for link in links:
                    tasks.start_soon(link.keep_alive)
                if not self._servers.is_fixed:
                    tasks.start_soon(self._check_primaries, links)
                yield links
            finally:
                if links:
                    self.received_until = min(link.received_until for link in links)
                for link in links:
                    await link.connection.close()
                tasks.cancel_scope.cancel()

    async def _check_primaries(self, links: list[_Link]) -> None:
        """Raises UpstreamError when other servers are the primaries."""
        connected = [link.connection.server for link in links]
        while True:
            if list(await self._servers.primaries()) != connected:
                raise UpstreamError("other servers are the primaries now")
            await anyio.sleep(REFRESH)

    async def messages(
        self, connection: list[_Link]
    ) -> AsyncGenerator[tuple[PubSubKey, PublishedMessage]]:
        """The messages of all connections."""
        if len(connection) == 1:
            async for message in connection[0].messages():
                yield message
        else:
            async for message in merge(*(link.messages() for link in connection)):
                yield message

    async def subscribe(self, connection: list[_Link], key: PubSubKey) -> None:
        """Subscribe at the first server, or at all for what each publishes for itself."""
        for link in connection if key.is_local else connection[:1]:
            await link.command("PSUBSCRIBE" if key.is_pattern else "SUBSCRIBE", key.name)

    async def unsubscribe(self, connection: list[_Link], key: PubSubKey) -> None:
        """Unsubscribe where it was subscribed."""
        for link in connection if key.is_local else connection[:1]:
            await link.command("PUNSUBSCRIBE" if key.is_pattern else "UNSUBSCRIBE", key.name)
