"""The connection of an engine to its NATS servers: opened again by itself, with its subscriptions.

Nothing is buffered while there is no connection: what is sent late, such as the renewal of a lease,
would be wrong.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._loggers import get_logger
from aiostream_ds._nats.nats_connection import NatsConnection, NatsOptions
from aiostream_ds._nats.nats_errors import NatsErrors
from aiostream_ds._nats.nats_protocol import NatsMessage
from aiostream_ds._nats.nats_servers import NatsServer, known_servers
from aiostream_ds.errors import ConfigError

__all__ = ["ConnectionReplaced", "MissingPermission", "NatsClient"]

logger = get_logger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds for one server."""

_RETRY_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds before each attempt at all servers; the last one again and again."""


class ConnectionReplaced(EngineError):
    """A request was for a connection that is lost: it was not sent."""


class MissingPermission(EngineError):
    """The user may not publish to a subject, or subscribe to it."""


_ERRORS = NatsErrors(
    EngineError,
    MissingPermission,
    "set cluster_user and cluster_password, or cluster_credentials_file",
)


class _Subscription:
    def __init__(self, subject: str, handler: Callable[[NatsMessage], None]) -> None:
        self.subject = subject
        self.handler = handler
        self.error: Exception | None = None
        """Why the server has refused it."""
        self.is_confirmed = False
        """The server has it: an error that names no subject is not about it."""


class NatsClient:
    """Sends requests on a connection that is replaced when it is lost.

    Args:
        servers: tried in random order, with those that the servers name.
        options: login and TLS.
        timeout: seconds in which a request is answered, or fails.
        restored: called after each reconnection, until it succeeds.
    """

    def __init__(
        self,
        servers: Sequence[NatsServer],
        options: NatsOptions,
        timeout: float,
        restored: Callable[[], Awaitable[None]],
    ) -> None:
        self._servers = servers
        self._options = options
        self._timeout = timeout
        self._restored = restored
        self._connection: NatsConnection | None = None
        self._connected = asyncio.Event()
        self._subscriptions: dict[int, _Subscription] = {}
        self._last_number = 0
        self._task: asyncio.Task[None] | None = None
        self.connection_number = 0
        """Grows with each connection."""
        self._reason = "it is not open"

    # -- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Connect to one of the servers.

        Raises:
            ConfigError: a server refuses the login or TLS, and none accepts it.
            EngineError: no server can be reached.
        """
        await self._connect()
        self._task = asyncio.create_task(self._keep_connected(), name="nats")

    async def aclose(self) -> None:
        """Close the connection; requests fail. A second call does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._connection is not None:
            self._connection.close("the engine is closed")
            self._connection = None
            await asyncio.sleep(0)  # until `connection_lost` was called
        self._connected.clear()

    async def _connect(self) -> None:
        """Connect to the first server that accepts. Raises the most useful of the errors."""
        errors: list[Exception] = []
        for server in random.sample(self._pool(), len(self._pool())):
            connection = NatsConnection(server, self._options, _ERRORS, self._refused)
            try:
                with anyio.fail_after(CONNECT_TIMEOUT):
                    await connection.open()
            except TimeoutError:
                errors.append(EngineError(connection.timeout_reason))
            except (EngineError, ConfigError) as error:
                errors.append(error)
            else:
                self._use(connection)
                return
        refusals = [each for each in errors if isinstance(each, ConfigError)]
        if refusals:
            raise refusals[0]
        raise EngineError("; ".join(str(each) for each in errors))

    def _pool(self) -> Sequence[NatsServer]:
        """The servers of the settings, and those that the last one has named."""
        last = self._connection
        if last is None:
            return self._servers
        return known_servers(self._servers, last.server, last.info)

    def _use(self, connection: NatsConnection) -> None:
        for number, each in self._subscriptions.items():
            each.error = None
            each.is_confirmed = False
            connection.subscribe(number, each.subject, each.handler)
        self._connection = connection
        self.connection_number += 1
        self._connected.set()

    async def _keep_connected(self) -> None:
        while True:
            assert self._connection is not None
            lost = self._connection.lost
            if not lost.done():
                await asyncio.wait([lost])
            self._connected.clear()
            self._reason = lost.result()
            logger.warning("NATS %s: %s; connecting again", self._connection.server, self._reason)
            await self._reconnect()

    async def _reconnect(self) -> None:
        """Connect until it succeeds; then restore what depends on the connection."""
        for attempt in range(1 << 30):
            delay = _RETRY_DELAYS[min(attempt, len(_RETRY_DELAYS) - 1)]
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            try:
                await self._connect()
                break
            except Exception as error:
                self._report(error)
        assert self._connection is not None
        while not self._connection.lost.done():
            try:
                await self._restored()
                return
            except Exception as error:
                self._report(error)
                await asyncio.sleep(random.uniform(0.1, 0.3))

    def _report(self, error: Exception) -> None:
        """Log why there is no connection, once for each reason. The attempts go on."""
        if str(error) != self._reason:
            is_bug = not isinstance(error, EngineError | ConfigError)
            logger.warning("%s", error, exc_info=error if is_bug else None)
        self._reason = str(error)

    # -- requests ------------------------------------------------------------------------------

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and payload together."""
        return self._connection.max_payload if self._connection is not None else 1 << 20

    @property
    def version(self) -> str:
        """The version of the server."""
        return str(self._connection.info.get("version", "")) if self._connection else ""

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        number: int | None = None,
    ) -> NatsMessage:
        """The answer to a request. With `number` it is sent on that connection only.

        Raises:
            ConnectionReplaced: there is another connection now.
            EngineError: there is none in time, or the connection is lost: the server may have
                processed the request.
            MissingPermission: the user may not publish to this subject.
        """
        return (await self._exchange(subject, payload, headers, number))[0]

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Publish without an answer: whether it was lost or refused is not known.

        Raises:
            EngineError: there is no connection in time.
        """
        try:
            with anyio.fail_after(self._timeout):
                connection = await self._open_connection()
                await connection.publish(subject, payload, headers)
        except TimeoutError:
            raise self._late() from None

    async def request_batch(self, subject: str, payload: bytes) -> Sequence[NatsMessage]:
        """The answers to a request, the last of which has a status. Raises as `request`."""
        return await self._exchange(subject, payload, None, is_batch=True)

    async def has_subscribers(self, subject: str, headers: Mapping[str, str]) -> tuple[int, bool]:
        """The number of the connection, and whether an empty message has reached a subscriber of
        the subject. Raises as `request`."""
        try:
            with anyio.fail_after(self._timeout):
                connection = await self._open_connection()
                number = self.connection_number
                return number, await connection.has_subscribers(subject, headers)
        except TimeoutError:
            raise self._late() from None

    async def _exchange(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        number: int | None = None,
        is_batch: bool = False,
    ) -> Sequence[NatsMessage]:
        try:
            with anyio.fail_after(self._timeout):
                connection = await self._open_connection()
                if number is not None and number != self.connection_number:
                    raise ConnectionReplaced("NATS: the connection was lost before the request")
                return await connection.request(subject, payload, headers, is_batch=is_batch)
        except TimeoutError:
            raise self._late() from None

    async def _open_connection(self) -> NatsConnection:
        while self._connection is None or self._connection.lost.done():
            if self._task is None:
                raise EngineError(f"NATS: {self._reason}")
            self._connected.clear()
            await self._connected.wait()
        return self._connection

    def _late(self) -> EngineError:
        if self._connection is None or self._connection.lost.done():
            return EngineError(f"NATS: not connected: {self._reason}")
        return EngineError(f"NATS {self._connection.server} does not answer in {self._timeout} s")

    # -- subscriptions -------------------------------------------------------------------------

    def subscribe(self, subject: str, handler: Callable[[NatsMessage], None]) -> int:
        """Call a function for each message of a subject, over reconnections too. Returns a number
        for `confirm` and `unsubscribe`."""
        self._last_number += 1
        self._subscriptions[self._last_number] = _Subscription(subject, handler)
        if self._connection is not None and not self._connection.lost.done():
            self._connection.subscribe(self._last_number, subject, handler)
        return self._last_number

    async def confirm(self, number: int) -> None:
        """Wait until the server that the client is connected to has a subscription.

        Raises:
            EngineError: there is no connection, the server does not answer in time, or it has
                refused a subscription without saying which, and this one may be it.
            MissingPermission: the user may not subscribe to this subject.
        """
        await self.flush()
        self.raise_if_refused(number)

    def raise_if_refused(self, number: int) -> None:
        """For who has waited for `flush` since the subscription. Raises as `confirm`."""
        subscription = self._subscriptions.get(number)
        if subscription is None:
            return
        if subscription.error is not None:
            raise subscription.error
        subscription.is_confirmed = True

    async def confirm_all(self) -> None:
        """Wait until the server has all subscriptions, after a reconnection. What it has refused
        before is sent to it again. Raises as `confirm`."""
        for number, each in self._subscriptions.items():
            if each.error is not None and self._connection is not None:
                each.error = None
                self._connection.unsubscribe(number)  # one of those that it may have accepted
                self._connection.subscribe(number, each.subject, each.handler)
        await self.flush()
        for number in tuple(self._subscriptions):
            self.raise_if_refused(number)

    async def flush(self) -> None:
        """Wait until the server has processed what was sent.

        Raises:
            EngineError: it has refused something, or does not answer in time.
        """
        try:
            with anyio.fail_after(self._timeout):
                connection = await self._open_connection()
                await connection.flush()
        except TimeoutError:
            raise self._late() from None

    def unsubscribe(self, number: int) -> None:
        """End a subscription."""
        self._subscriptions.pop(number, None)
        if self._connection is not None and not self._connection.lost.done():
            self._connection.unsubscribe(number)

    def _refused(self, subject: str, error: Exception) -> None:
        """The server has refused a subscription, or something when there is no subject."""
        refused = [
            each
            for each in self._subscriptions.values()
            if each.subject == subject or not (subject or each.is_confirmed)
        ]
        for each in refused:
            each.error = error
        if refused:
            logger.warning("%s", error)
