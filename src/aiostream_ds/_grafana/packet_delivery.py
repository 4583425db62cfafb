"""A channel's packets on their way out: the body of a RunStream call.

    waiting ──▶ draining ──▶ pushing      pushing: no task wakes for a packet, it is written as soon
                    ▲           │         as it is emitted
                    └───────────┘ a closed window, much at once, or the end

May import frames and this room's wire; what a channel is, only by the methods of `Reader`.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import anyio

from aiostream_ds._frames.packet import Packet, Schema, render
from aiostream_ds._grpc.call import Call
from aiostream_ds._http2.write_buffer import FLUSH_BYTES

__all__ = ["Reader", "message", "packet_bytes", "send_packets", "write"]


class Reader(Protocol):
    """What `send_packets` needs of a channel's subscription."""

    on_ready: Callable[[], None] | None
    sink: Callable[[Schema | None, Packet], bool] | None

    @property
    def stalled(self) -> bool:
        """Whether it was ended because we took nothing."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    def receive_nowait(self) -> Sequence[tuple[Schema | None, Packet]]:
        """Everything that waits, each with its schema when this reader has not had it yet."""

    async def wait(self) -> bool:
        """True when something waits, False at the end; raises the stream's error."""

    def leave(self) -> None:
        """Stop reading; may be called twice."""


@lru_cache(maxsize=4096)
def _prefix(size: int) -> bytes:
    """gRPC's and protobuf's heads of `StreamPacket{data: …}` with so many bytes of data."""
    head, rest = b"\x0a", size
    while rest > 0x7F:
        head += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    head += bytes((rest,))
    return b"\0%b%b" % ((len(head) + size).to_bytes(4, "big"), head)


def packet_bytes(schema: Schema | None, packet: Packet) -> bytes:
    """A packet as a whole gRPC message, ready for the wire."""
    if schema is None:  # as `render` has it, in one step: this is nearly every packet
        return b'%b{"data":%b}' % (_prefix(len(packet.data) + 9), packet.data)
    return message(render(schema, packet))


def message(payload: bytes) -> bytes:
    """A payload as a whole gRPC message."""
    return _prefix(len(payload)) + payload


def _joined(taken: Sequence[tuple[Schema | None, Packet]]) -> bytes:
    """Packets as whole gRPC messages, one behind the other."""
    parts: list[bytes] = []
    for schema, packet in taken:
        if schema is None:
            data = packet.data
            parts += _prefix(len(data) + 9), b'{"data":', data, b"}"
        else:
            parts.append(packet_bytes(schema, packet))
    return b"".join(parts)


async def write(call: Call, reader: Reader, data: bytes) -> None:
    """Write messages, waiting for the windows; not any more once the reader has stalled."""
    if len(data) <= FLUSH_BYTES and call.sent and call.stream.write_nowait(data):
        return
    with anyio.CancelScope() as scope:

        def look() -> None:
            if reader.stalled:
                scope.cancel()

        reader.on_ready = look
        try:
            await call.write(data)
        finally:
            reader.on_ready = None


async def send_packets(call: Call, reader: Reader) -> None:
    """Send what `reader` brings until it ends, then leave.

    What waits together leaves together. Raises what `reader.wait` raises.
    """
    push = _Push(call, reader)
    try:
        while await reader.wait():
            await push.drain()
            await push.until_needed()
            await push.drain_rest()
    finally:
        push.stop()
        reader.leave()


class _Push:
    """Writes without a task while the windows are open and little comes at once."""

    __slots__ = ("_again", "_call", "_needed", "_pushing", "_reader", "_rest", "_stream")

    def __init__(self, call: Call, reader: Reader) -> None:
        self._call, self._stream = call, call.stream
        self._reader = reader
        self._rest = b""
        self._pushing = self._again = False
        self._needed: asyncio.Future[None] | None = None

    async def drain(self) -> None:
        """Write all that waits now, in the task, waiting for the windows."""
        await write(self._call, self._reader, _joined(self._reader.receive_nowait()))

    async def drain_rest(self) -> None:
        """Write what `push` could not."""
        rest, self._rest = self._rest, b""
        if rest:
            await write(self._call, self._reader, rest)

    async def until_needed(self) -> None:
        """Let `push` do the work until it cannot, or the reader has ended."""
        self._needed = asyncio.get_running_loop().create_future()
        self._reader.on_ready = self._push
        self._reader.sink = self._write
        self._push()  # what came while the task was writing has told nobody
        try:
            await self._needed
        finally:
            self.stop()

    def stop(self) -> None:
        self._reader.on_ready = self._reader.sink = None
        self._needed = None

    def _write(self, schema: Schema | None, packet: Packet) -> bool:
        """Take one packet from the channel and write it; False: it is to be queued."""
        if self._pushing:  # behind those that are about to be written
            return False
        if schema is None:  # as `packet_bytes` has it, which nearly every packet would call
            data = b'%b{"data":%b}' % (_prefix(len(packet.data) + 9), packet.data)
        else:
            data = packet_bytes(schema, packet)
        return len(data) <= FLUSH_BYTES and self._stream.write_nowait(data)

    def _need_task(self) -> None:
        """The rest is the task's: what comes from now on has to wait for it."""
        self._reader.sink = None
        if self._needed is not None and not self._needed.done():
            self._needed.set_result(None)

    def _push(self) -> None:
        """Told by the mailbox. Taking may make the author's rows flow, which tells it again."""
        if self._pushing:
            self._again = True
            return
        self._pushing = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self._push_all()
        finally:
            self._pushing = False

    def _push_all(self) -> None:
        needed = self._needed
        if needed is None or needed.done():
            return
        try:
            taken = self._reader.receive_nowait()
            if taken:
                data = packet_bytes(*taken[0]) if len(taken) == 1 else _joined(taken)
                if len(data) > FLUSH_BYTES or not self._call.stream.write_nowait(data):
                    self._rest = data
            if self._rest or self._reader.ended:
                self._need_task()
        except Exception as error:
            if not needed.done():
                needed.set_exception(error)
