"""Writes the packets of a subscription to a RunStream call.

waiting ──▶ writing the queue ──▶ direct writing    no task wakes for a packet: it is written
                    ▲                   │           when it is emitted
                    └───────────────────┘ a full flow-control window, a large batch, or the end
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache

import anyio

from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import Packet, Schema, render
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.framing import bytes_header, message_prefix
from aiostream_ds._grpc.write_buffer import FLUSH_BYTES

__all__ = ["packet_message", "send_packets", "stream_packet", "write"]


@lru_cache(maxsize=4096)
def _prefix(size: int) -> bytes:
    """All bytes of a gRPC message `StreamPacket{data: …}` before its `size` bytes of data."""
    header = bytes_header(1, size)
    return message_prefix(len(header) + size) + header


def packet_message(schema: Schema | None, packet: Packet) -> bytes:
    """A packet as a gRPC message with its prefix."""
    if schema is None:  # nearly every packet: the result of `render`, in one step
        return b'%b{"data":%b}' % (_prefix(len(packet.data) + 9), packet.data)
    return stream_packet(render(schema, packet))


def stream_packet(payload: bytes) -> bytes:
    """A `StreamPacket` with this JSON, as a gRPC message with its prefix."""
    return _prefix(len(payload)) + payload


def _messages(packets: Sequence[tuple[Schema | None, Packet]]) -> bytes:
    """Packets as consecutive gRPC messages."""
    parts: list[bytes] = []
    for schema, packet in packets:
        if schema is None:
            data = packet.data
            parts += _prefix(len(data) + 9), b'{"data":', data, b"}"
        else:
            parts.append(packet_message(schema, packet))
    return b"".join(parts)


async def write(call: Call, subscription: Subscription, data: bytes) -> None:
    """Write messages; waits for the flow-control window, but not after the subscription stalled."""
    if len(data) <= FLUSH_BYTES and call.sent and call.stream.write_nowait(data):
        return subscription.sent()
    with anyio.CancelScope() as scope:

        def cancel_if_stalled() -> None:
            if subscription.stalled:
                scope.cancel()

        subscription.on_ready = cancel_if_stalled
        try:
            await call.write(data)
        finally:
            subscription.on_ready = None
    subscription.sent()


async def send_packets(call: Call, subscription: Subscription) -> None:
    """Send the subscription's packets until it ends, then leave it.

    Packets that are queued together are written together. Raises what `Subscription.wait` raises.
    """
    writer = _DirectWriter(call, subscription)
    try:
        while await subscription.wait():
            await writer.write_queue()
            await writer.write_directly()
            await writer.write_rest()
    finally:
        writer.stop()
        subscription.leave()


class _DirectWriter:
    """Writes packets from within `emit`, without a task, while the flow-control window is open."""

    __slots__ = (
        "_again",
        "_call",
        "_rest",
        "_stopped",
        "_stream",
        "_subscription",
        "_writing",
    )

    def __init__(self, call: Call, subscription: Subscription) -> None:
        self._call, self._stream = call, call.stream
        self._subscription = subscription
        self._rest = b""
        self._writing = self._again = False
        self._stopped: asyncio.Future[None] | None = None

    async def write_queue(self) -> None:
        """Write all queued packets, waiting for the flow-control window."""
        await write(self._call, self._subscription, _messages(self._subscription.receive_nowait()))

    async def write_rest(self) -> None:
        """Write the packets that did not fit the window of `write_directly`."""
        rest, self._rest = self._rest, b""
        if rest:
            await write(self._call, self._subscription, rest)

    async def write_directly(self) -> None:
        """Write each packet when it is emitted, until one cannot be or the subscription ends."""
        self._stopped = asyncio.get_running_loop().create_future()
        self._subscription.on_ready = self._on_ready
        self._subscription.sink = self._write
        self._on_ready()  # packets may have been queued while `write_queue` waited
        try:
            await self._stopped
        finally:
            self.stop()

    def stop(self) -> None:
        self._subscription.on_ready = self._subscription.sink = None
        self._stopped = None

    def _write(self, schema: Schema | None, packet: Packet) -> bool:
        """Write one packet that was just emitted. Returns False if it has to be queued."""
        if self._writing:  # queued packets are being written; this one comes after them
            return False
        if schema is None:  # nearly every packet: the result of `packet_message`, without a call
            data = b'%b{"data":%b}' % (_prefix(len(packet.data) + 9), packet.data)
        else:
            data = packet_message(schema, packet)
        return len(data) <= FLUSH_BYTES and self._stream.write_nowait(data)

    def _wake_task(self) -> None:
        """Leave the rest to the task; until it has written it, packets are queued."""
        self._subscription.sink = None
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

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
        stopped = self._stopped
        if stopped is None or stopped.done():
            return
        try:
            taken = self._subscription.receive_nowait()
            if taken:
                data = packet_message(*taken[0]) if len(taken) == 1 else _messages(taken)
                if len(data) > FLUSH_BYTES or not self._call.stream.write_nowait(data):
                    self._rest = data
                else:
                    self._subscription.sent()
            if self._rest or self._subscription.ended:
                self._wake_task()
        except Exception as error:
            if not stopped.done():
                stopped.set_exception(error)
