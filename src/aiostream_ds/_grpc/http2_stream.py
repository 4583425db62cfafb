"""The streams of one connection on the event loop: what waits for the host waits here."""

import asyncio
from collections.abc import Callable
from typing import cast

from aiostream_ds._grpc.write_buffer import FLUSH_BYTES, WriteBuffer
from aiostream_ds._http2.connection import Http2Connection, Http2Stream
from aiostream_ds._http2.headers import encode_headers
from aiostream_ds._http2.protocol_errors import StreamClosedError
from aiostream_ds._http2.wire import ErrorCode

__all__ = ["READ_AHEAD_BYTES", "CallStream", "HostConnection", "StreamClosedError"]

READ_AHEAD_BYTES = 64 * 1024 * 1024
"""Bytes of requests whose calls wait for their turn, for which the windows of a connection are open
again."""


class CallStream(Http2Stream):
    """The HTTP/2 stream of one call: reads the request, writes the response."""

    __slots__ = (
        "_ahead",
        "_data",
        "_ended",
        "_on_window",
        "_reserved",
        "_unread",
        "_waiter",
        "_window_opened",
    )

    connection: "HostConnection"

    def __init__(self, connection: Http2Connection, number: int) -> None:
        super().__init__(connection, number)
        # one frame as it is; more of a large request, thousands, are appended
        self._data: bytes | bytearray | None = None
        self._unread = 0  # bytes of the flow-control windows
        self._ahead: int | None = None  # of these, what was opened again before it was read
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._window_opened: asyncio.Event | None = None
        self._on_window: Callable[[], None] | None = None
        self._reserved = 0  # bytes of the connection's window

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
            if isinstance(stored, bytes):
                stored = self._data = bytearray(stored)
            del stored[:size]
        # what is left stays in the window: a slow reader would store whatever the host sends
        self._acknowledge(self._unread - len(self._data or b""))
        return data

    @property
    def unread(self) -> bytes | bytearray | None:
        """Everything that was not read, once the host has ended the stream; None before."""
        return self._data if self._ended else None

    def discard(self) -> None:
        """Release what was not read."""
        self._data = None
        self._acknowledge(self._unread)

    def feed(self, data: bytes, size: int, *, ended: bool) -> None:
        """Store `data` from the host, which took `size` bytes of the flow-control windows. `ended`:
        the host has ended its side of the stream."""
        stored = self._data
        if stored is None:
            self._data = data
        elif isinstance(stored, bytearray):
            stored += data
        else:
            self._data = bytearray(stored) + data
        self._unread += size
        self._ended = ended
        if self._ahead is not None:
            self.read_ahead()
        self.wake()

    def read_ahead(self) -> None:
        """Until `end_read_ahead`, open the windows again for data that is not read yet, up to
        READ_AHEAD_BYTES of a connection: the data of other calls does not wait for this one."""
        connection = self.connection
        size = min(self._unread, connection.read_ahead_left)
        connection.read_ahead_left -= size
        self._ahead = (self._ahead or 0) + size
        self._acknowledge(size)

    def end_read_ahead(self) -> None:
        """The call begins, or never will."""
        self.connection.read_ahead_left += self._ahead or 0
        self._ahead = None

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
        """Write `data` as DATA frames; wait for the flow-control windows and the transport. Yields
        to the event loop every `FLUSH_BYTES` bytes, so that other tasks run and a cancellation
        arrives. The streams of a connection write in turn.

        Raises StreamClosedError when the host has reset the stream or the connection is lost.
        """
        connection = self.connection
        rest = memoryview(data)
        try:
            while rest:
                if not self.can_respond:
                    raise StreamClosedError(self.number)
                connection.window += self._reserved
                self._reserved = 0
                size = self.write_part(rest, FLUSH_BYTES) if connection.writable else 0
                rest = rest[size:]
                connection.wake_soon()
                if size == FLUSH_BYTES:
                    await asyncio.sleep(0)
                elif rest:
                    await self._wait_for_window()
        finally:
            connection.window += self._reserved
            self._reserved = 0
            connection.wake_soon()

    async def _wait_for_window(self) -> None:
        """Wait until it is this stream's turn, or it is closed."""
        opened = self._window_opened
        if opened is None:
            opened = self._window_opened = asyncio.Event()
        self.connection.blocked[self] = True
        try:
            await opened.wait()
        except BaseException:
            self.connection.blocked.pop(self, None)
            self.wake_writer()  # another task may write to the same stream
            raise

    def reserve_window(self) -> None:
        """Keep the connection's window for a task that writes to this stream, and is woken now."""
        self._reserved += self.connection.window
        self.connection.window = 0

    def call_at_window(self, callback: Callable[[], None] | None) -> None:
        """Call `callback`, which writes without waiting, once: when the windows are open and the
        transport takes bytes, in turn with other streams, or when the connection is closed. None:
        do not call it."""
        self._on_window = callback
        if callback is not None:
            self.connection.blocked[self] = False

    def wake_writer(self) -> None:
        """Let what waits for a window write."""
        opened, self._window_opened = self._window_opened, None
        if opened is not None:
            opened.set()
        callback, self._on_window = self._on_window, None
        if callback is not None:
            callback()

    def write_status(self, status: str) -> None:
        """Answer a request that is not a gRPC call with an HTTP status."""
        if self.can_respond:
            self.write_headers(encode_headers([(":status", status)]), end=True)

    def forget(self) -> None:
        """The call has ended: reset the stream if it is open, and release what was not read."""
        self.reset(ErrorCode.CANCEL)
        self.discard()


class HostConnection(Http2Connection):
    """A connection whose bytes go to `write_buffer`."""

    stream_type = CallStream

    def __init__(self, write_buffer: WriteBuffer) -> None:
        super().__init__(write_buffer.write, write_buffer.write_parts)
        self.write_buffer = write_buffer
        self.read_ahead_left = READ_AHEAD_BYTES
        self._loop = asyncio.get_running_loop()
        self._wakes_soon = False

    def wake_blocked(self) -> None:
        """Let the streams that wait write in turn, as far as the connection's window and the
        transport allow. A task writes later, and has the window until then."""
        self._wakes_soon = False
        blocked = self.blocked
        left = len(blocked)  # those that may be able to write
        while left and blocked and self.window > 0 and self.writable:
            before, stream = self.window, cast("CallStream", next(iter(blocked)))
            if not self.wake(stream):
                blocked.move_to_end(stream)
            left = left - 1 if self.window == before else len(blocked)

    def wake(self, stream: CallStream) -> bool:
        """Let a stream write that waits. False: it cannot, and keeps its place."""
        if stream not in self.blocked:  # closed since
            return True
        if stream.free_window <= 0:
            return False
        if self.blocked.pop(stream):
            stream.reserve_window()
        stream.wake_writer()
        return True

    def wake_soon(self) -> None:
        """Call `wake_blocked` when the running task has waited."""
        if self.blocked and not self._wakes_soon:
            self._wakes_soon = True
            self._loop.call_soon(self.wake_blocked)

    def resume(self) -> None:
        super().resume()
        if self.write_buffer.is_closing():
            self.writable = False
        self.wake_blocked()

    def stop(self) -> None:
        """The connection is over: wake everything that waits for it."""
        streams = cast("list[CallStream]", [*self.streams.values(), *self.blocked])
        super().stop()
        self.blocked.clear()
        for stream in streams:
            stream.wake_writer()
