"""Channels, patterns and keyspace events: a connection that all subscribers share.

Redis keeps nothing of what it publishes: what is published while the connection is lost is lost.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import anyio

from aiostream_ds._channels.policy import Buffer
from aiostream_ds._redis.redis_connection import ANSWER_TIMEOUT, Connection
from aiostream_ds._redis.servers import REFRESH, Servers
from aiostream_ds.errors import PluginError, UpstreamError
from aiostream_ds.operators import merge
from aiostream_ds.upstream import Upstream

__all__ = ["PublishedMessage", "PubSub", "PubSubKey", "keyspace"]

PING = 5.0
"""Seconds between two PINGs on a connection that subscribes."""

LINGER = 5.0
"""Seconds for which a channel stays subscribed after its last viewer."""

QUEUE = 10_000
"""Messages that wait for one stream; beyond it the oldest are dropped, and counted."""

QUEUE_BYTES = 16 << 20
"""Bytes of their payloads, with the same rule."""


class PubSubKey(NamedTuple):
    """What is subscribed: a channel, or a pattern of channels, by its name."""

    name: str
    is_pattern: bool = False

    @property
    def is_event(self) -> bool:
        """Whether it is for keyspace events, which each server publishes for its own keys."""
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
    """The connection that subscribes.

    In a cluster messages of channels are broadcast, so that any server suffices for them; keyspace
    events are published by the server that has the key.

    Args:
        servers: the servers of the data source.
        every_primary: subscribe at each primary, for keyspace events in a cluster.
    """

    def __init__(self, servers: Servers, *, every_primary: bool = False) -> None:
        name = "Redis keyspace events" if every_primary else "Redis Pub/Sub"
        buffer = Buffer(rows=QUEUE, bytes=QUEUE_BYTES)
        super().__init__(linger=LINGER, buffer=buffer, name=name)
        self._servers = servers
        self._every_primary = every_primary
        self.received_until = _now()
        """Until when the last lost connection is known to have delivered everything (Unix ms)."""

    def message_bytes(self, message: PublishedMessage) -> int:
        """The bytes of the payload."""
        return len(message.payload)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[list[_Link]]:
        """Connect to the first primary that can be reached, or to all, and PING them."""
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            links = await self._open_links(stack)
            for link in links:
                tasks.start_soon(link.keep_alive)
            if not self._servers.is_fixed:
                tasks.start_soon(self._check_primaries, links)
            try:
                yield links
            finally:
                self.received_until = min(link.received_until for link in links)
                tasks.cancel_scope.cancel()

    async def _open_links(self, stack: AsyncExitStack) -> list[_Link]:
        links: list[_Link] = []
        failure: PluginError | None = None
        for server in await self._servers.primaries():
            try:
                links.append(_Link(await stack.enter_async_context(self._servers.dial(server))))
            except PluginError as error:
                if self._every_primary:
                    raise
                failure = failure or error
            else:
                if not self._every_primary:
                    break
        if failure is not None and not links:
            raise failure
        return links

    async def _check_primaries(self, links: list[_Link]) -> None:
        """Raises UpstreamError when other servers are the primaries."""
        connected = {link.connection.server for link in links}
        while True:
            primaries = set(await self._servers.primaries())
            if not connected <= primaries or (self._every_primary and connected != primaries):
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
        """Subscribe on each connection."""
        for link in connection:
            await link.command("PSUBSCRIBE" if key.is_pattern else "SUBSCRIBE", key.name)

    async def unsubscribe(self, connection: list[_Link], key: PubSubKey) -> None:
        """Unsubscribe on each connection."""
        for link in connection:
            await link.command("PUNSUBSCRIBE" if key.is_pattern else "UNSUBSCRIBE", key.name)
