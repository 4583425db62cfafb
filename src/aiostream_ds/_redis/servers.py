"""Which server has a key: one server, the primary that Sentinel names, or a cluster's primaries.

Servers ──▶ address(key), primaries()
   ├──────▶ dial(address): a connection of one owner
   └──────▶ command(…): over a connection that is used again
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio
from redis.crc import key_slot

from aiostream_ds._loggers import get_logger
from aiostream_ds._redis.redis_connection import Address, Connection, Moved, RedisLogin, dial
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError

__all__ = [
    "REFRESH",
    "Call",
    "ClusterServers",
    "OneServer",
    "SentinelServers",
    "Servers",
    "keep_fresh",
    "read_addresses",
]

log = get_logger(__name__)

REFRESH = 5.0
"""Seconds between two checks which servers are the primaries, with Sentinel and in a cluster."""

IDLE_CONNECTIONS = 8
"""Maximum number of connections that are kept open for later commands."""

IDLE_SECONDS = 30.0
"""Seconds for which they are kept."""

_REDIRECTS = 5

T = TypeVar("T")

Call = Callable[..., Awaitable[Any]]
"""Sends a command, given as its words, and returns the answer."""


class Servers(ABC):
    """The servers of one data source.

    Args:
        login: how connections to the servers with the data are opened.
    """

    def __init__(self, login: RedisLogin) -> None:
        self.login = login
        self._idle: deque[tuple[float, Connection]] = deque()  # since when, oldest first

    @property
    def is_fixed(self) -> bool:
        """Whether the primaries never change, so that `refresh` is not needed."""
        return False

    @property
    def has_several_primaries(self) -> bool:
        """Whether keys are distributed to several servers."""
        return False

    @abstractmethod
    async def refresh(self) -> None:
        """Find out which servers are the primaries. Raises PluginError."""

    @abstractmethod
    async def address(self, key: bytes = b"") -> Address:
        """The primary that has a key. Raises PluginError."""

    @abstractmethod
    async def primaries(self) -> Sequence[Address]:
        """All primaries. Raises PluginError."""

    def slot(self, key: bytes) -> int:
        """A number that is equal for keys that one command can read together."""
        return 0

    def dial(self, address: Address) -> AbstractAsyncContextManager[Connection]:
        """A connection of one owner. Raises PluginError."""
        return dial(address, self.login)

    def caller(self, key: bytes) -> Call:
        """A function that sends commands to the server that has `key`; see `command`."""

        async def call(*words: str | bytes | int) -> Any:
            return await self.command(await self.address(key), *words)

        return call

    async def command(self, address: Address, *words: str | bytes | int) -> Any:
        """Send a command that only reads to a server, and return its answer.

        Safe to cancel: the connection is closed then. A command is sent again if the server has
        closed an idle connection, or names another server.

        Raises:
            PluginError: the server refuses the command or cannot be reached.
        """
        is_asking = False
        for _ in range(_REDIRECTS):
            try:
                return await self._exchange(address, words, is_asking)
            except Moved as moved:
                if not moved.is_asking:
                    await self.refresh()
                address, is_asking = moved.server, moved.is_asking
        raise UpstreamError(f"the key has moved more than {_REDIRECTS} times; last to {address}")

    async def _exchange(
        self, address: Address, words: tuple[str | bytes | int, ...], is_asking: bool
    ) -> Any:
        async def exchange(connection: Connection) -> Any:
            if is_asking:
                await connection.call("ASKING")
            return await connection.call(*words)

        idle = await self._take_idle(address)
        if idle is not None:
            try:
                return await self._use(idle, exchange)
            except UpstreamError:
                if idle.is_intact:
                    raise  # the server has answered
        connection = Connection(address, self.login)
        try:
            await connection.open()
        except BaseException:
            await connection.close()
            raise
        return await self._use(connection, exchange)

    async def _use(
        self, connection: Connection, exchange: Callable[[Connection], Awaitable[T]]
    ) -> T:
        """Use a connection, and keep it for the next command if it is intact."""
        try:
            return await exchange(connection)
        finally:
            if connection.is_intact and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append((anyio.current_time(), connection))
            else:
                await connection.close()

    async def _take_idle(self, server: Address) -> Connection | None:
        """An idle connection to this server; closes those that may have been forgotten by a
        firewall."""
        while self._idle and self._idle[0][0] < anyio.current_time() - IDLE_SECONDS:
            await self._idle.popleft()[1].close()
        for idle in self._idle:
            if idle[1].server == server:
                self._idle.remove(idle)
                return idle[1]
        return None

    async def close(self) -> None:
        """Close the connections that are kept for later commands."""
        while self._idle:
            await self._idle.popleft()[1].close()


class OneServer(Servers):
    """A single server, or a proxy in front of several."""

    def __init__(self, login: RedisLogin, address: Address) -> None:
        super().__init__(login)
        self._address = address

    @property
    def is_fixed(self) -> bool:
        return True

    async def refresh(self) -> None:
        """Nothing can change."""

    async def address(self, key: bytes = b"") -> Address:
        return self._address

    async def primaries(self) -> Sequence[Address]:
        return [self._address]


class SentinelServers(Servers):
    """The primary that Sentinel names.

    Args:
        login: how the primary is dialed.
        sentinels: the addresses of the sentinels; the one that answered last is asked first.
        sentinel_login: how they are dialed.
        primary: the name of the primary in the sentinels' configuration.
    """

    def __init__(
        self,
        login: RedisLogin,
        sentinels: Sequence[Address],
        sentinel_login: RedisLogin,
        primary: str,
    ) -> None:
        super().__init__(login)
        self._sentinels = list(sentinels)
        self._sentinel_login = sentinel_login
        self._primary = primary
        self._address: Address | None = None

    async def refresh(self) -> None:
        failures: list[PluginError] = []
        for sentinel in tuple(self._sentinels):
            try:
                found = await self._ask(sentinel)
            except PluginError as error:
                failures.append(error)
                continue
            if self._address is not None and found != self._address:
                log.info("Sentinel names another primary: %s instead of %s", found, self._address)
            self._address = found
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return
        transient = [failure for failure in failures if not failure.permanent]
        kind = UpstreamError if transient else ConfigError
        reason = [*transient, *failures][0].message
        raise kind(f"no sentinel names the primary {self._primary!r}: {reason}")

    async def _ask(self, sentinel: Address) -> Address:
        async with dial(sentinel, self._sentinel_login) as connection:
            found = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary)
        if found is None:
            raise ConfigError(
                f"the sentinel at {sentinel} does not know a primary named {self._primary!r}"
            )
        return Address(found[0].decode(), int(found[1]))

    async def address(self, key: bytes = b"") -> Address:
        if self._address is None:
            await self.refresh()
        assert self._address is not None
        return self._address

    async def primaries(self) -> Sequence[Address]:
        return [await self.address()]


class ClusterServers(Servers):
    """The primaries of a cluster, each with some of the 16,384 slots of keys.

    Args:
        login: how servers are dialed.
        seeds: addresses of some servers of the cluster.
    """

    def __init__(self, login: RedisLogin, seeds: Sequence[Address]) -> None:
        super().__init__(login)
        self._seeds = list(seeds)
        self._answered: list[Address] = []
        self._starts: list[int] = []  # the first slots of the ranges, ascending
        self._ranges: list[tuple[int, Address]] = []  # the last slot of each, and its primary

    @property
    def has_several_primaries(self) -> bool:
        return True

    def slot(self, key: bytes) -> int:
        found: int = key_slot(key)
        return found

    async def refresh(self) -> None:
        failure: PluginError | None = None
        known = dict.fromkeys(
            [*self._answered, *(address for _, address in self._ranges), *self._seeds]
        )
        for address in known:
            try:
                slots = await self._exchange(address, ("CLUSTER", "SLOTS"), is_asking=False)
                self._adopt(slots, address)
            except PluginError as error:
                failure = failure or error
            else:
                self._answered = [address]  # is asked first: others may not answer for seconds
                return
        assert failure is not None
        raise failure

    def _adopt(self, slots: Any, asked: Address) -> None:
        ranges = []
        for first, last, primary, *_ in slots:
            # a server that does not know its own address names none
            host = primary[0].decode() if primary[0] else asked.host
            ranges.append((int(first), int(last), Address(host, int(primary[1]))))
        if not ranges:
            raise UpstreamError(f"the cluster of {asked} serves no slots yet")
        ranges.sort()
        self._starts = [first for first, _, _ in ranges]
        self._ranges = [(last, address) for _, last, address in ranges]

    async def address(self, key: bytes = b"") -> Address:
        if not self._ranges:
            await self.refresh()
        if not key:
            return self._ranges[0][1]
        slot = self.slot(key)
        index = bisect_right(self._starts, slot) - 1
        if index < 0 or slot > self._ranges[index][0]:
            raise UpstreamError(f"no server of the cluster has the slot {slot} of {key!r}")
        return self._ranges[index][1]

    async def primaries(self) -> Sequence[Address]:
        if not self._ranges:
            await self.refresh()
        return list(dict.fromkeys(address for _, address in self._ranges))


async def keep_fresh(servers: Servers) -> None:
    """Refresh the primaries as long as the data source exists; readers notice a change.

    The last known ones stay while nobody can be asked.
    """
    failed = False
    while True:
        await anyio.sleep(REFRESH)
        try:
            await servers.refresh()
        except PluginError as error:
            if not failed:
                log.warning("the primaries of Redis are unknown: %s", error.message)
            failed = True
        else:
            failed = False


def read_addresses(text: str, port: int) -> list[Address]:
    """The addresses of the setting `host`: names with commas between them, each with or without
    a port.

    Raises:
        ConfigError: one is not an address.
    """
    found = []
    for part in (each.strip() for each in text.split(",")):
        host, own_port = _split_port(part)
        if not host or any(char.isspace() or char in "/@" for char in part):
            raise ConfigError(
                f"host must be a name or an address, as redis.example.com, got {part!r}"
            )
        if own_port and not (own_port.isdecimal() and 1 <= int(own_port) <= 65_535):
            raise ConfigError(f"the port in host must be from 1 to 65535, got {part!r}")
        found.append(Address(host, int(own_port) if own_port else port))
    return found


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):  # an IPv6 address with a port, as [::1]:6379
        host, end, port = text[1:].partition("]")
        return (host, port.removeprefix(":")) if end else ("", "")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port or "?"
    return text, ""
