"""Engines for tests, and what they do there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiostream_ds._cluster.engine import Engine, Entry, EntryId, Event
from aiostream_ds._cluster.nats.nats_engine import NatsEngine
from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
from tests.servers import Nats
from tests.servers.nats import client_context

PATIENCE = 15.0


def settings(server: Nats, **others: Any) -> NatsEngineSettings:
    tls = client_context() if server.tls is not None else None
    return NatsEngineSettings(**{"url": server.url, "tls": tls} | others)


@asynccontextmanager
async def engine(server: Nats, node: str = "", **others: Any) -> AsyncIterator[NatsEngine]:
    """An open engine; with a node that has a lease."""
    opened = NatsEngine(settings(server, **others))
    await opened.open()
    try:
        if node:
            await opened.renew(node, 60.0)
        yield opened
    finally:
        await opened.aclose()


class Writer:
    """Takes a channel and appends numbered entries to it."""

    def __init__(self, engine: Engine, channel: str, node: str) -> None:
        self.engine, self.channel, self.node = engine, channel, node
        self.last = EntryId(0, 0)
        self.written: list[Entry] = []

    async def take(self) -> None:
        payload = f"{self.node} {len(self.written)}".encode()
        taken = await self.engine.take(self.channel, self.node, payload)
        assert taken.taken
        self.last = EntryId(taken.term, 0)

    async def write(self, count: int = 1, schema: bytes | None = None) -> None:
        for _ in range(count):
            id = EntryId(self.last.term, self.last.number + 1)
            entry = Entry(id, self.last, b"%d" % len(self.written))
            await self.engine.append(self.channel, entry, schema)
            self.last = id
            self.written.append(entry)


async def next_event(events: AsyncIterator[Event], kind: type) -> Event:
    """The next event of a kind; others before it are dropped."""
    async with asyncio.timeout(PATIENCE):
        while not isinstance(found := await anext(events), kind):
            pass
    return found
