"""The bounded queue of one subscriber: of a `Broadcast`, or of a key of an `Upstream`.

A channel's `Subscription` has the same policies, but counts bytes and rows of packets.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from aiostream_ds._author_threads import next_in_thread
from aiostream_ds._channels.policy import BATCH_ROWS, LAG_END, Buffer
from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import call_in, wake
from aiostream_ds._telemetry import Counters, current_counters
from aiostream_ds.errors import UpstreamError, copy_error

__all__ = ["QueueOwner", "SubscriberQueue"]

log = get_logger(__name__)

ItemT = TypeVar("ItemT")


class QueueOwner(NamedTuple):
    """What a queue belongs to, for messages and counters."""

    name: str
    items: Literal["rows", "messages"]
    reason: Literal["broadcast", "upstream"]  # of drops, in the metrics


class SubscriberQueue(Generic[ItemT]):
    """The items that one subscriber has not read, as an async iterator; in the thread of a stream
    that is a `def` as an iterator.

    Safe to cancel: a timeout around `anext` loses no item. One task reads it, in the event loop in
    which it was made. A subscriber that waits is woken once, not for each item. The other methods
    are called while `lock` is held, in any thread; with full="block" the caller of `put` has waited
    until the queue is not full.

    Attributes:
        taken: the number of items that were read.
        dropped: the number of items that were dropped, because the queue was full.
    """

    __slots__ = (
        "_blocks",
        "_bytes",
        "_drops",
        "_error",
        "_full",
        "_is_ended",
        "_items",
        "_lock",
        "_loop",
        "_most",
        "_most_bytes",
        "_owner",
        "_pause_at",
        "_size_of",
        "_waiter",
        "dropped",
        "taken",
    )

    def __init__(
        self,
        buffer: Buffer,
        owner: QueueOwner,
        lock: Any,
        items: Iterable[ItemT] = (),
        *,
        size_of: Callable[[ItemT], int] | None = None,  # None: bytes are not counted
    ) -> None:
        self._owner = owner
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._full = buffer.full
        self._blocks = buffer.full == "block"
        self._most = 1 if buffer.full == "latest" else buffer.rows
        self._most_bytes = buffer.bytes
        self._size_of = size_of
        self._bytes = 0
        self._items: deque[ItemT] = deque()
        self.start_with(items)
        self._drops = _Drops(owner, lock, self._loop, current_counters(), buffer.full != "latest")
        self._error: Exception | None = None
        self._is_ended = False
        self._pause_at = BATCH_ROWS  # items taken at which the event loop runs other tasks
        self._waiter: asyncio.Future[None] | None = None
        self.taken = self.dropped = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which it was made."""
        return self._loop

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        """The next item, in the thread of a stream that is a `def`. Waits for it."""
        return next_in_thread(self)

    async def __anext__(self) -> ItemT:
        if self.taken >= self._pause_at:  # a thread may put items as fast as this loop reads them
            self._pause_at = self.taken + BATCH_ROWS
            await asyncio.sleep(0)
        items = self._items
        while True:
            with self._lock:
                if items:
                    item = items.popleft()
                    self.taken += 1
                    if self._size_of is not None:
                        self._bytes -= self._size_of(item)
                    if self._blocks:
                        self._has_taken()
                    return item
                if self._is_ended:
                    if self._error is not None:
                        raise copy_error(self._error)
                    raise StopAsyncIteration
                if self._waiter is not None:
                    raise RuntimeError(
                        f"{self._owner.name}: expected one task to read a subscription, got a"
                        " second one; each task needs a subscription of its own"
                    )
                waiter = self._waiter = self._loop.create_future()
            self._pause_at = self.taken + BATCH_ROWS
            try:
                await waiter
            finally:
                with self._lock:
                    if self._waiter is waiter:
                        self._waiter = None

    @property
    def is_full(self) -> bool:
        """Whether as many items are queued as the bounds allow."""
        return len(self._items) >= self._most or self._bytes >= self._most_bytes

    def start_with(self, items: Iterable[ItemT]) -> None:
        """Queue the newest of the items that were there before the subscriber."""
        newest = deque(items, self._most)
        self._items.extend(newest)
        if self._size_of is not None:
            self._bytes += sum(map(self._size_of, newest))

    def put(self, item: ItemT) -> int:
        """Queue an item; when the queue is full, apply the policy. Returns the items dropped. After
        `end` it does nothing."""
        if self._is_ended:
            return 0
        items = self._items
        items.append(item)
        if self._size_of is not None:
            self._bytes += self._size_of(item)
        is_over = len(items) > self._most or self._bytes > self._most_bytes
        dropped = self._overflow() if is_over else 0
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            wake(waiter)
        return dropped

    def end(self, error: Exception | None) -> None:
        """No more items are queued; `error` is raised after those that are."""
        self._is_ended = True
        self._error = error
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(waiter)

    def clear(self) -> None:
        """Drop the items, uncounted: the subscriber has left."""
        self._items.clear()
        self._bytes = 0

    def end_stalled(self, seconds: float) -> None:
        """The subscriber has taken nothing for so many seconds with full="block"."""
        name = self._owner.name
        self.end(UpstreamError(f"{name}: the subscriber has taken nothing for {seconds:g} s"))

    def _overflow(self) -> int:
        if self._blocks:  # who puts has waited: only what it started with is above the bounds
            return 0
        has_too_many = len(self._items) > self._most
        if not has_too_many and len(self._items) == 1:  # the newest item is never dropped
            return 0
        dropped = 0
        if self._full == "fail":
            name, items, _ = self._owner
            if has_too_many:
                expected, found = f"{self._most} queued {items}", len(self._items)
            else:
                expected, found = f"{self._most_bytes} bytes of queued {items}", self._bytes
            dropped = len(self._items)
            self.clear()
            self.end(UpstreamError(f"{name}: expected at most {expected}, got {found}"))
            self._has_failed()
        while len(self._items) > self._most or (
            self._bytes > self._most_bytes and len(self._items) > 1
        ):
            item = self._items.popleft()
            if self._size_of is not None:
                self._bytes -= self._size_of(item)
            dropped += 1
        self.dropped += dropped
        self._drops.add(dropped)
        return dropped

    def _has_taken(self) -> None:
        """An item was taken, with full="block"."""

    def _has_failed(self) -> None:
        """The queue has ended by itself, with full="fail"."""


