"""The queue between a channel and one subscriber, and how it ends.

    emitted ──push_direct()──▶ sink                    the queue is empty and the sink takes it
       └──put()──▶ queued ──receive_nowait()──▶ sent
                      └────── dropped

The schema is joined to its rows when they are received, so dropping packets never loses a schema.
Bytes count against the limits of the instance and the process until the subscriber has sent them.
Only `wait` is a coroutine; a queue is used from one event loop.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import repeat
from typing import Protocol

from msgspec import Struct

from aiostream_ds._author_code import message_of
from aiostream_ds._channels.exceptions import (
    ChannelError,
    SlowSubscriber,
    StalledSubscriber,
    StreamFailed,
)
from aiostream_ds._channels.memory_pool import MemoryPool
from aiostream_ds._channels.policy import SCHEMA_ALWAYS, SCHEMA_REPEAT, Buffer
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds.errors import copy_error

__all__ = ["DirectWriter", "Subscription", "SubscriptionOwner", "SubscriptionStatistics", "Waiter"]


class Waiter(Protocol):
    """The future of an event loop, as far as a subscription uses one."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...
    def __await__(self) -> Generator[object, None, None]: ...


class SubscriptionOwner(Protocol):
    """The channel of a subscription: what a subscription needs of it, and the notifications."""

    @property
    def status(self) -> Status | None: ...
    def time(self) -> float: ...
    def create_future(self) -> Waiter: ...
    def subscription_drained(self) -> None: ...
    def subscription_left(self, subscription: "Subscription") -> None: ...
    def rows_dropped(self, rows: int, packets: int) -> None: ...


class DirectWriter(Protocol):
    """Takes packets of a subscription when they are emitted, or none of them. It must not emit."""

    def write(self, schema: Schema | None, packet: Packet, /) -> bool:
        """Take one packet, with its schema if the subscriber needs it. False: it was not taken."""

    def write_all(self, schema: Schema | None, packets: Sequence[Packet], size: int, /) -> bool:
        """Take several packets of one schema, which the first of them gets; `size` is the sum of
        their data. False: none was taken."""


