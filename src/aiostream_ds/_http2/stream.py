"""One connection's streams: what the host sent is read, what it is to get is written.

Windows are kept here, HEADERS and DATA frames made by hand; the states are h2's. Knows the insides
of h2 (4.3, 4.4) and of grpclib's `Connection` (0.4.9), see http2.py.
"""

import asyncio
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import Connection
from h2.connection import ConnectionState, H2Connection
from h2.exceptions import StreamClosedError
from h2.stream import StreamInputs, StreamState

from aiostream_ds._http2.headers import encode_headers, with_table_size
from aiostream_ds._http2.write_buffer import FLUSH_BYTES, WriteBuffer

__all__ = ["Http2Connection", "Http2Stream", "StreamClosedError"]

_PAID_AT_ONCE = 16 * 1024
"""Bytes of ended streams for which the connection's window is given back in one go."""

_END_STREAM, _END_HEADERS = 0x1, 0x4
_HEADERS, _CONTINUATION = 0x1, 0x9
_CLOSED = StreamState.CLOSED


class Http2Connection(Connection):
    """grpclib's, with its streams. It knows who waits for a window, and wakes nobody else."""

    def __init__(self, h2: H2Connection, outbox: WriteBuffer, config: Configuration) -> None:
        super().__init__(h2, cast("asyncio.Transport", outbox), config=config)
        self.outbox = outbox
        self.streams: dict[int, Http2Stream] = {}
        self.blocked: dict[int, asyncio.Event] = {}
        self._owed = 0

    def flush(self) -> None:
        """Write what h2 has made."""
        data = self._connection.data_to_send()
        if data and not self.is_closing():
            self.outbox.write(data)

    def give_back(self, number: int, size: int, *, ended: bool) -> None:
        """Open the windows again by `size` bytes that were read. Of a stream that has ended only
        the connection's, and that not for each of the many small requests."""
        if ended:
            self._owed += size
            if self._owed < _PAID_AT_ONCE:
                return
            size, self._owed = self._owed, 0
        self.ack(number, size)

    async def wait_for_window(self, number: int) -> None:
        """Until there may be room for this stream."""
        event = self.blocked.get(number)
        if event is None:
            event = self.blocked[number] = asyncio.Event()
        await event.wait()

    def wake_blocked(self) -> None:
        """The connection's window has grown."""
        blocked, self.blocked = self.blocked, {}
        for event in blocked.values():
            event.set()

    def wake(self, number: int) -> None:
        """A stream's window has grown."""
        event = self.blocked.pop(number, None)
        if event is not None:
            event.set()