class _Drops:
    """What one queue has dropped: counted in its event loop, and logged when it begins and when
    there was none for `LAG_END` seconds.

    Its timer does not refer to the queue, which would keep it subscribed.
    """

    __slots__ = ("_counters", "_is_logged", "_lag", "_lock", "_loop", "_owner", "_uncounted")

    def __init__(
        self,
        owner: QueueOwner,
        lock: Any,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        is_logged: bool,  # not where replacing items is intended
    ) -> None:
        self._owner = owner
        self._lock = lock
        self._is_logged = is_logged
        self._loop = loop
        self._counters = counters
        self._uncounted = 0
        self._lag = 0  # items, since the subscriber began to lag

    def add(self, count: int) -> None:
        """Items were dropped. The caller holds the lock."""
        self._uncounted += count
        if self._uncounted == count:
            call_in(self._loop, self._count)

    def _count(self) -> None:
        with self._lock:
            count, self._uncounted = self._uncounted, 0
        name, items, reason = self._owner
        self._counters.count_dropped(reason, count)
        if not self._is_logged:
            return
        if not self._lag:
            log.warning("%s: a subscriber is too slow: %s are dropped", name, items)
            self._loop.call_later(LAG_END, self._check, count)
        self._lag += count

    def _check(self, before: int) -> None:
        name, items, _ = self._owner
        if self._lag > before:
            self._loop.call_later(LAG_END, self._check, self._lag)
        else:
            log.warning("%s: caught up; %d %s were dropped", name, self._lag, items)
            self._lag = 0
