"""The bounded queue of one subscriber of an upstream's key."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

from aiostream_ds._channels.policy import Buffer
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import UpstreamError, copy_error

__all__ = ["MessageQueue"]

log = get_logger(__name__)

MessageT = TypeVar("MessageT")


class MessageQueue(Generic[MessageT]):
    """The bounded queue of one subscriber: an async iterator over the messages of one key.

    A channel's `Subscription` has the same policies, but counts bytes and rows of packets.
    """

    __slots__ = (
        "_buffer",
        "_changed",
        "_drained",
        "_dropped",
        "_error",
        "_is_closed",
        "_is_subscribed",
        "_key",
        "_messages",
        "_on_drop",
    )

    def __init__(self, buffer: Buffer, on_drop: Callable[[int], None], key: str) -> None:
        self._buffer = buffer
        self._on_drop = on_drop
        self._key = key
        self._messages: deque[MessageT] = deque()
        self._error: Exception | None = None
        self._is_subscribed = self._is_closed = False
        self._dropped = 0  # messages, since the subscriber started to lag
        self._changed = anyio.Event()
        self._drained: anyio.Event | None = None

    # For the subscriber

    async def wait_until_subscribed(self) -> None:
        """Wait until the key is subscribed. Raises the error for which it cannot be."""
        while not self._is_subscribed:
            await self._wait()

    def __aiter__(self) -> "MessageQueue[MessageT]":
        return self

    async def __anext__(self) -> MessageT:
        while not self._messages:
            if self._dropped:
                log.warning("%s: caught up; %d messages were dropped", self._key, self._dropped)
                self._dropped = 0
            await self._wait()
        message = self._messages.popleft()
        if self._drained is not None:
            self._drained.set()
        return message

    async def _wait(self) -> None:
        if self._error is not None:
            raise copy_error(self._error)
        if self._is_closed:
            raise RuntimeError("expected the messages to be read inside their `async with` block")
        self._changed = anyio.Event()
        await self._changed.wait()

    # For the upstream

    @property
    def is_blocked(self) -> bool:
        """Whether the policy is "block" and the queue is full."""
        return self._buffer.full == "block" and len(self._messages) >= self._buffer.rows

    async def drain(self) -> None:
        """Wait until the queue is not full, or is closed."""
        while self.is_blocked and not self._is_closed:
            self._drained = anyio.Event()
            await self._drained.wait()
        self._drained = None

    def set_subscribed(self) -> None:
        """The key is subscribed."""
        self._is_subscribed = True
        self._changed.set()

    def put(self, message: MessageT) -> None:
        """Queue a message. When the queue is full, apply the policy."""
        if self._error is not None or self._is_closed:
            return
        full = self._buffer.full
        dropped = 0
        if full == "latest":
            dropped = len(self._messages)
            self._messages.clear()
        elif len(self._messages) >= self._buffer.rows and full != "block":
            if full == "fail":
                dropped = len(self._messages) + 1
                self._messages.clear()
                most = self._buffer.rows
                self.fail(
                    UpstreamError(
                        f"{self._key}: expected at most {most} queued messages, got {dropped}"
                    )
                )
            else:
                self._messages.popleft()
                dropped = 1
        if dropped:
            self._on_drop(dropped)
            if full != "latest":  # with it, replacing messages is not a fault
                if not self._dropped:
                    log.warning("%s: a subscriber is too slow: messages are dropped", self._key)
                self._dropped += dropped
        if self._error is None:
            self._messages.append(message)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """No more messages will be queued; `error` is raised after the queued ones."""
        self._error = error
        self._changed.set()

    def close(self) -> None:
        """The subscriber has left."""
        self._is_closed = True
        self._messages.clear()
        if self._drained is not None:
            self._drained.set()
