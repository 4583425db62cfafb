"""The server's side of one HTTP/2 connection (RFC 9113), without I/O.

    bytes ──▶ FrameReader ──▶ Http2Connection.receive ──▶ events
              frames           states, windows, limits

    bytes ◀── Http2Connection.write ◀── Http2Stream.write_headers, write_nowait, …

`receive` never raises for what a host sends: an error of a stream resets it, an error of the
connection sends GOAWAY and is the last event. Not here: server push, which is never used, and
priorities, which are read and ignored (5.3.2).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from aiostream_ds._http2 import rate_limits
from aiostream_ds._http2.frame_reader import FrameReader, check_priority, unpadded
from aiostream_ds._http2.headers import HEADER_LIST_LIMIT, HeaderDecoder
from aiostream_ds._http2.host_settings import read_settings
from aiostream_ds._http2.http2_events import (
    ConnectionEnded,
    DataReceived,
    Event,
    RequestReceived,
    StreamReset,
    WindowOpened,
)
from aiostream_ds._http2.protocol_errors import Http2Error, StreamClosedError
from aiostream_ds._http2.stream_states import REACTIONS, ClosedStreams, Reaction, StreamState
from aiostream_ds._http2.wire import (
    ACK,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Setting,
    frame,
    header_frame_start,
    header_frames,
    settings_frame,
    window_update,
)

__all__ = ["PREFACE", "Http2Connection", "Http2Stream"]

STREAMS_LIMIT = 2**31 - 1
"""SETTINGS_MAX_CONCURRENT_STREAMS: no limit, as every RunStream call holds a stream open."""

RECEIVE_WINDOW = 4 * 1024 * 1024
"""Bytes that a host may send on a stream, and on all streams of a connection together, before they
are read. The windows are opened again once half of them was read."""

_HALF_WINDOW = RECEIVE_WINDOW // 2
_CLOSED_WINDOW = -(2**62)  # of a closed stream: no data fits, whatever the host adds
_DEFAULT_TABLE_SIZE = 4_096  # SETTINGS_HEADER_TABLE_SIZE
_NO_TABLE = b"\x20"  # a dynamic table size update to 0 (RFC 7541, 6.3)

_OPEN, _HALF_CLOSED = StreamState.OPEN, StreamState.HALF_CLOSED
_ANY_WINDOW = WindowOpened(None)


class Http2Stream:
    """One stream of a connection: what may be sent on it, and what was received.

    `window` is how many bytes of DATA the host accepts; it may be negative (6.9.2). `answered` is
    True once response headers were sent.
    """

    __slots__ = (
        "_acknowledged",
        "_frame_tail",
        "_missing_body",
        "_receive_window",
        "answered",
        "connection",
        "number",
        "state",
        "window",
    )

    def __init__(self, connection: "Http2Connection", number: int) -> None:
        self.connection = connection
        self.number = number
        self.state = _OPEN
        self.window = connection.initial_window
        self.answered = False
        self._frame_tail = b"\0\0" + number.to_bytes(4, "big")  # type DATA, no flags, identifier
        self._receive_window = RECEIVE_WINDOW
        self._acknowledged = 0  # bytes that were read and not added to the window yet
        self._missing_body: int | None = None  # bytes until `content-length`, if that is given

    @property
    def is_open(self) -> bool:
        """Whether a response, or more of it, can be sent."""
        return self.state is _OPEN or self.state is _HALF_CLOSED

    @property
    def free_window(self) -> int:
        """How many bytes `write_nowait` would write now."""
        connection = self.connection
        return min(self.window, connection.window) if connection.writable else 0

    def write_nowait(
        self, data: bytes | memoryview, before: bytes = b"", after: bytes = b""
    ) -> bool:
        """Write all of `data`, between what is `before` and `after` it, as DATA frames. Write
        nothing and return False when it would have to wait for a window or for the transport, or
        when the stream is closed."""
        connection = self.connection
        size = len(before) + len(data) + len(after)
        if size > self.window or size > connection.window or not connection.writable:
            return False
        self.window -= size
        connection.window -= size
        if size <= connection.frame_size:
            head = size.to_bytes(3, "big")
            connection.write(b"".join((head, self._frame_tail, before, data, after)))
        else:
            whole = b"".join((before, data, after)) if before or after else data
            self._write_frames(memoryview(whole))
        return True

    def write_part(self, data: memoryview, limit: int) -> int:
        """Write the beginning of `data` that fits the windows, and at most `limit` bytes, as DATA
        frames; more than one frame without a copy. Returns its size, 0 for closed windows.

        Raises StreamClosedError when the stream is closed.
        """
        if not self.is_open:
            raise StreamClosedError(self.number)
        connection = self.connection
        size = min(len(data), limit, self.window, connection.window)
        if size <= 0:
            return 0
        self.window -= size
        connection.window -= size
        self._write_frames(data[:size])
        return size

    def _write_frames(self, view: memoryview) -> None:
        """Write DATA frames, more than one without a copy."""
        connection = self.connection
        limit, tail = connection.frame_size, self._frame_tail
        parts: list[bytes | memoryview] = []
        for start in range(0, len(view), limit):
            part = view[start : start + limit]
            parts += (len(part).to_bytes(3, "big") + tail, part)
        if len(parts) > 2:
            connection.write_parts(parts, len(view))
        else:
            connection.write(b"".join(parts))

    def write_headers(self, block: bytes, *, end: bool) -> None:
        """Write a header block made by `encode_headers`. Never waits. `end` ends the stream, and
        resets it when the host may still be sending (8.1).

        Raises StreamClosedError when the stream is closed.
        """
        if not self.is_open:
            raise StreamClosedError(self.number)
        connection = self.connection
        self.answered = True
        block = connection.take_table_update() + block
        connection.write(header_frames(self.number, block, connection.frame_size, end=end))
        if not end:
            return
        if self.state is _OPEN:
            connection.reset(self, ErrorCode.NO_ERROR)
        else:
            connection.close_stream(self, StreamState.ENDED)

    def write_first(self, headers: bytes, data: bytes) -> bool:
        """Write response headers, a block made by `encode_headers`, and the first DATA at once.
        Write nothing and return False when the data would have to wait, when it needs more than one
        frame, or when the stream is closed.
        """
        connection = self.connection
        size, limit = len(data), connection.frame_size
        if size > min(self.window, connection.window, limit) or not connection.writable:
            return False
        self.window -= size
        connection.window -= size
        self.answered = True
        block = connection.take_table_update() + headers
        start = header_frames(self.number, block, limit, end=False)
        connection.write(b"".join((start, size.to_bytes(3, "big"), self._frame_tail, data)))
        return True

    def write_response(
        self, headers: bytes, data: Sequence[bytes | memoryview], size: int, trailers: bytes
    ) -> bool:
        """Write a whole response at once: short header blocks made by `encode_headers`, and the
        DATA between them, `size` bytes in parts. Write nothing and return False when it would have
        to wait, when the data needs more than one frame, or when the stream is not in the common
        state.
        """
        connection = self.connection
        if (
            self.state is not _HALF_CLOSED
            or size > connection.frame_size
            or size > self.window
            or size > connection.window
            or not connection.writable
        ):
            return False
        connection.window -= size
        self.answered = True
        if connection._table_update:
            headers = connection.take_table_update() + headers
        tail = self._frame_tail
        number = tail[2:]
        frames = (
            header_frame_start(len(headers), END_HEADERS),
            number,
            headers,
            size.to_bytes(3, "big"),
            tail,
            *data,
            header_frame_start(len(trailers), END_HEADERS | END_STREAM),
            number,
            trailers,
        )
        connection.write(b"".join(frames))
        connection.close_stream(self, StreamState.ENDED)
        return True

    def reset(self, code: ErrorCode) -> None:
        """End the stream with RST_STREAM, if it is open."""
        if self.is_open:
            self.connection.reset(self, code)


class Http2Connection:
    """The states, windows and limits of one connection.

    `write` is called with bytes for the host, `write_parts` with large ones in parts, which stay
    unchanged until they are written, and about how many bytes they are. `streams` has
    the open ones. `blocked` has those that wait for a window, oldest first, and whether they are
    tasks: add a stream that waits, `WindowOpened` is the answer. `window` is how many bytes of DATA
    the host accepts on all streams together, `frame_size` the largest payload of a frame.
    `writable` is False while the transport takes no more bytes, and once nothing can be sent.

    Not thread-safe.
    """

    stream_type: type[Http2Stream] = Http2Stream

    def __init__(
        self,
        write: Callable[[bytes], None],
        write_parts: Callable[[list[bytes | memoryview], int], None] | None = None,
    ) -> None:
        self.write = write
        self.write_parts = write_parts or (lambda parts, _: write(b"".join(parts)))
        self.writable = True
        self.ended = False  # nothing is read any more
        self.streams: dict[int, Http2Stream] = {}
        self.blocked: OrderedDict[Http2Stream, bool] = OrderedDict()
        self.window = self.initial_window = DEFAULT_WINDOW
        self.frame_size = DEFAULT_FRAME_SIZE
        self.highest = 0  # of all stream identifiers so far
        self.limits = rate_limits.RateLimits()
        self._closed = ClosedStreams()
        self._reader = FrameReader()
        self._decoder = HeaderDecoder()
        self._receive_window = RECEIVE_WINDOW
        self._acknowledged = 0
        self._table_update: bytes | None = None  # None: the host has not limited the table

    def start(self) -> None:
        """Write the server's preface: its settings and the connection's window (3.4, 6.9.2)."""
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: STREAMS_LIMIT,
            Setting.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
        }
        self.write(settings_frame(settings) + window_update(0, RECEIVE_WINDOW - DEFAULT_WINDOW))

    # Receiving

    def receive(self, data: bytes) -> list[Event]:
        """What the host has done with these bytes. After `ConnectionEnded` nothing more is read.

        After an error that is the only event: whatever else these bytes began is over, too.
        """
        events: list[Event] = []
        if self.ended:
            return events
        self.limits.begin_read(self.highest)
        try:
            for kind, flags, number, payload in self._reader.read(data):
                _HANDLERS[kind](self, flags, number, payload, events)
                if self.ended:
                    break
        except Http2Error as error:
            self.fail(error.code)
            return [ConnectionEnded(error.code, str(error), False)]
        return events

    def fail(self, code: ErrorCode) -> None:
        """Write GOAWAY; nothing is read or sent after it (5.4.1)."""
        if not self.ended:
            payload = self.highest.to_bytes(4, "big") + code.to_bytes(4, "big")
            self.write(frame(GOAWAY, 0, 0, payload))
            self.stop()

    def stop(self) -> None:
        """The connection is over: close all streams, and read nothing more."""
        self.ended, self.writable = True, False
        for stream in self.streams.values():
            stream.state, stream.window = StreamState.RESET, _CLOSED_WINDOW
        self.streams.clear()

    def pause(self) -> None:
        """The host reads too slowly: `writable` is False until `resume`, and replies to the host
        stay counted against its limits."""
        self.writable, self.limits.paused = False, True

    def resume(self) -> None:
        """The host has read what was written."""
        self.writable, self.limits.paused = not self.ended, False

    def _data(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.1 and 6.9.1."""
        size, end = len(payload), bool(flags & END_STREAM)
        data = unpadded(flags, payload)
        if not data and not end:
            self.limits.count_control()
        if size > self._receive_window:
            raise Http2Error(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"DATA must fit the connection's window of {self._receive_window} bytes, "
                f"got {size}",
            )
        self._receive_window -= size
        stream = self.streams.get(number)
        if stream is None or stream.state is not _OPEN:
            self._acknowledge_connection(size)
            self._react(DATA, number, events)
            return
        if size > stream._receive_window:
            raise Http2Error(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"DATA must fit the window of {stream._receive_window} bytes of stream {number}, "
                f"got {size}",
            )
        stream._receive_window -= size
        if stream._missing_body is not None:
            stream._missing_body -= len(data)
            if stream._missing_body < 0 or (end and stream._missing_body):  # 8.1.1
                self._acknowledge_connection(size)
                self._reset_for_error(stream, ErrorCode.PROTOCOL_ERROR, events)
                return
        if end:
            stream.state = _HALF_CLOSED
        if size or end:
            events.append(DataReceived(stream, data, size, end))

    def _headers(self, flags: int, number: int, block: bytes, events: list[Event]) -> None:
        """6.2: a request, or its trailers."""
        if not number & 1:
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, f"an even number is not a client's stream: {number}"
            )
        end = bool(flags & END_STREAM)
        stream = self.streams.get(number)
        if stream is not None and stream.state is _OPEN:
            self._trailers(stream, block, end, events)
            return
        head = self._decoder.request(block)  # always: the block may change the dynamic table
        if number <= self.highest:
            self._react(HEADERS, number, events)
            return
        self.highest = number
        error = head.error
        if error is None and end and head.content_length:
            error = "content-length without a body"
        if error is not None or len(self.streams) >= STREAMS_LIMIT:  # 5.1.2
            self._closed.add(number, StreamState.RESET)
            refused = ErrorCode.REFUSED_STREAM if error is None else ErrorCode.PROTOCOL_ERROR
            self._write_reset(number, refused)
            self.limits.count_error_reset()
            return
        stream = self.stream_type(self, number)
        self.streams[number] = stream
        if end:
            stream.state = _HALF_CLOSED
        elif head.content_length is not None:
            stream._missing_body = head.content_length
        events.append(RequestReceived(stream, head, end))

    def _trailers(self, stream: Http2Stream, block: bytes, end: bool, events: list[Event]) -> None:
        """8.1: trailers end the request; their values are not used."""
        if self._decoder.trailers(block) is not None or not end or stream._missing_body:
            self._reset_for_error(stream, ErrorCode.PROTOCOL_ERROR, events)
            return
        stream.state = _HALF_CLOSED
        events.append(DataReceived(stream, b"", 0, True))

    def _priority(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.3: allowed in every state, without effect."""
        check_priority(number, payload)

    def _rst_stream(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.4."""
        stream = self.streams.get(number)
        if stream is None:
            self._react(RST_STREAM, number, events)
            return
        if not stream.answered:
            self.limits.count_reset(number)
        self.close_stream(stream, StreamState.RESET_BY_HOST)
        events.append(StreamReset(stream, int.from_bytes(payload, "big")))

    def _settings(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.5: they apply at once and are acknowledged."""
        self.limits.count_settings()
        if flags & ACK:
            return
        settings = read_settings(payload)
        window = settings.get(Setting.INITIAL_WINDOW_SIZE)
        if window is not None:
            self._change_windows(window - self.initial_window, events)
            self.initial_window = window
        self.frame_size = settings.get(Setting.MAX_FRAME_SIZE, self.frame_size)
        table = settings.get(Setting.HEADER_TABLE_SIZE, _DEFAULT_TABLE_SIZE)
        if table < _DEFAULT_TABLE_SIZE and self._table_update is None:
            self._table_update = _NO_TABLE
        self.write(frame(SETTINGS, ACK, 0, b""))

    def _change_windows(self, change: int, events: list[Event]) -> None:
        """6.9.2: a new initial window changes those of all open streams."""
        for stream in self.streams.values():
            stream.window += change
            if stream.window > LARGEST_WINDOW:
                raise Http2Error(
                    ErrorCode.FLOW_CONTROL_ERROR,
                    f"a window must have at most {LARGEST_WINDOW} bytes, got {stream.window}",
                )
        if change > 0 and self.blocked:
            events.append(_ANY_WINDOW)

    def _ping(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.7."""
        self.limits.count_ping()
        if not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))

    def _goaway(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.8: a host that sends it wants no more answers."""
        code = int.from_bytes(payload[4:8], "big")
        self.stop()
        events.append(ConnectionEnded(code, "the host has sent GOAWAY", True))

    def _window_update(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        """6.9."""
        size = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not number:
            window = self.window + size
            if not size or window > LARGEST_WINDOW:
                raise _wrong_increment(size, window)
            self.window = window
            # once, before the events of single streams, which have no turn of their own
            if self.blocked and (not events or events[0] is not _ANY_WINDOW):
                events.insert(0, _ANY_WINDOW)
            return
        stream = self.streams.get(number)
        if stream is None:
            if not size:
                raise _wrong_increment(size, 0)
            self._react(WINDOW_UPDATE, number, events)
            return
        window = stream.window + size
        if not size or window > LARGEST_WINDOW:
            self._reset_for_error(stream, _wrong_increment(size, window).code, events)
            return
        stream.window = window
        if stream in self.blocked:
            events.append(WindowOpened(stream))

    def _react(self, kind: int, number: int, events: list[Event]) -> None:
        """A frame that is not the common case, by the table of states."""
        reaction = REACTIONS[kind][self.state_of(number)]
        if reaction is Reaction.RESET_STREAM:
            stream = self.streams.get(number)
            if stream is None:
                self._write_reset(number, ErrorCode.STREAM_CLOSED)
                self.limits.count_error_reset()
            else:
                self._reset_for_error(stream, ErrorCode.STREAM_CLOSED, events)
        elif isinstance(reaction.value, ErrorCode):
            state = self.state_of(number).value
            raise Http2Error(
                reaction.value, f"stream {number} is {state}, got frame type {kind} on it"
            )

    def state_of(self, number: int) -> StreamState:
        """The state of any stream (5.1)."""
        stream = self.streams.get(number)
        if stream is not None:
            return stream.state
        if number > self.highest or not number & 1:  # the server opens none
            return StreamState.IDLE
        return self._closed.state_of(number)

    def acknowledge(self, stream: Http2Stream, size: int) -> None:
        """`size` bytes of a stream's DATA were read: open the windows again (6.9). Half a window
        at a time, as most requests are small."""
        self._acknowledge_connection(size)
        if stream.state is _OPEN:
            stream._acknowledged += size
            if stream._acknowledged >= _HALF_WINDOW:
                self.write(window_update(stream.number, stream._acknowledged))
                stream._receive_window += stream._acknowledged
                stream._acknowledged = 0

    def _acknowledge_connection(self, size: int) -> None:
        self._acknowledged += size
        if self._acknowledged >= _HALF_WINDOW and not self.ended:
            self.write(window_update(0, self._acknowledged))
            self._receive_window += self._acknowledged
            self._acknowledged = 0

    # Closing streams and sending

    def take_table_update(self) -> bytes:
        """What has to be before the next header block: the confirmation that the host has made its
        dynamic table smaller (RFC 7541, 4.2). Nothing is ever added to that table."""
        update = self._table_update
        if not update:
            return b""
        self._table_update = b""
        return update

    def reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """End an open stream with RST_STREAM."""
        self._write_reset(stream.number, code)
        self.close_stream(stream, StreamState.RESET)

    def _write_reset(self, number: int, code: ErrorCode) -> None:
        self.write(frame(RST_STREAM, 0, number, code.to_bytes(4, "big")))

    def _reset_for_error(self, stream: Http2Stream, code: ErrorCode, events: list[Event]) -> None:
        """A stream error (5.4.2)."""
        self.reset(stream, code)
        events.append(StreamReset(stream, code))
        self.limits.count_error_reset()

    def close_stream(self, stream: Http2Stream, state: StreamState) -> None:
        """Forget an open stream, except for how it was closed."""
        stream.state, stream.window = state, _CLOSED_WINDOW
        del self.streams[stream.number]
        if self.blocked:
            self.blocked.pop(stream, None)
        self._closed.add(stream.number, state)


# for each frame type that a client may send
_HANDLERS = {
    DATA: Http2Connection._data,
    HEADERS: Http2Connection._headers,
    PRIORITY: Http2Connection._priority,
    RST_STREAM: Http2Connection._rst_stream,
    SETTINGS: Http2Connection._settings,
    PING: Http2Connection._ping,
    GOAWAY: Http2Connection._goaway,
    WINDOW_UPDATE: Http2Connection._window_update,
}


def _wrong_increment(size: int, window: int) -> Http2Error:
    """6.9 and 6.9.1."""
    if not size:
        return Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE must not be 0")
    return Http2Error(
        ErrorCode.FLOW_CONTROL_ERROR,
        f"a window must have at most {LARGEST_WINDOW} bytes, got {window}",
    )
