"""Followers of channels: rows that were just committed, without reading them again."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiostream_ds._loop_calls import wake

__all__ = ["CommittedRows", "Follower", "Followers"]

QUEUE_ROWS = 5_000
"""Rows that wait for a follower; if there are more, it reads them from the store."""


class CommittedRows(NamedTuple):
    """The rows of one append, which have the cursors first … last."""

    first: int
    last: int
    rows: list[dict[str, Any]]


class Follower:
    """One reader of a channel: rows that were committed since it last looked."""

    __slots__ = ("_is_changed", "_is_complete", "_lock", "_queue", "_rows", "_waiter", "error")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._queue: deque[CommittedRows] = deque()
        self._rows = 0
        self._is_changed = False
        self._is_complete = True
        self._waiter: asyncio.Future[None] | None = None
        self.error: Exception | None = None

    def put(self, committed: CommittedRows | None) -> None:
        """Queue rows; None: the channel has changed otherwise. Any thread, with the lock held."""
        if committed is None or self._rows + len(committed.rows) > QUEUE_ROWS:
            self._queue.clear()
            self._rows = 0
            self._is_complete = False
        else:
            self._queue.append(committed)
            self._rows += len(committed.rows)
        self._is_changed = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(waiter)

    def take(self) -> tuple[list[CommittedRows], bool]:
        """What was committed since the last call, and whether that is all that has changed."""
        with self._lock:
            found = list(self._queue), self._is_complete
            self._queue.clear()
            self._rows = 0
            self._is_changed, self._is_complete = False, True
            return found

    async def wait(self) -> None:
        """Wait until there is a change since the last `take`. Safe to cancel."""
        with self._lock:
            if self._is_changed:
                return
            waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            with self._lock:
                if self._waiter is waiter:
                    self._waiter = None


class Followers:
    """The followers of all channels. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, set[Follower]] = {}
        self._error: Exception | None = None

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    @contextmanager
    def follower(self, channel: str) -> Iterator[Follower]:
        """A follower of the channel, as long as the context lasts."""
        follower = Follower(self._lock)
        with self._lock:
            follower.error = self._error
            self._channels.setdefault(channel, set()).add(follower)
        try:
            yield follower
        finally:
            with self._lock:
                found = self._channels.get(channel, set())
                found.discard(follower)
                if not found:
                    self._channels.pop(channel, None)

    def put(self, channel: str, committed: CommittedRows | None) -> None:
        """Notify the followers of a channel."""
        if channel in self._channels:
            with self._lock:
                for follower in self._channels.get(channel, ()):
                    follower.put(committed)

    def end(self, error: Exception) -> None:
        """Raise the error in all followers, also in later ones."""
        with self._lock:
            self._error = error
            for found in self._channels.values():
                for follower in found:
                    follower.error = error
                    follower.put(None)
