"""Engines of Redis against a server, as the user with the rights that docs/cluster.md asks for."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from aiostream_ds._cluster.engine import (
    START,
    Appended,
    Entry,
    EntryId,
    Event,
    Ownership,
    Reconnected,
)
from aiostream_ds._cluster.redis.channel_keys import PARTITIONS, KeyNames
from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from aiostream_ds._cluster.redis.redis_fitness import CLUSTER_RIGHTS, RIGHTS
from aiostream_ds._cluster.redis.redis_url import RedisAccess
from aiostream_ds._tls import TlsSettings
from aiostream_ds.settings import Secret
from tests.servers import Redis, certificates
from tests.servers.redis import RedisClusterNode, RedisReplica

NAMESPACE = "test"
RULES = f"resetkeys ~{NAMESPACE}:* resetchannels &{NAMESPACE}:* -@all {RIGHTS}"


class EngineRedis(Redis):
    """A server whose user `grafana` has the rights of an engine."""

    rights = RULES


class EngineReplica(RedisReplica):
    """A replica of one, with the same user."""

    rights = RULES
    extra: Mapping[str, str] = {"appendonly": "no"}  # else it ignores SIGTERM while it begins one


class EngineClusterNode(RedisClusterNode):
    """A server of a Redis Cluster with the same user."""

    rights = f"{RULES} {CLUSTER_RIGHTS}"


def access(server: Redis, **changes: Any) -> RedisAccess:
    tls = None
    if server.tls:
        tls = TlsSettings(ca_certificate=certificates().ca)
        if server.client_ca:
            own = certificates().client
            tls = TlsSettings(
                ca_certificate=certificates().ca,
                client_certificate=own.certificate,
                client_key=Secret(own.key),
            )
    return RedisAccess(server.reader, server.reader_password, tls=tls)._replace(**changes)


def engine(server: Redis, port: int = 0, **options: Any) -> RedisEngine:
    """An engine of one server, through a proxy on `port` if given. It is not open."""
    scheme = "rediss" if server.tls else "redis"
    options = {"namespace": NAMESPACE, "access": access(server)} | options
    return RedisEngine(f"{scheme}://127.0.0.1:{port or server.port}", **options)


def cluster_engine(nodes: Sequence[Redis], **options: Any) -> RedisEngine:
    """An engine of a Redis Cluster. It is not open."""
    options = {"namespace": NAMESPACE, "access": access(nodes[0])} | options
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return RedisEngine(f"redis+cluster://{hosts}", **options)


def evict(servers: Sequence[Redis], channel: str) -> None:
    """Remove the log of a channel, as a server does that is out of memory."""
    log = KeyNames(NAMESPACE, PARTITIONS if len(servers) > 1 else 1).of(channel).log
    for server in servers:
        server.call("DEL", log)  # of a cluster one server has it; the others refuse


@asynccontextmanager
async def opened(engine: RedisEngine) -> AsyncIterator[RedisEngine]:
    """An open engine, with leases of the nodes `a` and `b`."""
    try:
        await engine.open()
        await engine.renew("a", 60)
        await engine.renew("b", 60)
        yield engine
    finally:
        await engine.aclose()


class Writer:
    """The owner of a channel: appends numbers, and remembers which were acknowledged."""

    def __init__(self, engine: RedisEngine, channel: str = "c") -> None:
        self.engine, self.channel = engine, channel
        self.last = START
        self.written: list[Entry] = []

    async def take(self, node: str = "a") -> Ownership:
        taken = await self.engine.take(self.channel, node, secrets.token_bytes(8))
        assert taken.taken
        self.last = EntryId(taken.term, 0)
        return taken

    async def append(self, payload: bytes = b"") -> Entry:
        payload = payload or b"%d" % len(self.written)
        entry = Entry(EntryId(self.last.term, self.last.number + 1), self.last, payload)
        await self.engine.append(self.channel, entry)
        self.last = entry.id
        self.written.append(entry)
        return entry

    async def repair(self) -> None:
        """Take the channel again, and append what the log lacks."""
        taken = await self.take()
        written, self.written = self.written, []
        for entry in written:
            if entry.id <= taken.last:
                self.written.append(entry)
            else:
                await self.append(entry.payload)


async def payloads(engine: RedisEngine, channel: str = "c") -> list[bytes]:
    """The payloads of a log, without those of `take`."""
    page = await engine.read(channel, START, 100_000)
    return [entry.payload for entry in page.entries if entry.id.number]


class Events:
    """The events of an engine, as a task collects them."""

    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self.all: list[Event] = []
        self.has_ended = False

    async def _collect(self) -> None:
        async for event in self._engine.events():
            self.all.append(event)
        self.has_ended = True

    def payloads(self) -> list[bytes]:
        """Those of the appended entries, without those of `take`."""
        entries = [event.entry for event in self.all if isinstance(event, Appended)]
        return [entry.payload for entry in entries if entry.id.number]

    @property
    def reconnected(self) -> int:
        return self.all.count(Reconnected())

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
