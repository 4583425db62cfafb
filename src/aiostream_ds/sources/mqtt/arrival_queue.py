"""The messages of a connection that were received, until they are taken."""

import asyncio
from collections import deque
from collections.abc import Callable

from aiostream_ds.errors import PluginError
from aiostream_ds.sources.mqtt.packets import Arrival

__all__ = ["ArrivalQueue"]

HIGH_WATER = 5_000
"""Messages that are not taken yet from which on nothing is read from the network."""

HIGH_WATER_BYTES = 16 << 20
"""Bytes of their payloads from which on nothing is read from the network."""


class ArrivalQueue:
    """Messages in the order of their arrival; when it is full, reading from the network pauses.

    Answers of the broker are read between its messages: take messages also while another task waits
    for an answer.

    Args:
        set_reading: pauses reading from the network, or resumes it.

    Attributes:
        is_full: whether reading is paused.
        pauses: how often it was paused.
    """

    def __init__(self, set_reading: Callable[[bool], None]) -> None:
        self._set_reading = set_reading
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: PluginError | None = None
        self.is_full = False
        self.pauses = 0

    def put(self, arrival: Arrival) -> None:
        """A message was received."""
        self._arrivals.append(arrival)
        self._bytes += len(arrival.message.payload)
        self._wake()
        if (len(self._arrivals) >= HIGH_WATER or self._bytes >= HIGH_WATER_BYTES) and (
            not self.is_full
        ):
            self.is_full = True
            self.pauses += 1
            self._set_reading(False)

    async def take(self) -> list[Arrival]:
        """The messages that have arrived since the last call, at least one. One task may wait.
        Safe to cancel.

        Raises:
            PluginError: the queue has ended, and all messages have been taken.
        """
        while not self._arrivals:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found = list(self._arrivals)
        self._arrivals.clear()
        self._bytes = 0
        if self.is_full:
            self.is_full = False
            self._set_reading(True)
        return found

    def end(self, error: PluginError) -> None:
        """No more messages are received: the connection is lost."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
