"""The bounded queue of one subscriber of an upstream's key."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio

from aiostream_ds._channels.policy import Buffer
from aiostream_ds._subscriber_queue import QueueOwner, SubscriberQueue
from aiostream_ds.errors import copy_error

__all__ = ["MessageQueue"]

MessageT = TypeVar("MessageT")


class MessageQueue(SubscriberQueue[MessageT]):
    """The messages of one key for one subscriber, as an async iterator. Not thread-safe."""

    __slots__ = ("_drained", "_is_subscribed", "_opened", "_stall_timeout")

    def __init__(
        self, buffer: Buffer, key: str, size_of: Callable[[MessageT], int] | None = None
    ) -> None:
        owner = QueueOwner(key, "messages", "upstream")
        super().__init__(buffer, owner, threading.RLock(), size_of=size_of)
        self._stall_timeout = buffer.stall_timeout
        self._is_subscribed = False
        self._opened = anyio.Event()  # the key is subscribed, or the queue has ended
        self._drained = anyio.Event()

    # For the subscriber

    async def wait_until_subscribed(self) -> None:
        """Wait until the key is subscribed. Raises the error for which it cannot be."""
        await self._opened.wait()
        if not self._is_subscribed and self._error is not None:
            raise copy_error(self._error)

    async def __anext__(self) -> MessageT:
        if self._blocks or not self._items:
            return await super().__anext__()
        item = self._items.popleft()  # the common case: with one thread it needs no lock
        if self._size_of is not None:
            self._bytes -= self._size_of(item)
        return item

    # For the upstream

    @property
    def is_blocked(self) -> bool:
        """Whether the policy is "block" and the queue is full."""
        return self._blocks and self.is_full and not self._is_ended

    async def drain(self) -> None:
        """Wait until the queue is not full, or is closed. A subscriber that takes nothing for
        `Buffer.stall_timeout` seconds gets an error."""
        while self.is_blocked:
            taken = self.taken
            self._drained = anyio.Event()
            with anyio.move_on_after(self._stall_timeout):
                await self._drained.wait()
            if self.is_blocked and self.taken == taken:
                self.end_stalled(self._stall_timeout)

    def set_subscribed(self) -> None:
        """The key is subscribed."""
        self._is_subscribed = True
        self._opened.set()

    def fail(self, error: Exception) -> None:
        """No more messages will be queued; `error` is raised after the queued ones."""
        self.end(error)

    def close(self) -> None:
        """The subscriber has left."""
        self.clear()
        if not self._is_ended:
            text = "the subscription has ended: read its messages inside its `async with` block"
            self.end(RuntimeError(text))

    def end(self, error: Exception | None) -> None:
        super().end(error)
        self._opened.set()
        self._drained.set()

    def _has_taken(self) -> None:
        self._drained.set()
