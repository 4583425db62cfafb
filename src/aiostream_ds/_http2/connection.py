"""One HTTP/2 connection of the host: grpclib's protocol on top of h2.

h2 reads all frames but the most frequent ones and keeps the stream states. Unlike grpclib's own
protocol: no limit of 100 streams, O(1) work for each stream, HEADERS and DATA frames encoded here,
one system call for everything that is written in one iteration of the event loop; malformed
requests are reset, frames are rate-limited, unknown frames are ignored.

Only this package relies on private parts of h2 4.4, hpack 4 and `grpclib.protocol` (0.4.9);
tests/grpc/test_grpclib_internals.py fails when an upgrade moves them.
"""

import asyncio
from typing import Any, Protocol, cast

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, EventsProcessor, H2Protocol
from h2.config import H2Configuration
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import (
    DenialOfServiceError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.settings import SettingCodes

from aiostream_ds._http2.control_frames import read_control_frames
from aiostream_ds._http2.headers import CachingDecoder, RequestHead, parse_request_head
from aiostream_ds._http2.rate_limits import RateLimitedConnection
from aiostream_ds._http2.stream import Http2Connection, Http2Stream
from aiostream_ds._http2.write_buffer import WriteBuffer
from aiostream_ds._loggers import get_logger

__all__ = ["Http2Protocol", "RequestHandler"]

CLOSED_STREAMS = 4_096
"""Closed streams that a connection remembers, for frames that arrive late. h2 remembers 65,536:
about 10 MB after as many calls."""

STREAMS_LIMIT = 2**31 - 1
"""SETTINGS_MAX_CONCURRENT_STREAMS: no limit, as every RunStream call holds a stream open."""

log = get_logger(__name__)


class RequestHandler(Protocol):
    """Answers the requests of a connection."""

    def accept(self, stream: "Http2Stream", head: RequestHead) -> None:
        """A request has arrived; its body may follow."""

    def cancel(self, stream: "Http2Stream") -> None:
        """The stream was reset: nothing more can be sent on it."""

    def close(self) -> None:
        """The connection is closed."""

    def rate_limited(self) -> None:
        """The host has exceeded a rate limit; the connection is about to be closed."""


class Http2Protocol(H2Protocol):
    """One connection of the host, as an asyncio protocol. asyncio sets TCP_NODELAY on it.

    It is in `connections` from `connection_made` to `connection_lost`, which completes `lost`.
    """

    connection: Http2Connection
    h2: "_H2"
    write_buffer: WriteBuffer
    lost: "asyncio.Future[None]"

    def __init__(
        self, calls: RequestHandler, config: Configuration, connections: "set[Http2Protocol]"
    ) -> None:
        h2_config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(cast("AbstractHandler", calls), config, h2_config)
        self.calls = calls
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio. Sends the SETTINGS."""
        self.h2 = h2 = _H2(self.h2_config)
        # before the preface: then it is in the first SETTINGS frame, and h2 enforces it
        h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS_LIMIT
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        initial = h2.local_settings.initial_window_size
        h2.increment_flow_control_window(self.config.http2_connection_window_size - initial)
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size})
        self.lost = asyncio.get_running_loop().create_future()
        self.write_buffer = WriteBuffer(cast("asyncio.Transport", transport))
        self.connection = Http2Connection(h2, self.write_buffer, self.config)
        self.processor = _Events(self.calls, self.connection, h2)
        self._connections.add(self)
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. An error of the protocol closes this connection only."""
        if not hasattr(self.processor, "processors"):  # closed; TLS may still deliver data
            return
        try:
            done = read_control_frames(self.h2, self.connection, data)
            if done == len(data):
                return
            for event in self.connection.feed(data[done:]):
                self.processor.process(event)
        except DenialOfServiceError as error:
            log.warning("closed a connection whose host exceeded a rate limit: %s", error)
            self.calls.rate_limited()
            self._close("Rate limit", error.error_code)
        except ProtocolError as error:
            log.debug("closed a connection after an HTTP/2 protocol error: %s", error)
            self._close("Protocol error", error.error_code)
        except Exception:
            log.exception("closed a connection after an unexpected error")
            self._close("Internal error", ErrorCodes.INTERNAL_ERROR)
        else:
            self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by asyncio. Cancels every call of the connection."""
        self.write_buffer.writable = False
        super().connection_lost(exc)
        self._connections.discard(self)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Called by asyncio when the transport's buffer is above its high-water level."""
        super().pause_writing()
        self.h2.limits.paused = True
        self.write_buffer.writable = False

    def resume_writing(self) -> None:
        """Called by asyncio when the transport's buffer is below its low-water level."""
        super().resume_writing()
        self.h2.limits.paused = False
        self.write_buffer.writable = not self.write_buffer.is_closing()

    def _close(self, reason: str, code: ErrorCodes) -> None:
        if self.h2.state_machine.state is not ConnectionState.CLOSED:  # else h2 has sent GOAWAY
            self.h2.close_connection(code)
        self.connection.flush()
        self.processor.close(reason)


class _FailedFrame:
    """Passes the error of a frame that has failed already to h2's own error handling."""

    def __init__(self, error: ProtocolError) -> None:
        self.error = error

    def fail(self) -> Any:
        raise self.error


class _H2(RateLimitedConnection):
    """h2 without its loop over all streams at each request (see `Http2Stream.forget`), and without
    its debug string of each frame."""

    MAX_CLOSED_STREAMS = CLOSED_STREAMS

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.decoder = CachingDecoder()
        self.decoder.max_header_list_size = self.DEFAULT_MAX_HEADER_LIST_SIZE
        self._frame_dispatch_table[cast("Any", _FailedFrame)] = _FailedFrame.fail

    @property
    def open_inbound_streams(self) -> int:
        return len(self.streams)

    def _receive_frame(self, frame: Any) -> list[Event]:
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except (StreamClosedError, StreamIDTooLowError) as error:
            return super()._receive_frame(cast("Any", _FailedFrame(error)))
        if frames:
            self._prepare_for_sending(frames)
        return cast("list[Event]", events)


class _Events(EventsProcessor):
    """Dispatches h2's events to the streams."""

    connection: Http2Connection

    def __init__(self, calls: RequestHandler, connection: Http2Connection, h2: _H2) -> None:
        super().__init__(cast("AbstractHandler", calls), connection)
        self.calls = calls
        self.h2 = h2

    def close(self, reason: str = "Connection closed") -> None:
        super().close(reason)
        self.connection.wake_blocked()

    def process(self, event: Event) -> None:
        # grpclib raises for an event that it does not know; RFC 9113 requires to ignore unknown
        # frames. `processors` is deleted when an earlier event has closed the connection.
        processor = getattr(self, "processors", {}).get(type(event))
        if processor is not None:
            processor(event)

    def process_request_received(self, event: RequestReceived) -> None:
        head = parse_request_head(event.headers)
        stream = Http2Stream(self.connection, self.h2, event.stream_id)
        if head.error is None:
            self.connection.streams[event.stream_id] = stream
            self.calls.accept(stream, head)
            return
        log.debug("reset a malformed request: %s", head.error)
        if stream.can_respond:
            self.h2.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            self.h2.limits.count_error_reset()
        stream.forget()

    def process_data_received(self, event: DataReceived) -> None:
        size = event.flow_controlled_length or 0
        stream = self.connection.streams.get(event.stream_id)
        if stream is None:
            self.connection.ack(event.stream_id, size)
        elif size:
            stream.feed(event.data or b"", size)

    def process_stream_ended(self, event: StreamEnded) -> None:
        stream = self.connection.streams.get(event.stream_id)
        if stream is not None:
            stream.feed_end()

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.connection.streams.get(event.stream_id)
        if stream is not None:
            self.calls.cancel(stream)
        if not event.remote_reset:  # by h2, for what the host sent
            self.h2.limits.count_error_reset()

    def process_window_updated(self, event: WindowUpdated) -> None:
        if event.stream_id:
            self.connection.wake(event.stream_id)
        else:
            self.connection.wake_blocked()

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            self.connection.wake_blocked()
