"""Writes the packets of a subscription to a RunStream call.

direct writing ◀──▶ a task writes what is left    no task wakes for a packet: it is written when it
               a large batch, or the end          is emitted, or when a flow-control window opens,
                                                  and no task exists meanwhile
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import starmap

import anyio

from aiostream_ds._channels.exceptions import ChannelError
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import Packet, Schema, render
from aiostream_ds._grpc.call import Call, Unattended
from aiostream_ds._grpc.framing import bytes_header, message_prefix
from aiostream_ds._grpc.write_buffer import FLUSH_BYTES

__all__ = ["PacketWriter", "packet_message", "send_packets", "stream_packet", "write"]


_MAX_SIZES = 4096
"""How many sizes of packets have what is before their data in memory."""

_LARGE_DATA = FLUSH_BYTES - 32
"""From this size on, the message of a packet without a schema may be above FLUSH_BYTES."""


@lru_cache(maxsize=_MAX_SIZES)
def _prefix(size: int) -> bytes:
    """All bytes of a gRPC message `StreamPacket{data: …}` before its `size` bytes of data."""
    header = bytes_header(1, size)
    return message_prefix(len(header) + size) + header


@lru_cache(maxsize=_MAX_SIZES)
def _before_data(size: int) -> bytes:
    """All bytes of the message of a packet without a schema before its `size` bytes of data."""
    return _prefix(size + len(b'{"data":}')) + b'{"data":'


class _BetweenData(dict[int, bytes]):
    """The same by size, with the end of the message before it. A dict that is filled as it is read:
    a burst of small packets looks each of them up, and `lru_cache` takes twice as long."""

    def __missing__(self, size: int) -> bytes:
        if len(self) >= _MAX_SIZES:
            self.clear()
        found = self[size] = b"}" + _before_data(size)
        return found


_between_data = _BetweenData()


def packet_message(schema: Schema | None, packet: Packet) -> bytes:
    """A packet as a gRPC message with its prefix."""
    if schema is None:  # nearly every packet: the result of `render`, in one step
        return b"".join((_before_data(len(packet.data)), packet.data, b"}"))
    return stream_packet(render(schema, packet))


def stream_packet(payload: bytes) -> bytes:
    """A `StreamPacket` with this JSON, as a gRPC message with its prefix."""
    return _prefix(len(payload)) + payload


def _messages(packets: Sequence[tuple[Schema | None, Packet]]) -> bytes:
    """Packets as consecutive gRPC messages."""
    if not packets:
        return b""
    schemas, alone = zip(*packets, strict=True)
    if not any(schemas[1:]):  # nearly always
        return _messages_of_one_schema(schemas[0], alone)
    return b"".join(starmap(packet_message, packets))


def _messages_of_one_schema(schema: Schema | None, packets: Sequence[Packet]) -> bytes:
    """The same for several packets; the first has this schema, the others have none."""
    data = [packet.data for packet in packets]
    parts = [b"}"] * (2 * len(data) + 1)
    parts[1::2] = data
    parts[:-1:2] = map(_between_data.__getitem__, map(len, data))
    if schema is None:
        parts[0] = _before_data(len(data[0]))
    else:
        parts[:2] = [packet_message(schema, packets[0])[:-1]]  # `parts` has its end
    return b"".join(parts)


async def write(call: Call, subscription: Subscription, data: bytes | memoryview) -> None:
    """Write messages; waits for the flow-control window, but not after the subscription stalled."""
    call.start()
    if len(data) <= FLUSH_BYTES and call.stream.write_nowait(data):
        return subscription.sent()
    with anyio.CancelScope() as scope:

        def cancel_if_stalled() -> None:
            if subscription.stalled:
                scope.cancel()

        subscription.on_ready = cancel_if_stalled
        cancel_if_stalled()  # it may be since the write was left to this task
        try:
            await call.write(data)
        finally:
            subscription.on_ready = None
    subscription.sent()


async def send_packets(
    call: Call,
    subscription: Subscription,
    to_status: Callable[[ChannelError], Exception] = lambda error: error,
) -> Unattended | None:
    """Send the subscription's packets until it ends, then leave it.

    Packets that are queued together are written together. Returns what goes on without a task, None
    at the end. Raises what `Subscription.wait` raises; `to_status` returns the error to raise in
    place of a ChannelError.
    """
    return await PacketWriter(call, subscription, to_status).attend()


class PacketWriter:
    """Writes packets without a task: from within `emit` while the flow-control windows are open,
    else when they open."""

    __slots__ = (
        "_again",
        "_call",
        "_failure",
        "_is_attended",
        "_rest",
        "_stream",
        "_subscription",
        "_to_status",
        "_writing",
    )

    def __init__(
        self,
        call: Call,
        subscription: Subscription,
        to_status: Callable[[ChannelError], Exception],
    ) -> None:
        self._call, self._stream = call, call.stream
        self._subscription = subscription
        self._to_status = to_status
        self._rest: bytes | memoryview = b""
        self._failure: Exception | None = None
        self._writing = self._again = False
        self._is_attended = True

    def begin(self) -> None:
        """Begin without a task, as `Call.unattended`."""
        self._call.unattended = self
        self._is_attended = False
        self._write_directly()

    async def attend(self) -> Unattended | None:
        """See `Unattended.attend`: write what has to wait for the flow-control window."""
        try:
            await self._write_rest()
            while not self._write_directly():
                await self._write_rest()
                if self._subscription.ended and not await self._subscription.wait():
                    self.cancel()
                    return None
        except ChannelError as error:
            self.cancel()
            raise self._to_status(error) from None
        except BaseException:
            self.cancel()
            raise
        self._is_attended = False
        return self

    def cancel(self) -> None:
        """See `Unattended.cancel`."""
        self._stop()
        self._failure = None  # its traceback refers to this object
        self._subscription.leave()

    async def _write_rest(self) -> None:
        """Write what is left."""
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # error → traceback → this frame → error would be a cycle
        rest, self._rest = self._rest, b""
        if rest:
            await write(self._call, self._subscription, rest)

    def _write_directly(self) -> bool:
        """Write each packet when it is emitted, until one cannot be or the subscription ends.
        Returns False when that is now."""
        self._subscription.on_ready = self._on_ready
        self._subscription.sink = self
        self._on_ready()  # packets may have been queued while the task waited
        return self._subscription.sink is not None

    def _stop(self) -> None:
        self._subscription.on_ready = self._subscription.sink = None
        self._stream.call_at_window(None)

    def write(self, schema: Schema | None, packet: Packet, /) -> bool:
        """See `DirectWriter.write`."""
        if self._writing or self._rest:  # this packet comes after those that were queued
            return False
        if not self._call.sent:  # the headers and the packet in one write, if it fits
            if self._call.start_with(packet_message(schema, packet)):
                return True
            if not self._begin_response():
                return False
        if schema is None:  # nearly every packet: the result of `packet_message`, without a copy
            data = packet.data
            size = len(data)
            return size < _LARGE_DATA and self._stream.write_nowait(data, _before_data(size), b"}")
        data = packet_message(schema, packet)
        return len(data) <= FLUSH_BYTES and self._stream.write_nowait(data)

    def write_all(self, schema: Schema | None, packets: Sequence[Packet], size: int, /) -> bool:
        """See `DirectWriter.write_all`."""
        if self._writing or self._rest or size > min(self._stream.free_window, FLUSH_BYTES):
            return False
        if not self._call.sent and not self._begin_response():
            return False
        data = _messages_of_one_schema(schema, packets)
        return len(data) <= FLUSH_BYTES and self._stream.write_nowait(data)

    def _begin_response(self) -> bool:
        """Write the headers of the response, which precede the first packet. Returns False if the
        stream is closed."""
        if not self._stream.is_open:
            return False
        self._call.start()
        return True

    def _need_task(self) -> None:
        """Leave the rest to a task; until it has written it, packets are queued."""
        self._stop()
        if not self._is_attended:
            self._is_attended = True
            self._call.resume()

    def _on_ready(self) -> None:
        """Called when packets are queued, also from within itself: taking them raises demand."""
        if self._writing:
            self._again = True
            return
        self._writing = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self._write_queued()
        finally:
            self._writing = False

    def _write_queued(self) -> None:
        subscription = self._subscription
        if subscription.sink is None:
            return
        try:
            waits = self._write_or_wait()
            if not waits and (self._rest or subscription.ended):
                self._need_task()
        except Exception as error:
            self._failure = error
            self._need_task()

    def _write_or_wait(self) -> bool:
        """Write what is queued, as far as the windows reach. Returns whether something waits for a
        window, and is written when that opens. What is large is left in `_rest`."""
        subscription, stream = self._subscription, self._stream
        if subscription.stalled:
            self._rest = b""
        if self._rest and not self._write_part():
            return self._wait()
        if not subscription.queue:
            return False
        if stream.free_window <= 0:  # the packets stay queued: some of them may be dropped
            return self._wait()
        taken = subscription.receive_nowait()
        data = packet_message(*taken[0]) if len(taken) == 1 else _messages(taken)
        self._call.start()
        if len(data) <= FLUSH_BYTES and stream.write_nowait(data):
            subscription.sent()
            return False
        self._rest = data
        return len(data) <= FLUSH_BYTES and not self._write_part() and self._wait()

    def _write_part(self) -> bool:
        """Write what the windows take of `_rest`. Returns whether that was all."""
        if self._stream.free_window > 0:
            rest = memoryview(self._rest)
            self._rest = rest[self._stream.write_part(rest, FLUSH_BYTES) :]
        if self._rest:
            return False
        self._subscription.sent()
        return True

    def _wait(self) -> bool:
        """Go on when a window opens; a stream that is closed is about to be cancelled."""
        if self._stream.is_open:
            self._stream.call_at_window(self._on_ready)
        return True
