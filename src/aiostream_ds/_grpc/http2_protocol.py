"""One connection of the host on the event loop: passes bytes to the HTTP/2 connection, and its
events to the calls.

One system call for everything that is written in one iteration of the event loop.
"""

import asyncio
from typing import Protocol, cast

from aiostream_ds._grpc.http2_stream import CallStream, HostConnection
from aiostream_ds._grpc.write_buffer import WriteBuffer
from aiostream_ds._http2.headers import RequestHead
from aiostream_ds._http2.http2_events import (
    ConnectionEnded,
    DataReceived,
    Event,
    RequestReceived,
    StreamReset,
    WindowOpened,
)
from aiostream_ds._http2.wire import ErrorCode
from aiostream_ds._loggers import get_logger

__all__ = ["UNREAD_LIMIT", "Http2Protocol", "RequestHandler"]

UNREAD_LIMIT = 64 * 1024 * 1024
"""Bytes that wait for a host which sends requests but does not read; more close the connection.
Data waits for the host before it is written, headers, statuses and resets do not."""

log = get_logger(__name__)


class RequestHandler(Protocol):
    """Answers the requests of a connection."""

    def accept(self, stream: CallStream, head: RequestHead) -> None:
        """A request has arrived; its body may follow."""

    def cancel(self, stream: CallStream) -> None:
        """The stream was reset: nothing more can be sent on it."""

    def close(self) -> None:
        """The connection is closed."""

    def rate_limited(self) -> None:
        """The host has exceeded a rate limit; the connection is about to be closed."""


class Http2Protocol(asyncio.Protocol):
    """One connection of the host, as an asyncio protocol. asyncio sets TCP_NODELAY on it.

    It is in `connections` from `connection_made` to `connection_lost`, which completes `lost`.
    """

    connection: HostConnection
    write_buffer: WriteBuffer
    lost: "asyncio.Future[None]"

    def __init__(self, calls: RequestHandler, connections: "set[Http2Protocol]") -> None:
        self.calls = calls
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio. Sends the SETTINGS."""
        self.lost = asyncio.get_running_loop().create_future()
        self.write_buffer = WriteBuffer(cast("asyncio.Transport", transport))
        self.connection = HostConnection(self.write_buffer)
        self.connection.start()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. An error of the protocol closes this connection only."""
        if self.connection.limits.paused and self.write_buffer.unsent > UNREAD_LIMIT:
            return self._abandon()
        try:
            for event in self.connection.receive(data):
                self._handle(event)
        except Exception:
            log.exception("closed a connection after an unexpected error")
            self.connection.fail(ErrorCode.INTERNAL_ERROR)
            self.close()

    def _handle(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            event.stream.feed(event.data, event.size, ended=event.ended)
        elif isinstance(event, RequestReceived):
            if event.ended:
                event.stream.feed(b"", 0, ended=True)
            self.calls.accept(event.stream, event.head)
        elif isinstance(event, WindowOpened):
            if event.stream is None:
                self.connection.wake_blocked()
            else:
                self.connection.wake(event.stream)
        elif isinstance(event, StreamReset):
            event.stream.wake_writer()
            self.calls.cancel(event.stream)
        else:
            self._connection_ended(event)

    def _connection_ended(self, event: ConnectionEnded) -> None:
        if event.code == ErrorCode.ENHANCE_YOUR_CALM and not event.by_host:
            log.warning("closed a connection whose host exceeded a rate limit: %s", event.reason)
            self.calls.rate_limited()
        elif not event.by_host:
            log.debug("closed a connection after an HTTP/2 protocol error: %s", event.reason)
        self.close()

    def _abandon(self) -> None:
        """Close the connection without what the host has not read.

        Reading is not paused instead: cancellations would wait, too, and a host that reads only
        while it can write, such as grpc-go, would wait for this side (RFC 9113, 5.2.2).
        """
        reason = f"more than {UNREAD_LIMIT:,} bytes that it does not read"
        log.warning("closed a connection whose host exceeded a rate limit: %s", reason)
        self.calls.rate_limited()
        self.connection.stop()
        self.calls.close()
        self.write_buffer.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by asyncio. Cancels every call of the connection."""
        self.connection.stop()
        self.calls.close()
        self._connections.discard(self)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Called by asyncio when the transport's buffer is above its high-water level."""
        self.connection.pause()

    def resume_writing(self) -> None:
        """Called by asyncio when the transport's buffer is below its low-water level."""
        self.connection.resume()

    def end(self) -> None:
        """Flush, and close the write side: see `WriteBuffer.end`."""
        self.connection.writable = False
        self.write_buffer.end()

    def close(self) -> None:
        """Cancel the calls, flush, and close the transport once its bytes are sent."""
        self.connection.stop()
        self.calls.close()
        self.write_buffer.close()

    def abort(self) -> None:
        """Close the transport at once; unsent bytes are lost."""
        self.connection.writable = False
        self.write_buffer.abort()
