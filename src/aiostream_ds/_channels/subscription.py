"""What one reader of a channel has not fetched yet, and how its subscription ends.

    queued packets ──take()──▶ sent          the schema joins its rows at take(), exactly when this
          └────── dropped                    reader has another one: dropping never loses a schema

A mailbox is used from one event loop; nothing in it waits but `wait`. Imports `frames` and the
ground.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from msgspec import Struct

from aiostream_ds._channels.exceptions import (
    ChannelError,
    SlowSubscriber,
    StalledSubscriber,
    StreamFailed,
)
from aiostream_ds._channels.policy import SCHEMA_REPEAT, SCHEMA_SHOWN, Buffer
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.packet import Packet, Schema

__all__ = ["Feed", "Subscription", "SubscriptionStatistics", "Waiter"]


class Waiter(Protocol):
    """The future of an event loop, as far as a mailbox uses one."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...
    def __await__(self) -> Generator[object, None, None]: ...


class Feed(Protocol):
    """What a mailbox asks of its channel and tells it."""

    def _now(self) -> float: ...
    def _waiter(self) -> Waiter: ...
    def _drained(self) -> None: ...
    def _left(self, reader: "Subscription") -> None: ...
    def _dropped(self, rows: int, packets: int) -> None: ...
    @property
    def status(self) -> Status | None: ...


class SubscriptionStatistics(Struct, frozen=True):
    """What became of the packets of one subscription; bytes are those of the encoded data."""

    queued_packets: int
    queued_rows: int
    queued_bytes: int
    sent_packets: int
    sent_rows: int
    sent_bytes: int
    dropped_packets: int
    dropped_rows: int
    dropped_bytes: int


