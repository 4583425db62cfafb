"""The connections to each server, opened at the first call that needs one."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from aiostream_ds._cluster.redis.pipelined_connection import PipelinedConnection, connect
from aiostream_ds._redis.redis_connection import Address, RedisLogin, with_tls_hint
from aiostream_ds.errors import PluginError, UpstreamError, copy_error

__all__ = ["OpenConnections"]


class OpenConnections:
    """One connection to each server.

    Args:
        login: how they are opened.
        on_push: called with notifications.
        on_lost: called with a connection that has ended, unless it was not needed any more.
    """

    def __init__(
        self,
        login: RedisLogin,
        on_push: Callable[[list[Any]], object],
        on_lost: Callable[[PipelinedConnection], object],
    ) -> None:
        self._login, self._on_push, self._on_lost = login, on_push, on_lost
        self._open: dict[Address, PipelinedConnection] = {}
        self._known: set[Address] = set()  # servers with which TLS is right
        self._opening: dict[Address, asyncio.Task[PipelinedConnection]] = {}

    def all(self) -> Collection[PipelinedConnection]:
        """The open connections."""
        return tuple(self._open.values())

    async def get(self, server: Address) -> PipelinedConnection:
        """The connection to a server. Callers at the same time share one attempt to open it.

        Raises:
            PluginError: it cannot be opened.
        """
        found = self._open.get(server)
        if found is not None:
            return found
        task = self._opening.get(server)
        if task is None:
            task = self._opening[server] = asyncio.create_task(self._connect(server))
            task.add_done_callback(lambda done: self._opened(server, done))
        await asyncio.wait({task})  # one that is cancelled leaves the attempt to the others
        if task.cancelled():
            raise UpstreamError("the connection to Redis is closed")
        error = task.exception()
        if error is not None:
            raise copy_error(error)
        return task.result()

    async def _connect(self, server: Address) -> PipelinedConnection:
        try:
            connection = await connect(server, self._login, self._on_push, self._lost)
        except PluginError as error:
            if server in self._known:
                raise
            raise with_tls_hint(error, self._login) from error
        self._known.add(server)
        if not connection.is_open:  # lost since it was opened
            raise UpstreamError(f"Redis {server} has closed the connection")
        if connection.kind.role in ("replica", "slave"):
            connection.close()
            raise UpstreamError(f"Redis {server} is a replica, which takes no writes")
        self._open[server] = connection
        return connection

    def _opened(self, server: Address, task: asyncio.Task[PipelinedConnection]) -> None:
        del self._opening[server]
        if not task.cancelled():
            task.exception()  # callers may be cancelled

    def _lost(self, connection: PipelinedConnection) -> None:
        if self._open.get(connection.server) is connection:
            del self._open[connection.server]
            self._on_lost(connection)

    def close_others(self, servers: Collection[Address]) -> None:
        """Close the connections to servers that are not primaries any more."""
        for server, connection in tuple(self._open.items()):
            if server not in servers:
                connection.close()

    async def aclose(self) -> None:
        """Close all connections, without a call of `on_lost`."""
        opening = tuple(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        connections, self._open = self._open, {}
        for connection in connections.values():
            connection.close()