class SubscriptionStatistics(Struct, frozen=True):
    """The counts of one subscription; bytes are those of the encoded data."""

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
    """The packets that one subscriber has not received yet. Made by `ChannelRegistry.join`.

    Iterating gives what `receive_nowait` gives, and waits in between. A subscriber has to call
    `leave`, also after the end. Not thread-safe: use it in the event loop's thread.

    Attributes:
        on_ready: set by the subscriber. Called when something can be received, and at the end. It
            may call `receive_nowait`.
        sink: set by the subscriber. While nothing is queued it gets the packets.
        exact: whether the subscriber follows the exact channel. Then it also gets packets without
            rows, which have only cursors, and `wait` returns when the channel's status changes.
        queue: the queued packets, oldest first; the channel reads it to find demand.
        stalled: whether the subscription was ended because the subscriber took nothing for too
            long.
        waiting_since: when the first packet in the queue was put there, by the loop's clock.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_channel",
        "_dropped_bytes",
        "_dropped_packets",
        "_dropped_rows",
        "_ended",
        "_error",
        "_held_bytes",
        "_is_refused",
        "_memory",
        "_queued_bytes",
        "_queued_rows",
        "_reserved_bytes",
        "_schema",
        "_schema_always_until",
        "_schema_due",
        "_sent_bytes",
        "_sent_packets",
        "_sent_rows",
        "_status_changed",
        "_waiter",
        "exact",
        "on_ready",
        "queue",
        "sink",
        "stalled",
        "waiting_since",
    )

    def __init__(
        self,
        channel: SubscriptionOwner,
        buffer: Buffer,
        memory: MemoryPool,
        *,
        exact: bool = False,
    ) -> None:
        self.on_ready: Callable[[], None] | None = None
        self.sink: DirectWriter | None = None
        self.exact = exact
        self.stalled = False
        self._status_changed = False
        self.waiting_since = 0.0
        self._channel: SubscriptionOwner | None = channel
        self._buffer = buffer
        self.queue: Sequence[Packet] = ()  # a deque only while packets are queued: it is large
        self._queued_rows = self._queued_bytes = 0
        self._memory = memory
        self._reserved_bytes = memory.free
        self._held_bytes = 0  # received, but perhaps not sent
        self._is_refused = False  # the queued bytes are more than the pool allows
        self._sent_packets = self._sent_rows = self._sent_bytes = 0
        self._dropped_packets = self._dropped_rows = self._dropped_bytes = 0
        self._schema: Schema | None = None  # the last one that was sent
        # Grafana starts a stream before its first viewer has joined: what is sent then is lost.
        self._schema_due = channel.time()
        self._schema_always_until = self._schema_due + SCHEMA_ALWAYS
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: Waiter | None = None

    # For the subscriber

    def receive_nowait(self) -> list[tuple[Schema | None, Packet]]:
        """All queued packets, oldest first, each with its schema if the subscriber needs it.

        Never waits. After the end of the stream it returns the rest, after `leave` nothing.
        """
        queue = self.queue
        if not queue:
            return []
        channel = self._channel
        current = self._schema
        if channel is not None:
            now = channel.time()
            if now >= self._schema_due:
                current = None
                if now >= self._schema_always_until:
                    self._schema_due = now + SCHEMA_REPEAT
        received, self._schema = _with_schemas(queue, current)
        self._sent_packets += len(queue)
        self._sent_rows += self._queued_rows
        self._sent_bytes += self._queued_bytes
        self.queue = ()
        self._held_bytes = self._queued_bytes
        self._queued_rows = self._queued_bytes = 0
        self._release()
        if channel is not None:
            channel.subscription_drained()
        return received

    def sent(self) -> None:
        """What was received is sent: its bytes need no memory any more. `wait` calls this."""
        self._held_bytes = 0
        self._release()

    async def wait(self) -> bool:
        """Wait until `receive_nowait` has packets or, for an exact channel, `status` has changed.

        False when the stream has ended, or after `leave`. Safe to cancel: no row is lost.

        Raises:
            ChannelError: why the stream ended, unless its author returned. Raised once, after
                everything queued has been received; later calls return False.
            RuntimeError: another task waits already.
        """
        self.sent()
        while not self.queue:
            if self._status_changed:
                self._status_changed = False
                return True
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise _channel_error(error)
                return False
            channel = self._channel
            if self._waiter is not None or channel is None:
                raise RuntimeError("expected one task to wait for a subscription, got a second one")
            self._waiter = channel.create_future()
            del channel
            try:
                await self._waiter
            finally:
                self._waiter = None
        return True

    def leave(self) -> None:
        """Drop what is queued and leave the channel. Never waits; a second call does nothing."""
        channel = self._channel
        self._discard(len(self.queue))
        self.sent()
        self.end(None)
        if channel is not None:
            channel.subscription_left(self)

    @property
    def dequeued_rows(self) -> int:
        """The number of rows that have left the queue, sent or dropped."""
        return self._sent_rows + self._dropped_rows

    @property
    def status(self) -> Status | None:
        """The channel's status; None: the stream is healthy, or has ended."""
        return self._channel.status if self._channel is not None else None

    @property
    def ended(self) -> bool:
        """Whether no more packets will be queued; what is queued can still be received."""
        return self._ended

    def statistics(self) -> SubscriptionStatistics:
        """The current counts."""
        return SubscriptionStatistics(
            queued_packets=len(self.queue),
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
        return self.receive_nowait()

    # For the channel

    def push_direct(self, packet: Packet, now: float) -> bool:
        """Pass a packet with rows to the sink; False: it has to be queued."""
        sink = self.sink
        if sink is None or self.queue:
            return False
        schema, current, is_due = packet.schema, self._schema, now >= self._schema_due
        if is_due or (
            schema is not current and (current is None or schema.fingerprint != current.fingerprint)
        ):
            if not sink.write(schema, packet):
                return False
            self._schema_sent(schema, now)
        elif not sink.write(None, packet):
            return False
        self._sent_packets += 1
        self._sent_rows += packet.rows
        self._sent_bytes += len(packet.data)
        return True

    def push_all_direct(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> bool:
        """As `push_direct`, for several packets with rows; `rows` and `size` are their sums. They
        have to be queued also if they have several schemas, or only the latest may be sent."""
        sink = self.sink
        if sink is None or self.queue or self._buffer.full == "latest":
            return False
        schema, current = packets[0].schema, self._schema
        if [packet.schema for packet in packets].count(schema) != len(packets):
            return False
        is_new = current is None or schema.fingerprint != current.fingerprint
        if is_new or now >= self._schema_due:
            if not sink.write_all(schema, packets, size):
                return False
            self._schema_sent(schema, now)
        elif not sink.write_all(None, packets, size):
            return False
        self._sent_packets += len(packets)
        self._sent_rows += rows
        self._sent_bytes += size
        return True

    def _schema_sent(self, schema: Schema, now: float) -> None:
        self._schema = schema
        if now >= self._schema_due and now >= self._schema_always_until:
            self._schema_due = now + SCHEMA_REPEAT

    def put(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> None:
        """Queue packets; `rows` and `size` are their sums. The caller calls `wake` afterwards."""
        buffer = self._buffer
        older = len(self.queue)
        if not older:
            self.waiting_since = now
        self._packets().extend(packets)
        self._queued_rows += rows
        self._queued_bytes += size
        if self._queued_bytes + self._held_bytes > self._reserved_bytes:
            self._reserve()
        if older and (buffer.full == "latest" or self._is_over_bounds()):
            self._handle_overflow(older)
        elif buffer.full == "latest":
            self._drop_all_but_latest()
        if self._is_refused:
            self._overdraw()

    def put_cursors(self, packet: Packet, now: float) -> None:
        """Queue a packet without rows. It replaces one at the end of the queue, so that what has no
        rows and bytes cannot grow. The caller calls `wake` afterwards."""
        if self.queue and not self.queue[-1].rows:
            self._packets()[-1] = packet
            self.evict_if_stalled()
        else:
            self.put((packet,), 0, 0, now)

    def wake(self) -> None:
        """Notify the subscriber."""
        if self.on_ready is not None:
            self.on_ready()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def notify_status(self) -> None:
        """The channel's status has changed."""
        self._status_changed = True
        self.wake()

    def repeat_schema(self) -> None:
        """Send the schema with all packets of the next moment: a viewer is about to follow.

        Packets that are sent before the viewer has joined do not reach it.
        """
        if self._channel is not None:
            self._schema_due = self._channel.time()
            self._schema_always_until = self._schema_due + SCHEMA_ALWAYS

    def end(self, error: BaseException | None) -> None:
        """No more packets will be queued; `error` is raised after the queued ones are received."""
        if self._channel is not None and self._channel.time() >= self._schema_due:
            self._schema = None  # due now; the channel has the clock
        self._channel, self._ended, self._error = None, True, error
        self.wake()

    @property
    def is_full(self) -> bool:
        """Whether as many rows or bytes are queued as the bounds and the memory limits allow."""
        return bool(self.queue) and (
            self._queued_rows >= self._buffer.rows
            or self._queued_bytes >= self._buffer.bytes
            or self._is_refused
        )

    @property
    def above_high_water(self) -> bool:
        """Whether the queue is at least half full."""
        return (
            2 * self._queued_rows >= self._buffer.rows
            or 2 * self._queued_bytes >= self._buffer.bytes
            or self._is_refused
        )

    def stalls_at(self) -> float:
        """When this subscription, whose queue is not empty, is stalled unless it is received from.

        The time counts from the first packet in the queue: from then on nothing was received.
        """
        return self.waiting_since + self._buffer.stall_timeout

    def evict_if_stalled(self) -> bool:
        """End this subscription, whose queue overflows, if nothing was received for too long."""
        if self._channel is None or self._channel.time() < self.stalls_at():
            return False
        self.stalled = True
        seconds = self._buffer.stall_timeout
        self._evict(StalledSubscriber(f"the subscriber has taken nothing for {seconds:g} s"))
        return True

    def _handle_overflow(self, older: int) -> None:
        """Apply the policy. Only the `older` packets may be dropped: a subscriber that keeps up has
        had no chance yet to receive the newer ones."""
        buffer = self._buffer
        if self.evict_if_stalled():
            return
        if buffer.full == "latest":
            self._drop_all_but_latest()
        elif buffer.full == "drop_oldest":
            self._drop(self._surplus(older))
        elif buffer.full == "fail":
            self._evict(SlowSubscriber(self._overflow()))

    def _overflow(self) -> str:
        buffer, got = self._buffer, f"got {self._queued_rows} rows and {self._queued_bytes} bytes"
        if self._is_refused:
            return f"the queues of slow subscribers have reached their memory limit, {got} queued"
        return f"expected at most {buffer.rows} rows and {buffer.bytes} bytes to be queued, {got}"

    def _reserve(self) -> None:
        """Reserve memory for what is queued."""
        more = self._missing_bytes()
        self._is_refused = not self._memory.reserve(more)
        if not self._is_refused:
            self._reserved_bytes += more

    def _overdraw(self) -> None:
        """Reserve memory for the newest packets, whatever the limits are."""
        more = self._missing_bytes()
        if more > 0:
            self._memory.overdraw(more)
            self._reserved_bytes += more

    def _missing_bytes(self) -> int:
        size = self._queued_bytes + self._held_bytes
        return self._memory.size_for(size) - self._reserved_bytes

    def _release(self) -> None:
        """Give back what the queue does not need any more."""
        if not self.queue:
            self._is_refused = False
        if self._reserved_bytes > self._memory.free:
            surplus = -self._missing_bytes()
            if surplus > 0:
                self._memory.release(surplus)
                self._reserved_bytes -= surplus

    def _drop_all_but_latest(self) -> None:
        count = len(self.queue) - 1
        while count and self.queue[count].continues:
            count -= 1
        self._drop(count)

    def _surplus(self, older: int) -> int:
        """How many of the `older` packets are over the bounds."""
        rows = self._queued_rows - self._buffer.rows
        size = self._queued_bytes - self._buffer.bytes
        if self._is_refused:
            size = max(size, self._queued_bytes + self._held_bytes - self._reserved_bytes)
        number = 0
        while number < older and (rows > 0 or size > 0):
            packet = self.queue[number]
            rows -= packet.rows
            size -= len(packet.data)
            number += 1
        return number

    def _is_over_bounds(self) -> bool:
        return (
            self._queued_rows > self._buffer.rows
            or self._queued_bytes > self._buffer.bytes
            or self._is_refused
        )

    def _evict(self, error: ChannelError) -> None:
        channel, count = self._channel, len(self.queue)
        rows = self._discard(count)
        self._release()
        self.end(error)
        if channel is not None:
            channel.subscription_left(self)
            if rows:  # last: the status column may emit, and this queue must stay empty
                channel.rows_dropped(rows, count)

    def _drop(self, count: int) -> None:
        """Drop the oldest packets: the subscriber has lost them."""
        rows = self._discard(count)
        if rows and self._channel is not None:
            self._channel.rows_dropped(rows, count)

    def _packets(self) -> deque[Packet]:
        """The queue as a deque, which is made if there is none."""
        queue = self.queue
        if not isinstance(queue, deque):
            self.queue = queue = deque()
        return queue

    def _discard(self, count: int) -> int:
        """Remove the oldest packets. Returns their rows."""
        if not count:
            return 0
        packets = self._packets()
        rows = size = 0
        for _ in range(count):
            packet = packets.popleft()
            rows += packet.rows
            size += len(packet.data)
        if not packets:
            self.queue = ()
        self._queued_rows -= rows
        self._queued_bytes -= size
        self._dropped_packets += count
        self._dropped_rows += rows
        self._dropped_bytes += size
        return rows


def _with_schemas(
    packets: Sequence[Packet], current: Schema | None
) -> tuple[list[tuple[Schema | None, Packet]], Schema | None]:
    """Each packet with its schema, if that differs from the one before; the first is compared with
    `current`. Also returns the schema of the last."""
    received: list[tuple[Schema | None, Packet]]
    first = packets[0].schema
    if [packet.schema for packet in packets].count(first) == len(packets):  # nearly always
        received = [*zip(repeat(None), packets, strict=False)]
        if current is not None and first.fingerprint == current.fingerprint:
            return received, current
        received[0] = (first, packets[0])
        return received, first
    received = []
    for packet in packets:
        schema = packet.schema
        if current is not None and schema.fingerprint == current.fingerprint:
            received.append((None, packet))
        else:
            current = schema
            received.append((schema, packet))
    return received, current


def _channel_error(error: BaseException) -> ChannelError:
    """The error that one subscriber gets: an object of its own."""
    if isinstance(error, ChannelError):
        return copy_error(error)
    failed = StreamFailed(message_of(error))
    failed.__cause__ = error
    return failed
