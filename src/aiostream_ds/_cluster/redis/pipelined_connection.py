"""One connection to a server for many calls at a time: commands that are ready in one step of the
event loop leave together, and answers come in their order.

The protocol is RESP3, so that notifications and answers differ.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import anyio
from hiredis import ProtocolError, PushNotification, Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import RedisError

from aiostream_ds._redis.redis_connection import Address, RedisLogin, to_plugin_error
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError

__all__ = ["ANSWER_SECONDS", "ConnectionLost", "PipelinedConnection", "ServerKind", "connect"]

ANSWER_SECONDS = 2.0
"""Seconds in which a server must accept a connection. A connection on which an answer is missing
and nothing arrives for so long is closed: the network may have lost it."""

_GRACE = 0.05

Word = str | bytes | int

_NONE: set[bytes] = set()  # of calls: nothing is ever in it

_MORE = object()  # an answer is not complete

_numbers = itertools.count(1)


class ConnectionLost(Exception):
    """The connection ended before the answer: the command may have been executed."""


class ServerKind:
    """What a server is, by its answer to HELLO."""

    def __init__(self, fields: dict[bytes, Any]) -> None:
        self.name = fields.get(b"server", b"redis").decode()
        self.version = fields.get(b"version", b"0").decode()
        self.mode = fields.get(b"mode", b"").decode()
        self.role = fields.get(b"role", b"").decode()


class _Expected(NamedTuple):
    """An answer that was not received yet: since when, and for a subscription the kind of the
    notifications that confirm it, and the channels without one."""

    since: float
    answer: asyncio.Future[Any]
    kind: bytes
    unconfirmed: set[bytes]


class PipelinedConnection(asyncio.Protocol):
    """An open connection. Created by `connect`.

    Attributes:
        server: where it leads.
        number: which of this process it is.
        kind: what the server is.
        is_open: whether it is not lost.
        scripts: hashes of the scripts whose texts were sent.
    """

    kind: ServerKind

    def __init__(
        self,
        server: Address,
        login: RedisLogin,
        on_push: Callable[[list[Any]], object],
        on_lost: Callable[["PipelinedConnection"], object],
    ) -> None:
        self.server, self._login = server, login
        self.number = next(_numbers)
        self.is_open = False
        self.scripts: set[str] = set()
        self._on_push, self._on_lost = on_push, on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(replyError=DefaultParser.parse_error, notEnoughData=_MORE)
        self._outgoing: list[bytes] = []
        self._expected: deque[_Expected] = deque()
        self._received_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._reason: PluginError | None = None

    def call(self, *commands: tuple[Word, ...]) -> asyncio.Future[Any]:
        """Send commands one after the other; the future has the answer of the last one.

        Cancelling the future leaves the connection as it is.

        Raises:
            ConnectionLost: by the future; the connection ended before the answer.
            RedisError: by the future; the server has refused the command.
        """
        for command in commands[:-1]:
            self._send(command)
        return self._send(commands[-1])

    def subscribe(self, command: str, names: tuple[bytes, ...]) -> asyncio.Future[Any]:
        """Subscribe to channels, or unsubscribe from these; done when the server has confirmed."""
        return self._send((command, *names), command.lower().encode(), names)

    def close(self) -> None:
        """Close the connection; calls without an answer fail."""
        if self._transport is not None:
            self._transport.abort()

    def describe(self, error: Exception) -> PluginError:
        """The error in words."""
        if isinstance(error, ConnectionLost):
            return self._reason or UpstreamError(str(error))
        return to_plugin_error(error, self.server, self._login)

    def _send(
        self, command: tuple[Word, ...], kind: bytes = b"", names: tuple[bytes, ...] = ()
    ) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        if not self.is_open:
            _fail(answer, self._lost())
            return answer
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(pack_command(command))  # type: ignore[arg-type]
        unconfirmed = set(names) if names else _NONE
        self._expected.append(_Expected(self._loop.time(), answer, kind, unconfirmed))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(ANSWER_SECONDS, self._check_age)
        return answer

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _check_age(self, is_certain: bool = False) -> None:
        """Close the connection if the server is silent for too long while it owes an answer."""
        self._watchdog = None
        if not self._expected or not self.is_open:
            return
        since = max(self._expected[0].since, self._received_at)
        left = since + ANSWER_SECONDS - self._loop.time()
        if left > 0:
            self._watchdog = self._loop.call_later(left, self._check_age)
        elif not is_certain:  # if the event loop was busy, the answer has arrived meanwhile
            self._watchdog = self._loop.call_later(_GRACE, self._check_age, True)
        else:
            self._end(UpstreamError(f"Redis {self.server} does not answer in time"))

    def _end(self, reason: PluginError) -> None:
        self._reason = self._reason or reason
        self.close()

    # -- called by the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of another class
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Answers and notifications have arrived."""
        self._received_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (item := self._reader.gets()) is not _MORE:
                self._receive(item)
        except ProtocolError as error:
            self._end(ConfigError(f"{self.server} does not answer as Redis does: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        was_open, self.is_open = self.is_open, False
        if error is not None and self._reason is None:
            self._reason = to_plugin_error(error, self.server, self._login)
        if self._watchdog is not None:
            self._watchdog.cancel()
        expected, self._expected = self._expected, deque()
        for each in expected:
            _fail(each.answer, self._lost())
        if was_open:
            self._on_lost(self)

    def _lost(self) -> ConnectionLost:
        reason = self._reason
        return ConnectionLost(
            reason.message if reason else f"Redis {self.server} has closed the connection"
        )

    def _receive(self, item: Any) -> None:
        expected = self._expected[0] if self._expected else None
        if isinstance(item, PushNotification):
            if expected is None or expected.kind != item[0] or item[1] not in expected.unconfirmed:
                self._on_push(item)
                return
            expected.unconfirmed.discard(item[1])
            if expected.unconfirmed:
                return
        if expected is None:
            self._end(UpstreamError(f"Redis {self.server} has sent an answer without a question"))
            return
        self._expected.popleft()
        if isinstance(item, Exception):
            _fail(expected.answer, item)
        elif not expected.answer.done():  # the caller may be cancelled
            expected.answer.set_result(item)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # nobody has to wait for it


async def connect(
    server: Address,
    login: RedisLogin,
    on_push: Callable[[list[Any]], object],
    on_lost: Callable[[PipelinedConnection], object],
) -> PipelinedConnection:
    """Open a connection, log in, and find out what the server is.

    Args:
        server: where it listens.
        login: how.
        on_push: called with each notification.
        on_lost: called when the connection has ended.

    Raises:
        PluginError: the server cannot be used, or cannot be reached.
    """
    loop = asyncio.get_running_loop()
    connection = PipelinedConnection(server, login, on_push, on_lost)
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            await loop.create_connection(
                lambda: connection, server.host, server.port, ssl=login.tls
            )
            await _log_in(connection, login)
    except (RedisError, OSError, UnicodeError, ConnectionLost) as error:
        connection.close()
        raise connection.describe(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _log_in(connection: PipelinedConnection, login: RedisLogin) -> None:
    hello: tuple[Word, ...] = ("HELLO", 3)
    if login.user or login.password:
        hello = (*hello, "AUTH", login.user or "default", login.password)
    hello = (*hello, "SETNAME", "aiostream-ds")
    fields = await connection.call(hello)
    pairs = (
        fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    )
    connection.kind = ServerKind(pairs)
    if login.database:
        await connection.call(("SELECT", login.database))
