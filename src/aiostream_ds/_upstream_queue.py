"""One who follows a key of an `Upstream`: its bounded queue of messages, and how it ends.

Imports channels and the ground.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
from msgspec import Struct

from aiostream_ds._channels.policy import Buffer
from aiostream_ds.errors import PluginError, UpstreamError

__all__ = ["Follower", "Statistics"]

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT")


class Statistics(Struct, frozen=True):
    """How an upstream stands: who follows, and what became of its messages.

    `keys` are subscribed to now; `connects` counts attempts; `unasked` are messages that nobody
    followed, `dropped` those that a follower who was behind has lost.
    """

    followers: int
    keys: int
    connects: int
    messages: int
    unasked: int
    dropped: int


class Follower(Generic[MessageT]):
    """An async iterator over the messages of one key. Used from one event loop."""

    __slots__ = ("_behind", "_buffer", "_error", "_is_closed", "_is_ready", "_key", "_lost",
                 "_news", "_queue", "_room")  # fmt: skip

    def __init__(self, buffer: Buffer, count: Callable[[int], None], key: str) -> None:
        self._buffer = buffer
        self._lost = count
        self._key = key
        self._queue: deque[MessageT] = deque()
        self._error: Exception | None = None
        self._is_ready = self._is_closed = False
        self._behind = 0  # messages lost in this episode
        self._news = anyio.Event()
        self._room: anyio.Event | None = None

    # For the stream

    async def until_ready(self) -> None:
        """Wait until the key is subscribed to. Raises why it cannot be."""
        while not self._is_ready:
            await self._wait()

    def __aiter__(self) -> "Follower[MessageT]":
        return self

    async def __anext__(self) -> MessageT:
        while not self._queue:
            if self._behind:
                log.warning("%s: caught up; %d messages were lost", self._key, self._behind)
                self._behind = 0
            await self._wait()
        message = self._queue.popleft()
        if self._room is not None:
            self._room.set()
        return message

    async def _wait(self) -> None:
        if self._error is not None:
            raise _again(self._error)
        if self._is_closed:
            raise RuntimeError("the messages are read after their `async with` has ended")
        self._news = anyio.Event()
        await self._news.wait()

    # For the upstream

    @property
    def is_full(self) -> bool:
        """Whether the upstream has to wait for room."""
        return self._buffer.full == "block" and len(self._queue) >= self._buffer.rows

    async def room(self) -> None:
        """Wait until there is some, or nobody reads any more."""
        while self.is_full and not self._is_closed:
            self._room = anyio.Event()
            await self._room.wait()
        self._room = None

    def begin(self) -> None:
        """The key is subscribed to."""
        self._is_ready = True
        self._news.set()

    def put(self, message: MessageT) -> None:
        """One more message. Of too many the policy says which are lost."""
        if self._error is not None or self._is_closed:
            return
        full = self._buffer.full
        lost = 0
        if full == "latest":
            lost = len(self._queue)
            self._queue.clear()
        elif len(self._queue) >= self._buffer.rows and full != "block":
            if full == "fail":
                lost = len(self._queue) + 1
                self._queue.clear()
                most = self._buffer.rows
                self.fail(UpstreamError(f"{self._key}: more than {most} messages waited"))
            else:
                self._queue.popleft()
                lost = 1
        if lost:
            self._lost(lost)
            if full != "latest":
                if not self._behind:
                    log.warning("%s: a stream is behind: messages are lost", self._key)
                self._behind += lost
        if self._error is None:
            self._queue.append(message)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Nothing more comes. What is queued can still be read."""
        self._error = error
        self._news.set()

    def close(self) -> None:
        """Nobody reads any more."""
        self._is_closed = True
        self._queue.clear()
        if self._room is not None:
            self._room.set()


def _again(error: Exception) -> Exception:
    """The error as one follower gets it: each an object of its own, so that no two of them share a
    traceback."""
    if isinstance(error, PluginError):
        fresh: Exception = type(error).__new__(type(error), *error.args)
        vars(fresh).update(vars(error))
    else:
        fresh = UpstreamError(str(error))
    fresh.__cause__ = error.__cause__
    return fresh
