"""The engine on Redis or Valkey."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from itertools import starmap
from typing import Any

from aiostream_ds._cluster.engine import (
    READ_BYTES,
    START,
    Appended,
    EngineError,
    Entry,
    EntryId,
    EntryTooLarge,
    Event,
    Fenced,
    LogLost,
    LogPage,
    Ownership,
    Reconnected,
    Sent,
    Watched,
)
from aiostream_ds._cluster.overview import ClusterOverview
from aiostream_ds._cluster.redis.channel_keys import PARTITIONS, KeyNames
from aiostream_ds._cluster.redis.channel_watches import SENT, ChannelWatches, entry_id
from aiostream_ds._cluster.redis.log_cleanup import KEPT_SECONDS, keep_clean
from aiostream_ds._cluster.redis.node_leases import NodeLeases
from aiostream_ds._cluster.redis.redis_calls import Recovery, RedisCalls, in_words, is_transient
from aiostream_ds._cluster.redis.redis_fitness import check_server, needed_rights
from aiostream_ds._cluster.redis.redis_overview import read_overview
from aiostream_ds._cluster.redis.redis_scripts import Scripts
from aiostream_ds._cluster.redis.redis_url import RedisAccess, servers_at
from aiostream_ds._cluster.redis.setting_names import in_cluster_settings
from aiostream_ds._loggers import get_logger
from aiostream_ds._redis.redis_connection import Address, MissingRight
from aiostream_ds.errors import ConfigError, PluginError

__all__ = ["ENTRY_BYTES", "RedisEngine"]

log = get_logger(__name__)

ENTRY_BYTES = 16 << 20
"""Maximum bytes of an entry. Redis ends the connection of a subscriber for whom 32 MiB wait."""

PING_SECONDS = 1.0
"""Seconds between two PINGs on a connection that watches channels."""

REFRESH_SECONDS = 2.0
"""Seconds between two questions which servers are the primaries, with Sentinel and in a cluster: a
primary that was replaced may still be reachable."""

EVENTS = 100_000
"""Events that wait for their reader. Beyond it they are dropped, and `Reconnected` is put instead,
after which the log is read."""

EVENT_BYTES = 64 << 20
"""Bytes of the payloads that wait; as with `EVENTS`."""

_KEPT = int(KEPT_SECONDS * 1000)


class RedisEngine:
    """What `Engine` describes, on a server of Redis 6.2 or newer, Valkey, or Redis Cluster 7.0.

    Args:
        url: see `redis_url`.
        namespace: begins the names of all keys; clusters with different ones are independent.
        access: user, password and certificates.
        entries: how many entries of a log are kept at least; Redis removes older ones in groups.
        log_bytes: maximum bytes of the payloads of a log, and of one entry; at most `ENTRY_BYTES`
            for an entry.

    Attributes:
        event_limit: events that wait for their reader; see `EVENTS`.
        byte_limit: bytes of their payloads; see `EVENT_BYTES`.

    Raises:
        ConfigError: an argument is invalid.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        access: RedisAccess | None = None,
        entries: int = 1000,
        log_bytes: int = 8 << 20,
    ) -> None:
        self._servers = servers_at(url, access or RedisAccess())
        sharded = self._sharded = self._servers.has_several_primaries
        self._keys = KeyNames(namespace, PARTITIONS if sharded else 1)
        self._scripts = Scripts(sharded=sharded)
        self._entries, self._log_bytes = entries, log_bytes
        self._recovery = Recovery(self._servers, self._close_others)
        self._calls = RedisCalls(self._servers, self._recovery, lambda lost: watches.lost(lost))
        watches = self._watches = ChannelWatches(
            self._servers, self._calls, self._recovery, sharded=sharded, emit=self._emit
        )
        self._leases = NodeLeases(self._calls, self._keys, self._scripts)
        self.event_limit, self.byte_limit = EVENTS, EVENT_BYTES
        self._events: deque[Event] = deque()
        self._event_bytes = 0
        self._has_events = asyncio.Event()
        self._is_closed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, and check all primaries. May be called again after an EngineError.

        Raises:
            ConfigError: what has to change in the settings or at the server.
            EngineError: a server cannot be reached.
        """
        try:
            await self._servers.refresh()
            for server, partition in (await self._one_partition_of_each()).items():
                connection = await self._watches.connections.get(server)
                await check_server(
                    connection,
                    self._keys,
                    self._keys.probe(partition),
                    self._scripts,
                    sharded=self._sharded,
                )
        except PluginError as error:
            if is_transient(error):
                raise EngineError(in_words(error)) from error
            if isinstance(error, MissingRight):
                rights = needed_rights(self._keys, sharded=self._sharded)
                raise ConfigError(f"{error.message}; {rights}") from error
            raise in_cluster_settings(error) from error
        if not self._tasks:
            self._start(keep_clean(self._calls, self._keys, self._scripts))
            self._start(self._ping())
            if not self._servers.is_fixed:
                self._start(self._refresh())

    async def open_to_look(self) -> None:
        """See `HasOverview`: the keys of the check of rights end at once."""
        await self.open()

    async def aclose(self) -> None:
        """Close the connections, and end `events`."""
        self._is_closed = self._calls.is_closed = True
        self._has_events.set()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._leases.aclose()
        await self._watches.aclose()
        await self._calls.connections.aclose()
        await self._recovery.aclose()
        await self._servers.close()

    # -- the node's lease ----------------------------------------------------------------------

    async def renew(self, node: str, seconds: float) -> None:
        """See `Engine`. In a Redis Cluster more than half of the partitions suffice."""
        await self._leases.renew(node, seconds)

    async def release(self, node: str) -> None:
        """See `Engine`."""
        await self._leases.release(node)

    async def nodes(self) -> Mapping[str, float]:
        """See `Engine`. Of a Redis Cluster, the leases in one partition."""
        return await self._leases.nodes()

    async def end_lease(self, node: str, age: float) -> None:
        """See `Engine`."""
        await self._leases.end(node, age)

    # -- ownership -----------------------------------------------------------------------------

    async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        """See `Engine`."""
        self._check_size(channel, payload)
        owner, term, taken, last = await self._calls.run(
            self._scripts.take,
            self._keys.of(channel),
            channel,
            node,
            payload,
            self._entries,
            self._log_bytes,
        )
        return Ownership(owner.decode(), int(term), bool(taken), entry_id(last))

    async def resign(self, channel: str, node: str, term: int) -> None:
        """See `Engine`."""
        await self._calls.run(
            self._scripts.resign, self._keys.of(channel), channel, node, term, _KEPT
        )

    # -- the log -------------------------------------------------------------------------------

    async def append(
        self, channel: str, entry: Entry, schema: bytes | None = None, start: bytes | None = None
    ) -> None:
        """See `Engine`."""
        id, previous, payload = entry
        self._check_size(channel, payload)
        arguments: list[str | bytes | int] = [
            id.term,
            id.number,
            f"{previous.term}-{previous.number}",
            payload,
            self._entries,
            self._log_bytes,
            "" if start is None else _start_hash(start),
        ]
        if schema is not None:
            self._check_size(channel, schema)
            arguments.append(schema)
        answer = await self._calls.run(self._scripts.append, self._keys.of(channel)[:2], *arguments)
        if answer == b"FENCED":
            raise Fenced(f"{channel}: the term {id.term} is over")
        if answer == b"LOST":
            raise LogLost(
                f"{channel}: Redis does not have the entry {previous.term}-{previous.number}"
            )

    async def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        """See `Engine`."""
        found = await self._calls.run(
            self._scripts.read,
            (self._keys.of(channel).log,),
            f"{after.term}-{after.number}",
            limit,
            READ_BYTES,
        )
        if found is None:
            return LogPage([], START, truncated=False)
        before, last, entries = found
        return LogPage(
            list(starmap(_entry, entries or ())),
            entry_id(last),
            truncated=entry_id(before) > after,
        )

    async def schema(self, channel: str) -> bytes | None:
        """See `Engine`."""
        found: bytes | None = await self._calls.run(
            self._scripts.schema, (self._keys.of(channel).state,)
        )
        return found

    # -- presence ------------------------------------------------------------------------------

    async def enter(self, channel: str, node: str) -> None:
        """See `Engine`."""
        await self._calls.run(self._scripts.enter, self._keys.of(channel), channel, node)

    async def leave(self, channel: str, node: str) -> None:
        """See `Engine`."""
        await self._calls.run(self._scripts.leave, self._keys.of(channel), channel, node, _KEPT)

    async def members(self, channel: str) -> frozenset[str]:
        """See `Engine`."""
        keys = self._keys.of(channel)
        found = await self._calls.run(self._scripts.members, (keys.nodes, keys.leases))
        return frozenset(node.decode() for node in found)

    # -- notifications -------------------------------------------------------------------------

    async def watch(self, channel: str) -> None:
        """See `Engine`. After an EngineError it is tried again in the background."""
        await self._watches.watch(self._keys.of(channel).log, channel)

    async def unwatch(self, channel: str) -> None:
        """See `Engine`."""
        self._watches.unwatch(self._keys.of(channel).log)

    async def send(self, channel: str, payload: bytes) -> None:
        """See `Engine`."""
        self._check_size(channel, payload)
        await self._calls.run(self._scripts.send, (self._keys.of(channel).log,), payload)

    async def watched(self, channel: str) -> Watched:
        """See `Engine`."""
        name = self._keys.of(channel).log
        command = ("SPUBLISH" if self._sharded else "PUBLISH", name, SENT)

        async def attempt() -> Watched:
            connection = await self._calls.connections.get(await self._servers.address(name))
            receivers = await connection.call(command)
            return Watched(connection.number, receivers > 0)

        return await self._calls.repeat(attempt)

    async def events(self) -> AsyncIterator[Event]:
        """See `Engine`. Ends after `aclose`."""
        while not self._is_closed:
            while self._events:
                event = self._events.popleft()
                self._event_bytes -= _size(event)
                yield event
            self._has_events.clear()
            await self._has_events.wait()

    async def overview(self) -> ClusterOverview:
        """See `HasOverview`."""
        return await read_overview(self._calls, self._keys, self._scripts)

    def _emit(self, event: Event) -> None:
        self._event_bytes += _size(event)
        if len(self._events) >= self.event_limit or self._event_bytes > self.byte_limit:
            log.warning("%d events of the cluster were not read in time", len(self._events))
            self._events.clear()
            self._event_bytes = 0
            event = Reconnected()
        self._events.append(event)
        self._has_events.set()

    # -- servers -------------------------------------------------------------------------------

    async def _one_partition_of_each(self) -> dict[Address, int]:
        found: dict[Address, int] = {}
        for number in range(len(self._keys.partitions)):
            found.setdefault(await self._servers.address(self._keys.probe(number)), number)
        return found

    def _close_others(self, primaries: set[Address]) -> None:
        self._calls.connections.close_others(primaries)
        self._watches.connections.close_others(primaries)

    def _start(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            self._watches.ping()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._recovery.refresh()

    def _check_size(self, channel: str, payload: bytes) -> None:
        limit = min(self._log_bytes, ENTRY_BYTES)
        if len(payload) > limit:
            raise EntryTooLarge(
                f"{channel}: an entry must be at most {limit} bytes, got {len(payload)}"
            )


@lru_cache(1024)  # it is the same one in each entry of a term
def _start_hash(start: bytes) -> str:
    return hashlib.sha1(start, usedforsecurity=False).hexdigest()


def _size(event: Event) -> int:
    if isinstance(event, Sent):
        return len(event.payload)
    return len(event.entry.payload) if isinstance(event, Appended) else 0


def _entry(id: bytes, fields: list[bytes]) -> Entry:
    return Entry(entry_id(id), entry_id(fields[1]), fields[5])
