"""The streams of one connection: reading requests, writing responses.

Flow-control windows are accounted here, HEADERS and DATA frames are encoded here; the stream states
are h2's. Relies on private parts of h2 and of grpclib's `Connection` (see connection.py).
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

_ACKNOWLEDGE_BYTES = 16 * 1024
"""Unacknowledged bytes of ended streams at which the connection's window is updated."""

_END_STREAM, _END_HEADERS = 0x1, 0x4
_HEADERS, _CONTINUATION = 0x1, 0x9
_CLOSED = StreamState.CLOSED


class Http2Connection(Connection):
    """grpclib's connection with its streams. It wakes only streams that wait for a window."""

    def __init__(self, h2: H2Connection, write_buffer: WriteBuffer, config: Configuration) -> None:
        super().__init__(h2, cast("asyncio.Transport", write_buffer), config=config)
        self.write_buffer = write_buffer
        self.streams: dict[int, Http2Stream] = {}
        self.blocked: dict[int, asyncio.Event] = {}
        self._unacknowledged = 0

    def flush(self) -> None:
        """Write the frames that h2 has made."""
        data = self._connection.data_to_send()
        if data and not self.is_closing():
            self.write_buffer.write(data)

    def acknowledge(self, number: int, size: int, *, ended: bool) -> None:
        """Open the flow-control windows by `size` bytes that were read.

        For an ended stream only the connection's window, and only every `_ACKNOWLEDGE_BYTES`, since
        most requests are small.
        """
        if ended:
            self._unacknowledged += size
            if self._unacknowledged < _ACKNOWLEDGE_BYTES:
                return
            size, self._unacknowledged = self._unacknowledged, 0
        self.ack(number, size)

    async def wait_for_window(self, number: int) -> None:
        """Wait until the stream's window or the connection's has grown."""
        event = self.blocked.get(number)
        if event is None:
            event = self.blocked[number] = asyncio.Event()
        await event.wait()

    def wake_blocked(self) -> None:
        """Wake all blocked streams; called when the connection's window has grown."""
        blocked, self.blocked = self.blocked, {}
        for event in blocked.values():
            event.set()

    def wake(self, number: int) -> None:
        """Wake a blocked stream; called when its window has grown."""
        event = self.blocked.pop(number, None)
        if event is not None:
            event.set()


class Http2Stream:
    """One HTTP/2 stream: reads the request, writes the response."""

    __slots__ = (
        "_data",
        "_ended",
        "_frame_tail",
        "_h2",
        "_unacknowledged",
        "_waiter",
        "connection",
        "number",
    )

    def __init__(self, connection: "Http2Connection", h2: H2Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self._h2 = h2
        self._frame_tail = b"\0\0" + number.to_bytes(4, "big")  # type DATA, no flags, identifier
        self._data = bytearray()  # a large request arrives in thousands of frames
        self._unacknowledged = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    # Reading

    async def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer when the host has ended the stream."""
        while len(self._data) < size and not self._ended:
            self._acknowledge()
            await self.wait()
        self._acknowledge()
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def feed(self, data: bytes, size: int) -> None:
        """Store `data` from the host, which took `size` bytes of the flow-control windows."""
        self._data += data
        self._unacknowledged += size
        self.wake()

    def feed_end(self) -> None:
        """The host has ended its side of the stream."""
        self._ended = True
        self.wake()

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self.connection.acknowledge(self.number, size, ended=self._ended)

    async def wait(self) -> None:
        """Wait until `wake` is called."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """End `wait`, if something waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Writing

    @property
    def can_respond(self) -> bool:
        """Whether the stream and its connection are open for a response."""
        if self.connection.is_closing():
            return False
        stream = self._h2.streams.get(self.number)
        closed = self._h2.state_machine.state is ConnectionState.CLOSED
        return stream is not None and not stream.closed and not closed

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` as DATA frames; wait for the flow-control windows. Yields to the event loop
        every `FLUSH_BYTES` bytes, so that other tasks run and a cancellation arrives.

        Raises StreamClosedError when the host has reset the stream or the connection is lost.
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
            connection.write_buffer.write(self._data_frames(view[sent : sent + size]))
            sent += size
            if size == FLUSH_BYTES:
                await asyncio.sleep(0)

    def write_nowait(self, data: bytes) -> bool:
        """Write all of `data` as DATA frames. Write nothing and return False when it would have to
        wait."""
        h2, write_buffer = self._h2, self.connection.write_buffer
        stream = h2.streams.get(self.number)
        size = len(data)
        if (
            stream is None
            or stream.state_machine.state is _CLOSED
            or size > stream.outbound_flow_control_window
            or size > h2.outbound_flow_control_window
            or not write_buffer.writable
        ):
            return False
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        if size <= h2.max_outbound_frame_size:
            write_buffer.write(b"%b%b%b" % (size.to_bytes(3, "big"), self._frame_tail, data))
        else:
            write_buffer.write(self._data_frames(memoryview(data)))
        return True

    def _data_frames(self, view: memoryview) -> bytes:
        limit, tail = self._h2.max_outbound_frame_size, self._frame_tail
        parts: list[bytes | memoryview] = []
        for start in range(0, len(view), limit):
            part = view[start : start + limit]
            parts += (len(part).to_bytes(3, "big") + tail, part)
        return b"".join(parts)

    def write_headers(self, block: bytes, *, end: bool) -> None:
        """Write a header block made by `encode_headers`. Never waits. `end` ends the stream, and
        resets it when the host may still be sending.

        Raises StreamClosedError when the host has reset the stream or the connection is lost.
        """
        if not self.can_respond:
            raise StreamClosedError(self.number)
        h2 = self._h2
        states = h2.streams[self.number].state_machine
        states.process_input(StreamInputs.SEND_HEADERS)
        if end:
            states.process_input(StreamInputs.SEND_END_STREAM)
        block = with_table_size(h2.encoder, block)
        self.connection.write_buffer.write(
            _header_frames(self.number, block, h2.max_outbound_frame_size, end=end)
        )
        if end and not h2.streams[self.number].closed:
            h2.reset_stream(self.number)
            self.connection.flush()

    def write_response(self, headers: bytes, data: bytes, trailers: bytes) -> bool:
        """Write a whole response at once: header blocks made by `encode_headers`, and the DATA
        between them. Write nothing and return False when it would have to wait, when the data needs
        more than one frame, or when the stream is not in the common state.
        """
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
            or not self.can_respond
        ):
            return False
        process = stream.state_machine.process_input
        process(StreamInputs.SEND_HEADERS)
        process(StreamInputs.SEND_HEADERS)
        process(StreamInputs.SEND_END_STREAM)
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        frames = (
            _header_frames(self.number, headers, limit, end=False),
            size.to_bytes(3, "big"),
            self._frame_tail,
            data,
            _header_frames(self.number, trailers, limit, end=True),
        )
        connection.write_buffer.write(b"".join(frames))
        return True

    def write_status(self, status: str) -> None:
        """Answer a request that is not a gRPC call with an HTTP status."""
        if self.can_respond:
            self.write_headers(encode_headers([(":status", status)]), end=True)

    def forget(self) -> None:
        """Remove the ended stream. h2 keeps only how it was closed, as it does for the closed
        streams that it finds itself."""
        self.connection.streams.pop(self.number, None)
        self.connection.blocked.pop(self.number, None)
        if self._unacknowledged and not self.connection.is_closing():
            self._ended = True
            self._acknowledge()
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
