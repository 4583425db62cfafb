"""Subscriptions to channels of pub/sub, each at the server that has the channel's log. They survive
lost connections, failovers and moves of keys."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError

from aiostream_ds._cluster.engine import (
    Appended,
    Entry,
    EntryId,
    Event,
    Reconnected,
    Resigned,
    Sent,
)
from aiostream_ds._cluster.redis.open_connections import OpenConnections
from aiostream_ds._cluster.redis.pipelined_connection import ConnectionLost, PipelinedConnection
from aiostream_ds._cluster.redis.redis_calls import Recovery, RedisCalls, in_words
from aiostream_ds._loggers import get_logger
from aiostream_ds._redis.redis_connection import Address
from aiostream_ds._redis.servers import Servers
from aiostream_ds.errors import PluginError

__all__ = ["SENT", "ChannelWatches", "entry_id"]

log = get_logger(__name__)

SENT = b"S"
"""Begins messages that are in no log; see the scripts."""

_NAMES = 1000  # channels in one command

_FAILURES = (ConnectionLost, RedisError, PluginError)


class ChannelWatches:
    """The watched channels.

    Args:
        servers: which server has a channel.
        calls: the other connections; a lost one is reported, too.
        recovery: what follows a failure.
        sharded: whether the servers are a cluster.
        emit: called with each event.
    """

    def __init__(
        self,
        servers: Servers,
        calls: RedisCalls,
        recovery: Recovery,
        *,
        sharded: bool,
        emit: Callable[[Event], object],
    ) -> None:
        self._servers, self._calls, self._recovery = servers, calls, recovery
        self._subscribe, self._unsubscribe = ("SUBSCRIBE", "UNSUBSCRIBE")
        if sharded:
            self._subscribe, self._unsubscribe = ("SSUBSCRIBE", "SUNSUBSCRIBE")
        self._emit = emit
        self.connections = OpenConnections(servers.login, self._received, self.lost)
        self._watched: dict[bytes, str] = {}  # channels by their names in pub/sub
        self._places: dict[bytes, PipelinedConnection] = {}  # where they are subscribed to
        self._losses = 0
        self._restoring: asyncio.Task[None] | None = None

    async def watch(self, name: bytes, channel: str) -> None:
        """Subscribe to a channel. After an error it is tried again in the background.

        Raises:
            EngineError: it could not be subscribed to yet.
        """
        self._watched[name] = channel
        if name not in self._places:
            try:
                await self._calls.repeat(lambda: self._place([name]))
            finally:
                if name in self._watched and name not in self._places:
                    self._restore()

    def unwatch(self, name: bytes) -> None:
        """Unsubscribe from a channel. Its later messages are ignored at once."""
        self._watched.pop(name, None)
        connection = self._places.pop(name, None)
        if connection is not None:
            connection.subscribe(self._unsubscribe, (name,))

    def lost(self, connection: PipelinedConnection) -> None:
        """A connection was lost, of this or of `calls`: restore what it had, and report that."""
        for name in [name for name, place in self._places.items() if place is connection]:
            del self._places[name]
        self._losses += 1
        self._restore()

    def ping(self) -> None:
        """Find out whether the connections are alive: a dead one is lost after some seconds."""
        for connection in self.connections.all():
            connection.call(("PING",))

    async def aclose(self) -> None:
        """Close the connections."""
        self._watched.clear()
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.gather(self._restoring, return_exceptions=True)
        await self.connections.aclose()

    # -- subscribing ---------------------------------------------------------------------------

    async def _place(self, names: Iterable[bytes]) -> None:
        """Subscribe to channels, each at its server. Raises what the first failure is."""
        groups: dict[tuple[Address, int], list[bytes]] = {}
        for name in names:
            address = await self._servers.address(name)
            groups.setdefault((address, self._servers.slot(name)), []).append(name)
        answers = []
        for (address, _), group in groups.items():
            connection = await self.connections.get(address)
            for start in range(0, len(group), _NAMES):
                part = tuple(group[start : start + _NAMES])
                answers.append((connection, part, connection.subscribe(self._subscribe, part)))
        for connection, part, answer in answers:
            await answer
            self._placed(connection, part)

    def _placed(self, connection: PipelinedConnection, names: Sequence[bytes]) -> None:
        if not connection.is_open:
            raise ConnectionLost(f"Redis {connection.server} has closed the connection")
        for name in names:
            if name in self._watched:
                self._places[name] = connection
            else:  # not any more
                connection.subscribe(self._unsubscribe, (name,))

    def _restore(self) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._restore_all())

    async def _restore_all(self) -> None:
        """Subscribe again until nothing is missing, and report lost connections."""
        is_logged = False
        while True:
            losses = self._losses
            try:
                missing = [name for name in self._watched if name not in self._places]
                await self._place(missing)
                await self._calls.reach_all()
            except _FAILURES as error:
                if not is_logged:
                    log.warning("the connection to Redis is tried again: %s", in_words(error))
                is_logged = True
                await self._recovery.run()
                continue
            self._recovery.succeeded()
            if losses == self._losses:
                break
        self._emit(Reconnected())

    # -- notifications -------------------------------------------------------------------------

    def _received(self, item: list[Any]) -> None:
        kind, name = item[0], item[1]
        if kind in (b"message", b"smessage"):
            channel = self._watched.get(name)
            if channel is not None:
                self._emit(_event(channel, item[2]))
        elif kind == b"sunsubscribe" and self._places.pop(name, None) is not None:
            self._losses += 1  # the slot has moved to another server
            self._restore()


def _event(channel: str, message: bytes) -> Event:
    if message[:1] == b"R":
        return Resigned(channel, int(message[1:]))
    if message[:1] == SENT:
        return Sent(channel, message[1:])
    id, previous, payload = message[1:].split(b" ", 2)
    return Appended(channel, Entry(entry_id(id), entry_id(previous), payload))


def entry_id(text: bytes) -> EntryId:
    """The id that Redis writes as `<term>-<number>`."""
    term, _, number = text.partition(b"-")
    return EntryId(int(term), int(number))
