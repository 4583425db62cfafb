"""The engine of a cluster on NATS JetStream."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial

from aiostream_ds._cluster.engine import (
    Appended,
    Entry,
    EntryId,
    EntryTooLarge,
    Event,
    LogPage,
    Ownership,
    Reconnected,
    Resigned,
    Sent,
    Watched,
)
from aiostream_ds._cluster.nats.nats_client import NatsClient
from aiostream_ds._cluster.nats.nats_entries import (
    HEADER_BYTES,
    SENT_HEADERS,
    is_sent,
    live_message,
)
from aiostream_ds._cluster.nats.nats_events import EventQueue
from aiostream_ds._cluster.nats.nats_jetstream import JetStream
from aiostream_ds._cluster.nats.nats_leases import Presence
from aiostream_ds._cluster.nats.nats_log import ChannelLogs
from aiostream_ds._cluster.nats.nats_overview import read_overview
from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
from aiostream_ds._cluster.nats.nats_streams import Streams
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from aiostream_ds._cluster.nats.nats_sweep import Sweep
from aiostream_ds._cluster.nats.shared_call import SharedCall
from aiostream_ds._cluster.overview import ClusterOverview
from aiostream_ds._nats.nats_protocol import NatsMessage

__all__ = ["NatsEngine"]


class NatsEngine:
    """Implements `Engine` with two streams of JetStream: one for the logs, one for leases and
    subscribers. See `nats_subjects` for what they contain.
    """

    name = "nats"

    def __init__(self, settings: NatsEngineSettings) -> None:
        self._subjects = Subjects(settings.name)
        self._client = NatsClient(settings.servers, settings, settings.timeout, self._restore)
        self._jetstream = JetStream(
            self._client, lambda: self._streams.repair(), has_copies=settings.replicas > 1
        )
        self._streams = Streams(settings, self._client, self._jetstream, self._subjects)
        self._presence = Presence(self._jetstream, self._subjects)
        self._events = EventQueue()
        self._logs = ChannelLogs(
            self._jetstream,
            self._subjects,
            entries=settings.entries,
            valid_nodes=self._presence.valid_nodes,
            now=self._streams.now,
            lost=partial(self._events.put, Reconnected()),
            timeout=settings.timeout,
        )
        self._idle = settings.idle
        self._sweep = Sweep(self._jetstream, self._subjects, self._idle)
        self._sweeping: asyncio.Task[None] | None = None
        self._watched: dict[str, int] = {}
        self._have_subscriptions = SharedCall(self._reach_servers, "nats subscriptions")
        self._is_looking = False

    async def open(self) -> None:
        """See `Engine`. After an error it may be called again."""
        try:
            await self._client.open()
            await self._streams.open()
        except BaseException:
            await self._client.aclose()
            raise
        self._sweeping = asyncio.create_task(self._sweep.run(), name="nats sweep")

    async def open_to_look(self) -> None:
        """See `HasOverview`: the streams are neither made nor changed."""
        self._is_looking = True
        await self._client.open()

    async def aclose(self) -> None:
        """See `Engine`. A second call does nothing."""
        task, self._sweeping = self._sweeping, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._presence.aclose()
        await self._have_subscriptions.aclose()
        await self._client.aclose()
        self._events.close()

    async def _restore(self) -> None:
        """After a reconnection."""
        if self._is_looking:
            return
        await self._client.confirm_all()
        await self._streams.ensure()
        await self._streams.reach_leader()
        self._logs.forget()
        self._events.put(Reconnected())

    async def renew(self, node: str, seconds: float) -> None:
        """See `Engine`."""
        await self._presence.renew(node, seconds)

    async def release(self, node: str) -> None:
        """See `Engine`."""
        await self._presence.renew(node, 0.0)

    async def nodes(self) -> Mapping[str, float]:
        """See `Engine`."""
        return await self._presence.valid_nodes()

    async def end_lease(self, node: str, age: float) -> None:
        """See `Engine`."""
        await self._presence.end(node, age)

    async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        """See `Engine`."""
        return await self._logs.take(channel, node, payload)

    async def resign(self, channel: str, node: str, term: int) -> None:
        """See `Engine`."""
        await self._logs.resign(channel, node, term)

    async def append(
        self, channel: str, entry: Entry, schema: bytes | None = None, start: bytes | None = None
    ) -> None:
        """See `Engine`."""
        await self._logs.append(channel, entry, schema, start)

    async def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        """See `Engine`."""
        return await self._logs.read(channel, after, limit)

    async def schema(self, channel: str) -> bytes | None:
        """See `Engine`."""
        return await self._logs.schema(channel)

    async def enter(self, channel: str, node: str) -> None:
        """See `Engine`."""
        await self._presence.enter(channel, node)

    async def leave(self, channel: str, node: str) -> None:
        """See `Engine`."""
        await self._presence.leave(channel, node)

    async def members(self, channel: str) -> frozenset[str]:
        """See `Engine`."""
        return await self._presence.members(channel)

    async def watch(self, channel: str) -> None:
        """See `Engine`."""
        is_new = channel not in self._watched
        if is_new:
            handler = partial(self._receive, channel)
            self._watched[channel] = self._client.subscribe(
                self._subjects.live_of(channel), handler
            )
        number = self._watched[channel]
        try:
            await self._have_subscriptions()
            self._client.raise_if_refused(number)
        except BaseException:
            if is_new:
                await self.unwatch(channel)
            raise
        self._logs.watched(channel)

    async def _reach_servers(self) -> None:
        """Wait until the servers have all subscriptions that were made before. Many channels that
        are watched at the same time wait for one answer."""
        await self._client.flush()
        await self._streams.reach_leader()

    async def unwatch(self, channel: str) -> None:
        """See `Engine`."""
        self._logs.unwatched(channel)
        number = self._watched.pop(channel, None)
        if number is not None:
            self._client.unsubscribe(number)

    async def send(self, channel: str, payload: bytes) -> None:
        """See `Engine`."""
        limit = self._jetstream.max_payload - HEADER_BYTES
        if len(payload) > limit:
            raise EntryTooLarge(
                f"{channel}: expected a message of at most {limit} bytes, got {len(payload)}"
            )
        await self._client.publish(self._subjects.live_of(channel), payload, SENT_HEADERS)

    async def watched(self, channel: str) -> Watched:
        """See `Engine`. In a cluster of NATS, also those of other servers are known."""
        subject = self._subjects.live_of(channel)
        return Watched(*await self._client.has_subscribers(subject, SENT_HEADERS))

    async def overview(self) -> ClusterOverview:
        """See `HasOverview`."""
        return await read_overview(self._jetstream, self._subjects, self._presence, self._idle)

    def events(self) -> AsyncIterator[Event]:
        """See `Engine`."""
        return self._events.read()

    def _receive(self, channel: str, stored: NatsMessage) -> None:
        """A message was stored in the log of a watched channel, or was sent to it."""
        if is_sent(stored):
            self._events.put(Sent(channel, stored.payload))
            return
        message = live_message(stored)
        if message is None:
            return
        self._logs.saw(channel, message)
        if not message.node:
            self._events.put(Resigned(channel, message.id.term))
            return
        self._events.put(Appended(channel, message.entry))