class Subscription:
    """One reader of a channel. Iterating gives what `take` gives, and waits in between.

    The registry makes it; whoever joined must `leave` it, also after it has ended. `on_ready` is
    the reader's to set: it is called when something can be taken, which it may do at once, and at
    the end. So is `sink`: while nothing is queued it is given each single packet, with its schema
    where the reader needs it, and says whether it took it; it must not emit. `stalled` is whether
    it was ended because nothing was taken: then nobody has to wait for what is on its way to it. A
    reader of the `exact` view also gets packets without rows, which say only a place, and `wait`
    tells it that the channel's status has changed.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_dropped_bytes",
        "_dropped_packets",
        "_dropped_rows",
        "_ended",
        "_error",
        "_feed",
        "_late_since",
        "_news",
        "_queue",
        "_queued_bytes",
        "_queued_rows",
        "_repeat_at",
        "_schema",
        "_sent_bytes",
        "_sent_packets",
        "_sent_rows",
        "_shown_until",
        "_wake_up",
        "exact",
        "on_ready",
        "sink",
        "stalled",
    )

    def __init__(self, feed: Feed, buffer: Buffer, *, exact: bool = False) -> None:
        self.on_ready: Callable[[], None] | None = None
        self.sink: Callable[[Schema | None, Packet], bool] | None = None
        self.exact = exact
        self.stalled = False
        self._news = False
        self._late_since: float | None = None  # full, and nothing was taken
        self._feed: Feed | None = feed
        self._buffer = buffer
        self._queue: deque[Packet] = deque()
        self._queued_rows = self._queued_bytes = 0
        self._sent_packets = self._sent_rows = self._sent_bytes = 0
        self._dropped_packets = self._dropped_rows = self._dropped_bytes = 0
        self._schema: Schema | None = None  # the last one that went out
        # Grafana starts a stream before its first viewer has joined: what goes out at once is lost.
        self._repeat_at = feed._now()
        self._shown_until = self._repeat_at + SCHEMA_SHOWN
        self._ended = False
        self._error: BaseException | None = None
        self._wake_up: Waiter | None = None

    def show_schema(self) -> None:
        """Let each `take` bring the schema until the first one after a moment has: someone new
        follows the path, and what is sent before they have joined is lost to them."""
        if self._feed is not None:
            self._repeat_at = self._feed._now()
            self._shown_until = self._repeat_at + SCHEMA_SHOWN

    # For the reader

    def take(self) -> list[tuple[Schema | None, Packet]]:
        """All that is queued, oldest first, each packet with its schema when the reader needs it.

        Never waits. Gives the rest also after the stream has ended, nothing after `leave`.
        """
        queue = self._queue
        if not queue:
            return []
        feed = self._feed
        current = self._schema
        if feed is not None:
            now = feed._now()
            if now >= self._repeat_at:
                current = None
                if now >= self._shown_until:
                    self._repeat_at = now + SCHEMA_REPEAT
        taken: list[tuple[Schema | None, Packet]] = []
        for packet in queue:
            schema = packet.schema
            if schema is current:
                taken.append((None, packet))
            elif current is not None and schema.fingerprint == current.fingerprint:
                taken.append((None, packet))
            else:
                current = schema
                taken.append((schema, packet))
        self._schema = current
        self._sent_packets += len(queue)
        self._sent_rows += self._queued_rows
        self._sent_bytes += self._queued_bytes
        queue.clear()
        self._queued_rows = self._queued_bytes = 0
        self._late_since = None
        if feed is not None:
            feed._drained()
        return taken

    async def wait(self) -> bool:
        """True when `take` has something, or `status` is another one; False when the stream has
        ended, or after `leave`.

        Raises:
            ChannelError: why the stream ended, if not by its author's return. Told once, after
                everything that was queued has been taken; then the answer is False.
            RuntimeError: another task waits already.
        """
        while not self._queue:
            if self._news:
                self._news = False
                return True
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise _told(error)
                return False
            feed = self._feed
            if self._wake_up is not None or feed is None:
                raise RuntimeError("one task at a time waits for a subscription")
            self._wake_up = feed._waiter()
            del feed
            try:
                await self._wake_up
            finally:
                self._wake_up = None
        return True

    def leave(self) -> None:
        """Give up what is queued and leave the channel. Never waits; a second call does nothing."""
        feed = self._feed
        self._discard(len(self._queue), counted=False)
        self._end(None)
        if feed is not None:
            feed._left(self)

    @property
    def passed(self) -> int:
        """Rows that have left the queue, taken or dropped."""
        return self._sent_rows + self._dropped_rows

    @property
    def status(self) -> Status | None:
        """How the stream is doing; None: it is live, or has ended."""
        return self._feed.status if self._feed is not None else None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come; what is queued can still be taken."""
        return self._ended

    def statistics(self) -> SubscriptionStatistics:
        """The counts as they are now."""
        return SubscriptionStatistics(
            queued_packets=len(self._queue),
            queued_rows=self._queued_rows,
            queued_bytes=self._queued_bytes,
            sent_packets=self._sent_packets,
            sent_rows=self._sent_rows,
            sent_bytes=self._sent_bytes,
            dropped_packets=self._dropped_packets,
            dropped_rows=self._dropped_rows,
            dropped_bytes=self._dropped_bytes,
        )

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> list[tuple[Schema | None, Packet]]:
        if not await self.wait():
            raise StopAsyncIteration
        return self.take()

    # For the channel

    def _push_direct(self, packet: Packet, now: float) -> bool:
        """Give a packet with rows straight to the sink; False: it has to be queued."""
        if self.sink is None or self._queue:
            return False
        schema, current, repeats = packet.schema, self._schema, now >= self._repeat_at
        if repeats or (
            schema is not current and (current is None or schema.fingerprint != current.fingerprint)
        ):
            if not self.sink(schema, packet):
                return False
            self._schema = schema
            if repeats and now >= self._shown_until:
                self._repeat_at = now + SCHEMA_REPEAT
        elif not self.sink(None, packet):
            return False
        self._sent_packets += 1
        self._sent_rows += packet.rows
        self._sent_bytes += len(packet.data)
        return True

    def _put(self, packets: Sequence[Packet], rows: int, size: int) -> None:
        """Queue packets, which have so many rows and bytes in all; `_wake` has to follow."""
        queue, buffer = self._queue, self._buffer
        older = len(queue)
        queue.extend(packets)
        self._queued_rows += rows
        self._queued_bytes += size
        if older and (buffer.full == "latest" or self._over()):
            self._overflow(older)
        elif buffer.full == "latest":
            self._discard(len(queue) - 1)

    def _overflow(self, older: int) -> None:
        """Of what waits, so many packets came before: what came just now stays, for a reader that
        keeps up has had no chance to fetch it."""
        buffer = self._buffer
        if self._is_stalled():
            self._stall()
        elif buffer.full == "latest":
            self._discard(len(self._queue) - 1)
        elif buffer.full == "drop_oldest":
            self._discard(self._surplus(older))
        elif buffer.full == "fail":
            rows = self._queued_rows
            self._evict(SlowSubscriber(
                f"{rows} rows waited for this reader; at most {buffer.rows} rows and"
                f" {buffer.bytes} bytes may"
            ))  # fmt: skip

    def _surplus(self, older: int) -> int:
        """How many of the oldest packets, of so many that may go, are over the bounds."""
        rows = self._queued_rows - self._buffer.rows
        size = self._queued_bytes - self._buffer.bytes
        count = 0
        while count < older and (rows > 0 or size > 0):
            packet = self._queue[count]
            rows -= packet.rows
            size -= len(packet.data)
            count += 1
        return count

    def _over(self) -> bool:
        return self._queued_rows > self._buffer.rows or self._queued_bytes > self._buffer.bytes

    def _is_full(self) -> bool:
        return bool(self._queue) and (
            self._queued_rows >= self._buffer.rows or self._queued_bytes >= self._buffer.bytes
        )

    def _above_high_water(self) -> bool:
        return (
            2 * self._queued_rows >= self._buffer.rows
            or 2 * self._queued_bytes >= self._buffer.bytes
        )

    def _stalls_at(self) -> float:
        """When this reader, which is full, counts as stalled unless it takes something."""
        if self._late_since is None:
            self._late_since = self._feed._now() if self._feed is not None else 0.0
        return self._late_since + self._buffer.stall_timeout

    def _is_stalled(self) -> bool:
        return self._feed is not None and self._feed._now() >= self._stalls_at()

    def _stall(self) -> None:
        self.stalled = True
        seconds = self._buffer.stall_timeout
        self._evict(StalledSubscriber(f"this reader has taken nothing for {seconds:g} s"))

    def _evict(self, error: ChannelError) -> None:
        feed = self._feed
        self._discard(len(self._queue))
        self._end(error)
        if feed is not None:
            feed._left(self)

    def _discard(self, count: int, *, counted: bool = True) -> None:
        """Drop the oldest packets. `counted`: the reader loses them, it has not left on its own."""
        rows = size = 0
        for _ in range(count):
            packet = self._queue.popleft()
            rows += packet.rows
            size += len(packet.data)
        self._queued_rows -= rows
        self._queued_bytes -= size
        self._dropped_packets += count
        self._dropped_rows += rows
        self._dropped_bytes += size
        if counted and count and self._feed is not None:
            self._feed._dropped(rows, count)

    def _tell_news(self) -> None:
        """The channel's status has changed."""
        self._news = True
        self._wake()

    def _end(self, error: BaseException | None) -> None:
        if self._feed is not None and self._feed._now() >= self._repeat_at:
            self._schema = None  # the rest is taken without a clock
        self._feed, self._ended, self._error = None, True, error
        self._wake()

    def _wake(self) -> None:
        if self.on_ready is not None:
            self.on_ready()
        if self._wake_up is not None and not self._wake_up.done():
            self._wake_up.set_result(None)


def _told(error: BaseException) -> ChannelError:
    """The error as one reader gets it: a new object, so that no two readers share a traceback."""
    if isinstance(error, ChannelError):
        return type(error)(*error.args)
    failed = StreamFailed(str(error) or type(error).__name__)
    failed.__cause__ = error
    return failed
