"""The events that an engine has for its node, in a queue with a bound."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from aiostream_ds._cluster.engine import Appended, Event, Reconnected, Sent

__all__ = ["EventQueue"]

MOST_EVENTS = 100_000
MOST_BYTES = 64 << 20


class EventQueue:
    """Events until they are read.

    When they are not read fast enough, they are dropped together, and `Reconnected` is put instead:
    the node then reads the logs. `drops` counts how often.
    """

    def __init__(self) -> None:
        self.drops = 0
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._is_closed = False

    def put(self, event: Event) -> None:
        """Add an event."""
        self._bytes += _size(event)
        self._events.append(event)
        if self._bytes > MOST_BYTES or len(self._events) > MOST_EVENTS:
            self.drops += 1
            self._events.clear()
            self._bytes = 0
            self._events.append(Reconnected())
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after the events that are there."""
        self._is_closed = True
        self._arrived.set()

    async def read(self) -> AsyncIterator[Event]:
        """The events, until the queue is closed."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._bytes -= _size(event)
                yield event
            if self._is_closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


def _size(event: Event) -> int:
    if isinstance(event, Sent):
        return len(event.payload)
    return len(event.entry.payload) if isinstance(event, Appended) else 0