class Http2Stream:
    """One HTTP/2 stream: what the host sent is read, what it is to get is written."""

    __slots__ = ("_data", "_due", "_ended", "_h2", "_tail", "_wake", "connection", "number")

    def __init__(self, connection: "Http2Connection", h2: H2Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self._h2 = h2
        self._tail = b"\0\0" + number.to_bytes(4, "big")  # type DATA, no flags, the stream
        self._data = bytearray()  # a large request comes in thousands of pieces
        self._due = 0  # bytes of the windows that the host gets back when they are read
        self._ended = False
        self._wake: asyncio.Future[None] | None = None

    # What the host sends

    async def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer, down to none, when the host ends the stream before."""
        while len(self._data) < size and not self._ended:
            self._give_back()
            await self.wait()
        self._give_back()
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def feed(self, data: bytes, size: int) -> None:
        """The host has sent `data`, which took `size` bytes of the windows."""
        self._data += data
        self._due += size
        self.wake()

    def feed_end(self) -> None:
        """The host sends no more."""
        self._ended = True
        self.wake()

    def _give_back(self) -> None:
        due, self._due = self._due, 0
        if due:
            self.connection.give_back(self.number, due, ended=self._ended)

    async def wait(self) -> None:
        """Until `wake`: something has come."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def wake(self) -> None:
        """End a `wait`, if there is one."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # What the host gets

    @property
    def closable(self) -> bool:
        """Whether the stream and its connection still take an answer."""
        if self.connection.is_closing():
            return False
        stream = self._h2.streams.get(self.number)
        closed = self._h2.state_machine.state is ConnectionState.CLOSED
        return stream is not None and not stream.closed and not closed

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` as DATA frames, waiting for the windows. The loop runs other tasks every
        `FLUSH_BYTES` bytes, so that nobody starves and a cancellation is seen.

        Raises StreamClosedError when the host has reset the stream or is gone.
        """
        h2, connection = self._h2, self.connection
        view = memoryview(data)
        sent, total = 0, len(view)
        while sent < total:
            await connection.write_ready.wait()
            stream = h2.streams.get(self.number)
            if stream is None or stream.closed or connection.is_closing():
                raise StreamClosedError(self.number)
            window = min(h2.outbound_flow_control_window, stream.outbound_flow_control_window)
            size = min(window, total - sent, FLUSH_BYTES)
            if size <= 0:
                await connection.wait_for_window(self.number)
                continue
            h2.outbound_flow_control_window -= size
            stream.outbound_flow_control_window -= size
            connection.outbox.write(self._frames(view[sent : sent + size]))
            sent += size
            if size == FLUSH_BYTES:
                await asyncio.sleep(0)

    def write_now(self, data: bytes) -> bool:
        """Write all of `data`, or nothing and return False when it would have to wait."""
        h2, outbox = self._h2, self.connection.outbox
        stream = h2.streams.get(self.number)
        size = len(data)
        if (
            stream is None
            or stream.state_machine.state is _CLOSED
            or size > stream.outbound_flow_control_window
            or size > h2.outbound_flow_control_window
            or not outbox.ready
        ):
            return False
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        if size <= h2.max_outbound_frame_size:
            outbox.write(b"%b%b%b" % (size.to_bytes(3, "big"), self._tail, data))
        else:
            outbox.write(self._frames(memoryview(data)))
        return True

    def _frames(self, view: memoryview) -> bytes:
        limit, tail = self._h2.max_outbound_frame_size, self._tail
        parts: list[bytes | memoryview] = []
        for start in range(0, len(view), limit):
            part = view[start : start + limit]
            parts += (len(part).to_bytes(3, "big") + tail, part)
        return b"".join(parts)

    def write_headers(self, block: bytes, *, end: bool) -> None:
        """A block of `encode_headers`. Never waits. `end` also resets a stream on which the host
        may still be sending.

        Raises StreamClosedError when the host has reset the stream or is gone.
        """
        if not self.closable:
            raise StreamClosedError(self.number)
        h2 = self._h2
        states = h2.streams[self.number].state_machine
        states.process_input(StreamInputs.SEND_HEADERS)
        if end:
            states.process_input(StreamInputs.SEND_END_STREAM)
        block = with_table_size(h2.encoder, block)
        self.connection.outbox.write(
            _header_frames(self.number, block, h2.max_outbound_frame_size, end=end)
        )
        if end and not h2.streams[self.number].closed:
            h2.reset_stream(self.number)
            self.connection.flush()

    def write_answer(self, head: bytes, data: bytes, trailers: bytes) -> bool:
        """Write a whole answer in one go: blocks of `encode_headers`, and the DATA between them.
        Write nothing and return False when it would have to wait, or is not as short and plain."""
        h2, connection = self._h2, self.connection
        stream = h2.streams.get(self.number)
        size, limit = len(data), h2.max_outbound_frame_size
        if (
            stream is None
            or stream.state_machine.state is not StreamState.HALF_CLOSED_REMOTE
            or size > min(limit, stream.outbound_flow_control_window)
            or size > h2.outbound_flow_control_window
            or h2.encoder.header_table.resized
            or not connection.write_ready.is_set()
            or not self.closable
        ):
            return False
        process = stream.state_machine.process_input
        process(StreamInputs.SEND_HEADERS)
        process(StreamInputs.SEND_HEADERS)
        process(StreamInputs.SEND_END_STREAM)
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        frames = (
            _header_frames(self.number, head, limit, end=False),
            size.to_bytes(3, "big"),
            self._tail,
            data,
            _header_frames(self.number, trailers, limit, end=True),
        )
        connection.outbox.write(b"".join(frames))
        return True

    def refuse(self, status: str) -> None:
        """Answer what is no gRPC call with an HTTP status."""
        if self.closable:
            self.write_headers(encode_headers([(":status", status)]), end=True)

    def forget(self) -> None:
        """Leave the books, as closed streams do in h2's walk over all: only how it ended stays."""
        self.connection.streams.pop(self.number, None)
        self.connection.blocked.pop(self.number, None)
        if self._due and not self.connection.is_closing():
            self._ended = True
            self._give_back()
        stream = self._h2.streams.get(self.number)
        if stream is not None and stream.closed:
            del self._h2.streams[self.number]
            self._h2._closed_streams[self.number] = stream.closed_by


def _header_frames(number: int, block: bytes, limit: int, *, end: bool) -> bytes:
    tail = number.to_bytes(4, "big")
    flags = _END_STREAM if end else 0
    if len(block) <= limit:
        return (
            len(block).to_bytes(3, "big") + bytes((_HEADERS, flags | _END_HEADERS)) + tail + block
        )
    frames = b""
    kind = _HEADERS
    while block:
        part, block = block[:limit], block[limit:]
        if not block:
            flags |= _END_HEADERS
        frames += len(part).to_bytes(3, "big") + bytes((kind, flags)) + tail + part
        kind, flags = _CONTINUATION, 0
    return frames
