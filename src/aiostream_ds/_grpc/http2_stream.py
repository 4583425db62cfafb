"""The streams of one connection on the event loop: what waits for the host waits here."""

import asyncio
from typing import cast

from aiostream_ds._grpc.write_buffer import FLUSH_BYTES, WriteBuffer
from aiostream_ds._http2.connection import Http2Connection, Http2Stream
from aiostream_ds._http2.headers import encode_headers
from aiostream_ds._http2.protocol_errors import StreamClosedError
from aiostream_ds._http2.wire import ErrorCode

__all__ = ["CallStream", "HostConnection", "StreamClosedError"]


class CallStream(Http2Stream):
    """The HTTP/2 stream of one call: reads the request, writes the response."""

    __slots__ = ("_data", "_ended", "_unread", "_waiter", "_window_opened")

    connection: "HostConnection"

    def __init__(self, connection: Http2Connection, number: int) -> None:
        super().__init__(connection, number)
        self._data: bytearray | None = None  # a large request arrives in thousands of frames
        self._unread = 0  # bytes of the flow-control windows
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._window_opened: asyncio.Event | None = None

    # Reading

    async def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer when the host has ended the stream."""
        while len(self._data or b"") < size and not self._ended:
            self._acknowledge(self._unread)  # all: `size` may be larger than the window
            await self.wait()
        stored = self._data
        if stored is None:
            return b""
        data = bytes(stored[:size])
        if len(data) == len(stored):
            self._data = None
        else:
            del stored[:size]
        # what is left stays in the window: a slow reader would store whatever the host sends
        self._acknowledge(self._unread - len(self._data or b""))
        return data

    @property
    def unread(self) -> bytearray | None:
        """Everything that was not read, once the host has ended the stream; None before."""
        return self._data if self._ended else None

    def discard(self) -> None:
        """Release what was not read."""
        self._data = None
        self._acknowledge(self._unread)

    def feed(self, data: bytes, size: int, *, ended: bool) -> None:
        """Store `data` from the host, which took `size` bytes of the flow-control windows. `ended`:
        the host has ended its side of the stream."""
        if self._data is None:
            self._data = bytearray(data)
        else:
            self._data += data
        self._unread += size
        self._ended = ended
        self.wake()

    def _acknowledge(self, size: int) -> None:
        if size > 0:
            self._unread -= size
            self.connection.acknowledge(self, size)

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
        return self.is_open and not self.connection.write_buffer.is_closing()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` as DATA frames; wait for the flow-control windows. Yields to the event loop
        every `FLUSH_BYTES` bytes, so that other tasks run and a cancellation arrives, and before it
        waits for a window, so that the streams of a connection use it in turn.

        Raises StreamClosedError when the host has reset the stream or the connection is lost.
        """
        rest = memoryview(data)
        has_yielded = False  # since it last wrote
        while rest:
            await self.connection.write_ready.wait()
            if self.connection.write_buffer.is_closing():
                raise StreamClosedError(self.number)
            size = self.write_part(rest, FLUSH_BYTES)
            rest = rest[size:]
            if size == FLUSH_BYTES or not (size or has_yielded):
                # those that were woken with it are before it in `blocked`, if they got nothing
                await asyncio.sleep(0)
                has_yielded = True
            elif size:
                has_yielded = False
            else:
                await self._wait_for_window()

    async def _wait_for_window(self) -> None:
        """Wait until a window may be open, or the stream is closed."""
        event = self._window_opened
        if event is None:
            event = self._window_opened = asyncio.Event()
        self.connection.blocked[self] = None
        await event.wait()

    def wake_writer(self) -> None:
        """End `_wait_for_window`, if something waits."""
        event, self._window_opened = self._window_opened, None
        if event is not None:
            event.set()

    def write_status(self, status: str) -> None:
        """Answer a request that is not a gRPC call with an HTTP status."""
        if self.can_respond:
            self.write_headers(encode_headers([(":status", status)]), end=True)

    def forget(self) -> None:
        """The call has ended: reset the stream if it is open, and release what was not read."""
        self.reset(ErrorCode.CANCEL)
        self.discard()


class HostConnection(Http2Connection):
    """A connection whose bytes go to `write_buffer`. `write_ready` is set while the transport takes
    more bytes."""

    stream_type = CallStream

    def __init__(self, write_buffer: WriteBuffer) -> None:
        super().__init__(write_buffer.write, write_buffer.write_parts)
        self.write_buffer = write_buffer
        self.write_ready = asyncio.Event()
        self.write_ready.set()

    def pause(self) -> None:
        super().pause()
        self.write_ready.clear()

    def resume(self) -> None:
        super().resume()
        if self.write_buffer.is_closing():
            self.writable = False
        self.write_ready.set()

    def stop(self) -> None:
        """The connection is over: wake everything that waits for it."""
        streams = cast("list[CallStream]", [*self.streams.values(), *self.blocked])
        super().stop()
        self.blocked.clear()
        self.write_ready.set()
        for stream in streams:
            stream.wake_writer()
