"""Runs scripts on the server that has their keys, and again after lost connections, failovers and
moves of keys. All operations of the engine may be repeated without harm."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.redis.open_connections import OpenConnections
from aiostream_ds._cluster.redis.pipelined_connection import (
    ConnectionLost,
    PipelinedConnection,
    Word,
)
from aiostream_ds._cluster.redis.redis_scripts import Script
from aiostream_ds._cluster.redis.setting_names import in_cluster_settings
from aiostream_ds._loggers import get_logger
from aiostream_ds._redis.redis_connection import Address
from aiostream_ds._redis.servers import Servers
from aiostream_ds.errors import PluginError

__all__ = ["CALL_SECONDS", "RedisCalls", "Recovery"]

log = get_logger(__name__)

CALL_SECONDS = 3.0
"""Seconds for which a call is repeated. It ends after at most two more, for the last answer."""

FIRST_PAUSE = 0.02
"""Seconds before the first repetition; they double with each failure in a row."""

LONGEST_PAUSE = 0.5
"""Maximum of this pause in seconds."""

_TRANSIENT = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
_TRANSIENT_CODES = ("BUSY", "NOREPLICAS")

T = TypeVar("T")


class Recovery:
    """What follows a failure: a pause, and the question which servers are the primaries. Callers at
    the same time share it.

    Args:
        servers: the servers.
        on_change: called with the primaries afterwards.
    """

    def __init__(self, servers: Servers, on_change: Callable[[set[Address]], object]) -> None:
        self._servers, self._on_change = servers, on_change
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """A call has had an answer: the next pause is the shortest one."""
        self._failures = 0

    async def run(self, seconds: float | None = None) -> None:
        """Wait until it has ended, or for so many seconds. Does not raise."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._recover())
        await asyncio.wait({self._task}, timeout=seconds)

    async def _recover(self) -> None:
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        self._failures = min(self._failures + 1, 16)
        await asyncio.sleep(pause)
        await self.refresh()

    async def refresh(self) -> None:
        """Ask which servers are the primaries; the last known ones stay if nobody answers."""
        try:
            await self._servers.refresh()
            self._on_change(set(await self._servers.primaries()))
        except PluginError as error:
            log.debug("the primaries of Redis are unknown: %s", error.message)

    async def aclose(self) -> None:
        """End what still runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class RedisCalls:
    """Calls of scripts by their keys.

    Args:
        servers: which server has a key.
        recovery: what follows a failure.
        on_lost: called with a connection that was lost.

    Attributes:
        is_closed: whether calls fail from now on.
    """

    def __init__(
        self,
        servers: Servers,
        recovery: Recovery,
        on_lost: Callable[[PipelinedConnection], object],
    ) -> None:
        self._servers, self._recovery = servers, recovery
        self.is_closed = False
        self.connections = OpenConnections(servers.login, lambda item: None, on_lost)

    async def run(self, script: Script, keys: tuple[bytes, ...], *arguments: Word) -> Any:
        """Run a script. Raises EngineError."""
        rest: tuple[Word, ...] = (len(keys), *keys, *arguments)
        command = ("EVALSHA", script.hash, *rest)

        async def attempt() -> Any:
            connection = await self.connections.get(await self._servers.address(keys[0]))
            try:
                return await connection.call(command)
            except NoScriptError:
                if script.hash not in connection.scripts:
                    connection.scripts.add(script.hash)
                    return await connection.call(("EVAL", script.text, *rest))
                return await self._after_the_text(connection, script, rest)
            except AskError as error:
                other = await self.connections.get(_target(error, connection))
                return await other.call(("ASKING",), ("EVAL", script.text, *rest))
            except ReadOnlyError:
                connection.close()  # its server has become a replica: the name may lead elsewhere
                raise

        return await self.repeat(attempt)

    async def _after_the_text(
        self, connection: PipelinedConnection, script: Script, rest: tuple[Word, ...]
    ) -> Any:
        """Run a script whose text another call has sent: many calls are on their way to a server
        that does not have it."""
        try:
            return await connection.call(("EVALSHA", script.hash, *rest))
        except NoScriptError:  # it has forgotten it
            return await connection.call(("EVAL", script.text, *rest))

    async def reach_all(self) -> None:
        """Open connections to all primaries. Raises PluginError."""
        for server in await self._servers.primaries():
            await self.connections.get(server)

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat an attempt until it succeeds, or for `CALL_SECONDS`.

        Raises:
            EngineError: it has not succeeded.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + CALL_SECONDS
        while True:
            if self.is_closed:
                raise EngineError("the connection to Redis is closed")
            try:
                result = await attempt()
            except (ConnectionLost, RedisError, PluginError) as error:
                left = end - loop.time()
                if left <= 0 or not is_transient(error):
                    raise EngineError(in_words(error)) from error
            else:
                self._recovery.succeeded()
                return result
            await self._recovery.run(left)


def is_transient(error: Exception) -> bool:
    """Whether the same command may succeed within seconds."""
    if isinstance(error, PluginError):
        return not error.permanent
    if isinstance(error, ResponseError) and str(error).startswith(_TRANSIENT_CODES):
        return True
    return isinstance(error, (ConnectionLost, *_TRANSIENT))


def in_words(error: Exception) -> str:
    """The message of an EngineError."""
    if isinstance(error, PluginError):
        return in_cluster_settings(error).message
    if isinstance(error, ConnectionLost):
        return str(error)
    code = getattr(error, "status_code", None)
    text = str(error)
    return f"Redis: {text if not code or text.startswith(code) else f'{code} {text}'}"


def _target(error: AskError, connection: PipelinedConnection) -> Address:
    return Address(error.host or connection.server.host, error.port)
