"""An `Upstream` without an upstream system, for tests of data sources that follow one.

    class TopicsDouble(UpstreamDouble[str, str], Topics): ...

The test decides about connections, keys and messages; `keys_for` and everything else is the
author's.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from aiostream_ds.upstream import Upstream
from aiostream_ds.upstream.shared_connection import KeyT, MessageT

__all__ = ["UpstreamDouble"]


class UpstreamDouble(Upstream[KeyT, MessageT]):
    """An Upstream whose system is the test.

    `subscribed` has the keys that are subscribed on the connection. Set `refusal` to an error that
    connecting raises, and `refused[key]` to one that subscribing to a key raises.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.subscribed: set[KeyT] = set()
        self.refusal: Exception | None = None
        self.refused: dict[KeyT, Exception] = {}
        self._sent: deque[tuple[KeyT, MessageT]] = deque()
        self._disconnect_error: Exception | None = None
        self._news = anyio.Event()

    def send(self, address: KeyT, *messages: MessageT) -> None:
        """The system sends messages with this address. They are lost if there is no connection."""
        self._sent.extend((address, message) for message in messages)
        self._news.set()

    def disconnect(self, error: Exception | None = None) -> None:
        """The connection is lost after the messages that were sent, with this error or a
        ConnectionResetError. Without a connection, nothing happens."""
        self._disconnect_error = error or ConnectionResetError("connection reset")
        self._news.set()

    def fail(self, key: KeyT, error: Exception) -> None:
        """The system ends the subscription to a key with an error."""
        self.subscribed.discard(key)
        super().fail(key, error)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Any]:
        """Connect, or raise `refusal`."""
        if self.refusal is not None:
            raise self.refusal
        self._sent.clear()
        self._disconnect_error = None
        try:
            yield
        finally:
            self.subscribed.clear()

    async def subscribe(self, connection: Any, key: KeyT) -> None:
        """Subscribe, or raise `refused[key]`."""
        if key in self.refused:
            raise self.refused[key]
        self.subscribed.add(key)

    async def unsubscribe(self, connection: Any, key: KeyT) -> None:
        """Unsubscribe."""
        self.subscribed.discard(key)

    async def messages(self, connection: Any) -> AsyncGenerator[tuple[KeyT, MessageT], None]:
        """The messages that the test sends."""
        while True:
            while self._sent:
                yield self._sent.popleft()
            if self._disconnect_error is not None:
                raise self._disconnect_error
            self._news = anyio.Event()
            await self._news.wait()
