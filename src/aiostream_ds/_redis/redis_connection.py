"""Connections to Redis servers: opening, authenticating, commands, and errors in words.

A connection has one owner. One whose answer was not read to its end, because the owner was
cancelled or the time was up, is closed: the next owner would read the answer of somebody else.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, NamedTuple, TypeVar

import anyio
from redis.asyncio.connection import Connection as RedisConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from aiostream_ds._connection_errors import address, connection_error
from aiostream_ds.errors import BadQuery, ConfigError, PluginError, UpstreamError

__all__ = [
    "ANSWER_TIMEOUT",
    "CONNECT_TIMEOUT",
    "Address",
    "Connection",
    "RedisLogin",
    "MissingRight",
    "Moved",
    "NoSuchKey",
    "dial",
    "to_plugin_error",
    "with_tls_hint",
]

CONNECT_TIMEOUT = 5.0
"""Seconds in which a server must accept a connection and the login."""

ANSWER_TIMEOUT = 10.0
"""Seconds in which a server must answer a command."""

T = TypeVar("T")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return address(self.host, self.port)


class RedisLogin(NamedTuple):
    """How a connection is opened. `tls` is None for a plain one."""

    user: str
    password: str
    database: int
    tls: ssl.SSLContext | None

    @property
    def shown(self) -> str:
        """The user, for messages."""
        return f"the user {self.user!r}" if self.user else "the default user"


class _Socket(RedisConnection):
    """A connection of the client library with the TLS context of this package."""

    def __init__(self, server: Address, login: RedisLogin) -> None:
        super().__init__(
            host=server.host,
            port=server.port,
            username=login.user or None,
            password=login.password or None,
            db=login.database,
            protocol=2,
            socket_timeout=None,  # the time limits are those of `Connection`
            socket_connect_timeout=None,
            driver_info=None,  # the command CLIENT SETINFO would need a right of its own
        )
        self._tls = login.tls

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


class Connection:
    """An open connection with one owner. Created by `dial`.

    Not thread-safe, and without a retry: a command is sent once.

    Attributes:
        server: where it leads.
    """

    def __init__(self, server: Address, login: RedisLogin) -> None:
        self.server = server
        self._login = login
        self._socket = _Socket(server, login)
        self._unanswered = 0

    @property
    def is_open(self) -> bool:
        """Whether the connection is not lost."""
        return bool(self._socket.is_connected)

    @property
    def is_intact(self) -> bool:
        """Whether it is open and every `call` was answered."""
        return self.is_open and not self._unanswered

    async def open(self) -> None:
        """Connect and log in. Raises PluginError."""
        connecting: Awaitable[None] = self._socket.connect()  # type: ignore[no-untyped-call]
        try:
            await self._limited(connecting, CONNECT_TIMEOUT)
        except UpstreamError as error:
            raise with_tls_hint(error, self._login) from error

    async def close(self) -> None:
        """Close the connection without waiting for the server. A second call does nothing."""
        await self._socket.disconnect(nowait=True)

    async def call(self, *command: str | bytes | int, wait: float = 0.0) -> Any:
        """Send a command and return its answer, with texts as bytes.

        If the call is cancelled, the connection is not intact any more.

        Args:
            command: the words of the command.
            wait: seconds for which the server itself may wait before it answers.

        Raises:
            PluginError: the server refuses the command, or the connection is lost.
        """
        self._unanswered += 1
        try:
            answer = await self._limited(self._exchange(command), ANSWER_TIMEOUT + wait)
        except PluginError:
            self._unanswered -= self.is_open  # an open connection was answered by an error
            raise
        self._unanswered -= 1
        return answer

    async def send(self, *command: str | bytes | int) -> None:
        """Send a command without reading its answer. Raises PluginError."""
        await self._limited(self._socket.send_command(*command), ANSWER_TIMEOUT)

    async def receive(self) -> Any:
        """Wait for the next message of the server, without a time limit.

        Raises:
            PluginError: the server refuses a command, or the connection is lost.
        """
        try:
            return await self._socket.read_response(disable_decoding=True, timeout=inf)
        except (RedisError, OSError) as error:
            raise to_plugin_error(error, self.server, self._login) from error

    async def _exchange(self, command: tuple[str | bytes | int, ...]) -> Any:
        await self._socket.send_command(*command)
        return await self._socket.read_response(disable_decoding=True, timeout=inf)

    async def _limited(self, action: Awaitable[T], seconds: float) -> T:
        try:
            with anyio.fail_after(seconds):
                return await action
        except TimeoutError as error:
            await self.close()
            raise connection_error(error, self.server.host, self.server.port, "Redis") from error
        except (RedisError, OSError) as error:
            raise to_plugin_error(error, self.server, self._login) from error


@asynccontextmanager
async def dial(server: Address, login: RedisLogin) -> AsyncGenerator[Connection]:
    """A connection of one owner, which is closed at the end. Raises PluginError."""
    connection = Connection(server, login)
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()


def with_tls_hint(error: PluginError, login: RedisLogin) -> PluginError:
    """The error of a connection that could not be opened, with what may be wrong with TLS.

    Redis does not answer a handshake on a plain port, and sends no reason when it refuses a client
    without TLS or without a certificate.
    """
    is_closed = "closed the connection" in error.message
    hint = ""
    if login.tls is None:
        hint = "it may expect TLS: set tls" if is_closed else ""
    elif isinstance(error.__cause__, TimeoutError):
        hint = "or the port has no TLS: then set tls to false"
    elif is_closed:
        hint = (
            "it may demand a client certificate: set clientCertificate and clientKey; or be"
            " another server than Redis"
        )
    return UpstreamError(f"{error.message}; {hint}") if hint else error


class Moved(UpstreamError):
    """A key of a cluster is at another server. `is_asking`: only for one command."""

    def __init__(self, message: str, address: Address, *, is_asking: bool) -> None:
        super().__init__(message)
        self.server = address
        self.is_asking = is_asking


class MissingRight(ConfigError):
    """The Redis user lacks the right to a command, key or channel."""


class NoSuchKey(UpstreamError):
    """There is no such key."""


_PERMANENT = {
    "WRONGTYPE": BadQuery,
    "ERR DB index is out of range": ConfigError,
    "ERR unknown command": ConfigError,
    "ERR SELECT is not allowed in cluster mode": ConfigError,
    "ERR This instance has cluster support disabled": ConfigError,
}
"""The errors of a server, by how they begin, that a retry does not change."""


def to_plugin_error(error: Exception, server: Address, login: RedisLogin) -> PluginError:
    """The error for the user: permanent ones are ConfigError or BadQuery, others UpstreamError."""
    text = str(error)
    if isinstance(error, AuthenticationError) and error.status_code == "NOAUTH":
        return ConfigError(f"Redis {server} demands a password, got none; set password and user")
    if isinstance(error, AuthenticationError):
        return ConfigError(f"Redis {server} refuses {login.shown}: {text}")
    if isinstance(error, NoPermissionError):
        return MissingRight(f"Redis {server}: {login.shown} lacks a right: {text}")
    if isinstance(error, BusyLoadingError):
        return UpstreamError(f"Redis {server} is loading its data set into memory")
    if isinstance(error, AskError | MovedError):  # the first is a subclass of the second
        target = Address(error.host or server.host, error.port)
        asking = isinstance(error, AskError)
        return Moved(f"the key has moved to {target}", target, is_asking=asking)
    if text.startswith("Connection closed by server"):
        return UpstreamError(f"Redis {server} has closed the connection")
    if isinstance(error, InvalidResponse):
        return ConfigError(f"{server} does not answer as Redis does: {text}")
    if text == "no such key" or text.startswith("ERR no such key"):
        return NoSuchKey(f"Redis {server}: {text}")
    if isinstance(error, ResponseError):
        code = getattr(error, "status_code", None)
        text = f"{code} {text}" if code and not text.startswith(code) else text
        kind = next((_PERMANENT[each] for each in _PERMANENT if text.startswith(each)), None)
        return (kind or UpstreamError)(f"Redis {server}: {text}")
    return connection_error(error, server.host, server.port, "Redis")
