"""A channel's packets on their way out: the body of a RunStream call.

    waiting ──▶ draining ──▶ pushing      pushing: no task wakes for a packet; what came in one
                    ▲           │         turn of the loop is written at its end
                    └───────────┘ a closed window, much at once, or the end

May import frames and this room's wire; what a channel is, only by the methods of `Reader`.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from aiostream_ds.frames.packet import Packet, Schema, render
from aiostream_ds.grafana.outbox import TURN
from aiostream_ds.grafana.wire import Call

__all__ = ["Reader", "packet_bytes", "send_packets"]


class Reader(Protocol):
    """What `send_packets` needs of a channel's subscription."""

    on_ready: Callable[[], None] | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    def take(self) -> Sequence[tuple[Schema | None, Packet]]:
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
    payload = render(schema, packet)
    return _prefix(len(payload)) + payload


async def send_packets(call: Call, reader: Reader) -> None:
    """Send what `reader` brings until it ends, then leave.

    What waits together leaves together, and the loop gets a turn every 64 KiB, so that a busy
    stream starves nobody and a cancellation is seen. Raises what `reader.wait` raises.
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

    __slots__ = ("_call", "_needed", "_reader", "_rest", "_scheduled")

    def __init__(self, call: Call, reader: Reader) -> None:
        self._call = call
        self._reader = reader
        self._rest: list[bytes] = []
        self._scheduled = False
        self._needed: asyncio.Future[None] | None = None

    async def drain(self) -> None:
        """Write all that waits now, in the task, waiting for the windows."""
        self._rest = [packet_bytes(*each) for each in self._reader.take()]
        await self.drain_rest()

    async def drain_rest(self) -> None:
        """Write what `push` could not."""
        parts, self._rest = self._rest, []
        size, begin = 0, 0
        for end, part in enumerate(parts, 1):
            size += len(part)
            if size >= TURN or end == len(parts):
                await self._call.write(b"".join(parts[begin:end]))
                if size >= TURN:
                    await asyncio.sleep(0)
                size, begin = 0, end

    async def until_needed(self) -> None:
        """Let `push` do the work until it cannot, or the reader has ended."""
        self._needed = asyncio.get_running_loop().create_future()
        self._reader.on_ready = self._ready
        self._ready()  # what came while the task was writing has told nobody
        try:
            await self._needed
        finally:
            self.stop()

    def stop(self) -> None:
        self._reader.on_ready = None
        self._needed = None

    def _ready(self) -> None:
        """Told by the mailbox, in the middle of the author's yield: only make a note."""
        if not self._scheduled:
            self._scheduled = True
            self._call.at_turns_end(self._push)

    def _push(self) -> None:
        self._scheduled = False
        needed = self._needed
        if needed is None or needed.done():
            return
        try:
            taken = self._reader.take()
            if taken:
                parts = [packet_bytes(*each) for each in taken]
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                if len(data) >= TURN or not self._call.write_now(data):
                    self._rest = parts
            if (self._rest or self._reader.ended) and not needed.done():
                needed.set_result(None)
        except Exception as error:
            if not needed.done():
                needed.set_exception(error)
