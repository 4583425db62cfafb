"""The stores of rows that this process shares with the other processes of a cluster."""

from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from aiostream_ds._cluster.channel_names import ChannelIdentity, channel_name
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._grafana.instance_identity import InstanceKey
from aiostream_ds._store_replication.store_filling import FILL_KIND
from aiostream_ds._store_replication.store_replica import StoreReplica
from aiostream_ds.errors import NotFound
from aiostream_ds.rows import Cursor
from aiostream_ds.stores import (
    AppendResult,
    Retention,
    SqliteStore,
    Store,
    StoredChannel,
    StoredRows,
    StoreError,
)

__all__ = ["SharedStore", "SharedStores"]

CATCH_UP_SECONDS = 3.0
"""Seconds for which a data source is not open at most, until its store has what others have."""

_VERSION = "stores 1"


class SharedStores:
    """The shared stores of one process.

    Not thread-safe: use it in the event loop's thread.

    Args:
        node: this process in the cluster.
        requests: those to and from other nodes.
        tasks: where the stores follow the cluster.
        cipher: encrypts what is in the engine, if the cluster has a key.
    """

    def __init__(
        self,
        node: ClusterNode,
        requests: NodeRequests,
        tasks: TaskGroup,
        cipher: Cipher | None,
    ) -> None:
        self._node, self._requests, self._tasks, self._cipher = node, requests, tasks, cipher
        self._running: dict[tuple[str, Hashable], _Running] = {}
        requests.handle(FILL_KIND, self._answer)

    @asynccontextmanager
    async def share(self, key: InstanceKey, store: SqliteStore) -> AsyncGenerator["SharedStore"]:
        """The store, whose appends are those of all servers, as long as the context lasts. The
        settings of the data source do not matter: on all servers its rows are the same.

        Raises:
            ConfigError, UpstreamError: the store cannot be opened.
        """
        identity = ChannelIdentity(key.tenant, key.uid, key.plugin_id, _VERSION, (), ())
        name = channel_name(identity, "rows", is_readable=self._cipher is None)
        place = name, store.path or id(store)
        running = self._running.get(place)
        if running is None:
            replica = StoreReplica(name, store.same(), self._node, self._requests, self._cipher)
            running = self._running[place] = _Running(replica)
            self._tasks.start_soon(running.run)
        running.users += 1
        try:
            await running.replica.wait_until_caught_up(CATCH_UP_SECONDS)
            yield SharedStore(store, running.replica)
        finally:
            running.users -= 1
            if not running.users:
                del self._running[place]
                running.scope.cancel()
                with anyio.CancelScope(shield=True):
                    await running.ended.wait()

    async def _answer(self, payload: bytes) -> bytes:
        name, question = msgspec.msgpack.decode(payload, type=tuple[str, bytes])
        for (known, _), running in self._running.items():
            if known == name:
                return await running.replica.answer(question)
        raise NotFound("this server does not have the store")


class _Running:
    """A replica, and how many instances of the data source use it."""

    def __init__(self, replica: StoreReplica) -> None:
        self.replica = replica
        self.users = 0
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()

    async def run(self) -> None:
        try:
            with self.scope:
                await self.replica.run()
        finally:
            self.ended.set()


class SharedStore(Store):
    """A store that several servers share: it is read here, and appended to on all.

    Args:
        local: what this server has.
        replica: appends to it.
    """

    def __init__(self, local: SqliteStore, replica: StoreReplica) -> None:
        self._local, self._replica = local, replica

    @property
    def problem(self) -> str:
        """Why rows cannot be stored at the moment; empty if they can."""
        return self._replica.problem

    @property
    def missing(self) -> int:
        """Rows that other servers may have, and this one does not."""
        return self._replica.missing

    async def append(
        self, channel: str, rows: Sequence[Mapping[str, Any]], key: str | None = None
    ) -> AppendResult:
        """See `Store.append`. When it returns, they are in the log of the cluster, too."""
        return await self._replica.append(channel, rows, key)

    async def rows_after(
        self, channel: str, after: int, limit: int, upto: int | None = None
    ) -> StoredRows:
        """See `Store.rows_after`."""
        return await self._local.rows_after(channel, after, limit, upto)

    async def rows_between(self, channel: str, start: int, end: int, limit: int) -> StoredRows:
        """See `Store.rows_between`."""
        return await self._local.rows_between(channel, start, end, limit)

    def follow(
        self, channel: str, after: Cursor | None = None
    ) -> AsyncGenerator[list[dict[str, Any]] | Cursor, None]:
        """See `Store.follow`."""
        return self._local.follow(channel, after)

    async def newest(self, channel: str) -> Cursor:
        """See `Store.newest`."""
        return await self._local.newest(channel)

    async def channels(self) -> list[StoredChannel]:
        """See `Store.channels`."""
        return await self._local.channels()

    async def delete(self, channel: str) -> bool:
        """Raises StoreError: a channel of several servers cannot be deleted."""
        raise StoreError(f"{channel!r} is stored on several servers, and cannot be deleted on one")

    def retain(self, channel: str, retention: Retention | None) -> None:
        """See `Store.retain`: on this server."""
        self._local.retain(channel, retention)
