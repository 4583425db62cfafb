"""One WebSocket for all channels, whose messages are distinguished by a key."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

from aiostream_ds._channels.policy import Buffer
from aiostream_ds.sources.decoding import MessageErrors
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.http_client.recent_values import RecentValues
from aiostream_ds.sources.websocket.message_keys import MessageKeys
from aiostream_ds.sources.websocket.socket_reader import SocketReader
from aiostream_ds.sources.websocket.websocket_settings import Subscriptions
from aiostream_ds.upstream import Upstream

__all__ = ["SocketKey", "SharedSocket"]

ALL = ""  # the key of a channel that gets the messages of all keys

_SPARE_SECONDS = 5.0  # for the client to report its own time limit

QUEUE = Buffer(rows=1_000, bytes=16 << 20, full="block")
"""Messages, and their bytes, that wait for one channel. With more nothing is read from the
connection until there are less."""


class ReceivedMessage(NamedTuple):
    """A message of a channel."""

    payload: Any
    received: int
    """The Unix time in ms at which it was received."""
    size: int
    """Its share of the bytes that were received."""


class SocketKey(str):
    """The key of a channel's messages, equal to its text, with the values for the subscription."""

    values: Mapping[str, str]

    def __new__(cls, text: str, values: Mapping[str, str]) -> "SocketKey":
        """A key with this text."""
        key = super().__new__(cls, text)
        key.values = values
        return key


class SharedSocket(Upstream[str, ReceivedMessage]):
    """The connection. Its keys are `SocketKey`s.

    Args:
        open_socket: opens and logs in; entered for each connection.
        errors: where messages that are not rows are counted, as they have no channel.

    Attributes:
        keys_seen: the keys of messages that were received last.
        without_key: the messages without a key, such as confirmations.
    """

    def __init__(
        self,
        open_socket: Callable[[], AbstractAsyncContextManager[SocketReader]],
        subscriptions: Subscriptions,
        keys: MessageKeys,
        errors: MessageErrors,
        max_message: int,
        timeout: float,
        name: str,
    ) -> None:
        super().__init__(
            buffer=QUEUE,
            timeout=timeout + _SPARE_SECONDS,
            linger=1.0,
            name=name,
        )
        self._open_socket = open_socket
        self._subscriptions = subscriptions
        self._message_keys = keys
        self._message_errors = errors
        self._max_message = max_message
        self.keys_seen = RecentValues()
        self.without_key = 0

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SocketReader]:
        """Open the connection."""
        async with self._open_socket() as reader:
            if not self._subscriptions.names:
                await reader.send(self._subscriptions.message({}))
            yield reader

    async def subscribe(self, connection: SocketReader, key: str) -> None:
        """Send the message that subscribes to a channel."""
        if self._subscriptions.names and isinstance(key, SocketKey):
            await connection.send(self._subscriptions.message(key.values))

    async def unsubscribe(self, connection: SocketReader, key: str) -> None:
        """Send the message that ends the subscription."""
        if isinstance(key, SocketKey):
            await connection.send(self._subscriptions.closing_message(key.values))

    async def messages(
        self, connection: SocketReader
    ) -> AsyncGenerator[tuple[str, ReceivedMessage]]:
        """All messages, each with its key."""
        while True:
            payload = await connection.next()
            received = time.time_ns() // 1_000_000
            if len(payload) > self._max_message:
                self._message_errors.add(
                    ALL,
                    f"expected at most {self._max_message:,} bytes, which the setting maxMessage"
                    f" allows, got {len(payload):,}",
                    payload,
                )
                continue
            try:
                found = list(self._message_keys.split(payload))
            except BadRecord as error:
                self._message_errors.add(ALL, str(error), payload)
                continue
            for key, message in found:
                if key is None:
                    self.without_key += 1
                else:
                    self.keys_seen.add(key)
                size = len(payload) // len(found)
                yield key or ALL, ReceivedMessage(message, received, size)

    def message_bytes(self, message: ReceivedMessage) -> int:
        """Its share of the bytes that were received."""
        return message.size

    def keys_for(self, address: str) -> Iterable[str]:
        """A channel gets the messages of its key, and one without a key those of all."""
        return (address, ALL) if address != ALL else (ALL,)
