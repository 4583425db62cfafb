"""One key of an upstream: its subscribers, and its last messages for later ones."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, TypeVar

import anyio

from aiostream_ds.upstream.message_queue import MessageQueue

__all__ = ["FollowedKey"]

MessageT = TypeVar("MessageT")


class FollowedKey(Generic[MessageT]):
    """The subscribers of one key, and whether the upstream system sends its messages.

    It exists as long as it has subscribers, or is served by a task of the connection.
    """

    __slots__ = (
        "_changed",
        "_last",
        "_last_bytes",
        "_last_values",
        "_most_bytes",
        "_size_of",
        "deadline",
        "has_failed",
        "is_subscribed",
        "queues",
    )

    def __init__(
        self,
        last_values: int,
        most_bytes: int = 0,
        size_of: Callable[[MessageT], int] | None = None,
    ) -> None:
        self.queues: dict[MessageQueue[MessageT], None] = {}
        self.is_subscribed = False
        self.has_failed = False  # then there is nothing to unsubscribe
        self.deadline = inf  # when the timeout cancels the call that runs for this key
        self._last_values = last_values
        self._last_bytes = 0
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._last: OrderedDict[Hashable, MessageT] = OrderedDict()
        self._changed = anyio.Event()

    def join(self, queue: MessageQueue[MessageT]) -> None:
        """Add a subscriber. It gets the last messages first."""
        self.queues[queue] = None
        queue.start_with(self._last.values())
        if self.is_subscribed:
            queue.set_subscribed()
        self._changed.set()

    def leave(self, queue: MessageQueue[MessageT]) -> None:
        """Remove a subscriber, if it has not been removed by an error."""
        if self.queues.pop(queue, self) is not self and not self.queues:
            self._changed.set()

    def remember(self, address: Hashable, message: MessageT) -> None:
        """Keep the last message of an address for later subscribers."""
        if self._size_of is not None:
            self._forget(self._last.pop(address, None))
            self._last_bytes += self._size_of(message)
        self._last[address] = message
        self._last.move_to_end(address)
        while len(self._last) > self._last_values or (
            self._last_bytes > self._most_bytes and len(self._last) > 1
        ):
            self._forget(self._last.popitem(last=False)[1])

    def _forget(self, message: MessageT | None) -> None:
        if self._size_of is not None and message is not None:
            self._last_bytes -= self._size_of(message)

    def set_subscribed(self) -> None:
        """The upstream system sends the messages of this key."""
        self.is_subscribed = True
        for queue in self.queues:
            queue.set_subscribed()

    def reset(self) -> None:
        """The key is not subscribed any more; it may be subscribed again."""
        self.is_subscribed = self.has_failed = False
        self._last.clear()
        self._last_bytes = 0

    def fail(self, error: Exception) -> None:
        """Raise `error` in all subscribers, after the messages that they have not read."""
        queues, self.queues = self.queues, {}
        for queue in queues:
            queue.fail(error)
        self.reset()
        self.has_failed = True
        self._changed.set()

    async def wait_until_unused(self, linger: float) -> None:
        """Return when the key has failed, or has had no subscriber for `linger` seconds."""
        while not self.has_failed:
            self._changed = anyio.Event()
            if self.queues:
                await self._changed.wait()
                continue
            if linger > 0:
                with anyio.move_on_after(linger):
                    await self._changed.wait()
            if not self.queues:
                return
