"""HTTP/2 below the calls: one connection of the host, its streams, its windows.

The only file that knows the insides of `grpclib.protocol` (0.4.9), and with floods.py those of h2
(4.3, 4.4): tests/unit/test_wire.py fails when an upgrade moves what it relies on. Against grpclib
it has no limit of 100 streams, O(1) work for each stream, DATA frames made by hand, one system call
for all that one turn of the loop writes, it refuses malformed requests and floods, and it outlives
frames that it does not know. Imports floods.py.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes

from aiostream_ds.grafana.floods import GuardedConnection, malformed

__all__ = ["TURN", "Headers", "Http2Protocol", "Http2Stream", "Outbox", "StreamClosedError"]

TURN = 64 * 1024
"""Bytes after which a stream lets the loop turn, and after which written bytes leave at once."""

STREAMS_LIMIT = 2**31 - 1
"""Streams that a host may have open: every panel's stream is one, so there is no limit."""

Headers = list[tuple[str, str]]

_log = logging.getLogger("aiostream_ds.grafana")


class Http2Stream(Stream):
    """One HTTP/2 stream: grpclib reads it, the methods here write it."""

    connection: "_Connection"

    def __init__(
        self, connection: "_Connection", h2: H2Connection, outbox: Any, number: int
    ) -> None:
        super().__init__(connection, h2, outbox, stream_id=number)
        self.number = number

    async def write(self, data: bytes | bytearray) -> None:
        """Write `data` as DATA frames, waiting for the windows.

        Raises StreamClosedError when the host has reset the stream or is gone.
        """
        h2, connection = self._h2_connection, self.connection
        view = memoryview(data)
        sent, total = 0, len(view)
        tail = b"\0\0" + self.number.to_bytes(4, "big")  # type DATA, no flags, the stream
        while sent < total:
            await connection.write_ready.wait()
            stream = h2.streams.get(self.number)
            if stream is None or stream.closed or connection.is_closing():
                raise StreamClosedError(self.number)
            window = min(h2.outbound_flow_control_window, stream.outbound_flow_control_window)
            size = min(window, total - sent, TURN)
            if size <= 0:
                await connection.wait_for_window(self)
                continue
            h2.outbound_flow_control_window -= size
            stream.outbound_flow_control_window -= size
            parts: list[bytes | memoryview] = []
            end = sent + size
            while sent < end:
                length = min(h2.max_outbound_frame_size, end - sent)
                parts += (length.to_bytes(3, "big") + tail, view[sent : sent + length])
                sent += length
            self._transport.write(b"".join(parts))

    def write_now(self, data: bytes) -> bool:
        """Write all of `data`, or nothing and return False when it would have to wait."""
        h2, connection = self._h2_connection, self.connection
        stream = h2.streams.get(self.number)
        size = len(data)
        if (
            stream is None
            or stream.closed
            or size > stream.outbound_flow_control_window
            or size > h2.outbound_flow_control_window
            or size > h2.max_outbound_frame_size
            or not connection.write_ready.is_set()
            or connection.is_closing()
        ):
            return False
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        head = size.to_bytes(3, "big") + b"\0\0" + self.number.to_bytes(4, "big")
        connection.outbox.write(head + data)
        return True

    def write_headers(self, headers: Headers, *, end: bool) -> None:
        """Never waits. `end` also resets a stream on which the host may still be sending.

        Raises StreamClosedError when the host has reset the stream or is gone.
        """
        if not self.closable:
            raise StreamClosedError(self.number)
        self._h2_connection.send_headers(self.number, headers, end_stream=end)
        if end and self.closable:
            self._h2_connection.reset_stream(self.number)
        self.connection.flush()

    def refuse(self, status: str) -> None:
        """Answer what is no gRPC call with an HTTP status."""
        if self.closable:
            self.write_headers([(":status", status)], end=True)

    def forget(self) -> None:
        """What h2 does in its walk over all streams: keep only how a closed one ended."""
        h2 = self._h2_connection
        stream = h2.streams.get(self.number)
        if stream is not None and stream.closed:
            del h2.streams[self.number]
            h2._closed_streams[self.number] = stream.closed_by


class Outbox:
    """The transport as grpclib sees it: what one turn of the loop writes leaves together."""

    __slots__ = ("_callbacks", "_ended", "_parts", "_scheduled", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._size = 0
        self._callbacks: list[Callable[[], None]] = []
        self._scheduled = self._ended = False

    def write(self, data: bytes) -> None:
        """Keep `data` for the end of this turn; 64 KiB leave at once."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= TURN:
            self.flush()
        elif not self._scheduled:
            self._schedule()

    def at_turns_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called before the bytes of this turn leave; it may write."""
        self._callbacks.append(callback)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush_later)

    def _flush_later(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # one stream's failure must not hold up the connection's bytes
                _log.exception("a stream could not write")
        self._scheduled = False
        if self._callbacks:  # asked for meanwhile: their turn is the next one
            self._schedule()
        self.flush()

    def flush(self) -> None:
        """Hand everything to the transport now."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def end(self) -> None:
        """Flush and write no more, but read on, so that the host can take everything and close.

        Closing at once would fail the host's own writes, and some hosts then read no more.
        """
        self.flush()
        if not self.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:  # TLS
                self._transport.close()
        self._ended = True

    def close(self) -> None:
        """Flush, and close when the transport has sent its bytes."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close now; unsent bytes are lost."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """True once nothing more can be written."""
        return self._ended or self._transport.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """What asyncio knows of the connection: "peername", "socket", "ssl_object"."""
        return self._transport.get_extra_info(name)


class Http2Protocol(H2Protocol):
    """One connection of the host, from accept to loss. asyncio itself sets TCP_NODELAY on it.

    It adds itself to `connections` and leaves it when lost; `lost` is done from then on.
    """

    h2: "_H2"
    outbox: Outbox
    lost: "asyncio.Future[None]"

    def __init__(
        self,
        handler: AbstractHandler,
        config: Configuration,
        connections: "set[Http2Protocol]",
    ) -> None:
        h2_config = H2Configuration(
            client_side=False,
            # reads every header there is; with ascii an umlaut would end the connection
            header_encoding="latin-1",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(handler, config, h2_config)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: say which limits hold."""
        self.h2 = h2 = _H2(self.h2_config)
        # before the preface: the first SETTINGS frame carries it, and h2 itself holds to it
        h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS_LIMIT
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        initial = h2.local_settings.initial_window_size
        h2.increment_flow_control_window(self.config.http2_connection_window_size - initial)
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size})
        self.lost = asyncio.get_running_loop().create_future()
        self.outbox = Outbox(cast("asyncio.Transport", transport))
        self.connection = _Connection(h2, self.outbox, self.config)
        self.processor = _Events(self.handler, self.connection, h2)
        self._connections.add(self)
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. A peer that breaks the protocol loses its connection, no more."""
        if not hasattr(self.processor, "processors"):  # closed already; TLS may read on for a while
            return
        try:
            for event in self.connection.feed(data):
                self.processor.process(event)
        except DenialOfServiceError as error:
            _log.warning("the host flooded a connection, which is closed: %s", error)
            self._cut("Flood", error.error_code)
        except ProtocolError as error:
            _log.debug("the host broke the HTTP/2 protocol: %s", error)
            self._cut("Protocol error", error.error_code)
        except Exception:
            _log.exception("a connection of the host is given up")
            self._cut("Internal error", ErrorCodes.INTERNAL_ERROR)
        else:
            self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by asyncio: every call of the connection is cancelled."""
        super().connection_lost(exc)
        self._connections.discard(self)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Called by asyncio when the host reads too slowly."""
        super().pause_writing()
        self.h2.floods.stalled = True

    def resume_writing(self) -> None:
        """Called by asyncio when the host has read enough."""
        super().resume_writing()
        self.h2.floods.stalled = False

    def _cut(self, reason: str, code: ErrorCodes) -> None:
        if self.h2.state_machine.state is not ConnectionState.CLOSED:  # else h2 has said GOAWAY
            self.h2.close_connection(code)
        self.connection.flush()
        self.processor.close(reason)


class _H2(GuardedConnection):
    """h2 without its walk over all streams at each request; `Http2Stream.forget` does its work."""

    @property
    def open_inbound_streams(self) -> int:
        return len(self.streams)


class _Connection(Connection):
    """grpclib's, which knows the streams that wait for a window, so that only they are woken."""

    def __init__(self, h2: H2Connection, outbox: Outbox, config: Configuration) -> None:
        super().__init__(h2, cast("asyncio.Transport", outbox), config=config)
        self.outbox = outbox
        self.blocked: set[Http2Stream] = set()

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Http2Stream:
        if stream_id is None or wrapper is not None:
            raise ValueError(f"stream {stream_id!r}: only the host opens streams here")
        return Http2Stream(self, self._connection, self._transport, stream_id)

    def flush(self) -> None:
        data = self._connection.data_to_send()
        if data and not self.is_closing():
            self._transport.write(data)

    async def wait_for_window(self, stream: Http2Stream) -> None:
        stream.window_updated.clear()
        self.blocked.add(stream)
        try:
            await stream.window_updated.wait()
        finally:
            self.blocked.discard(stream)

    def wake_blocked(self) -> None:
        for stream in self.blocked:
            stream.window_updated.set()


class _Events(EventsProcessor):
    connection: _Connection

    def __init__(self, handler: AbstractHandler, connection: _Connection, h2: _H2) -> None:
        super().__init__(handler, connection)
        self.h2 = h2

    def process(self, event: Event) -> None:
        # grpclib raises for an event that it does not know; HTTP/2 says: ignore unknown frames.
        # `processors` is gone when an earlier event of the same bytes has closed the connection.
        processor = getattr(self, "processors", {}).get(type(event))
        if processor is not None:
            processor(event)

    def process_request_received(self, event: RequestReceived) -> None:
        reason = malformed(cast("Headers", event.headers))
        if reason is None:
            super().process_request_received(event)
            return
        _log.debug("a request of the host is malformed: %s", reason)
        stream = self.connection.create_stream(stream_id=event.stream_id)
        if stream.closable:
            self.h2.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            self.h2.floods.count_refusal()
        stream.forget()

    def process_stream_reset(self, event: StreamReset) -> None:
        super().process_stream_reset(event)
        if not event.remote_reset:  # by h2, for what the host sent
            self.h2.floods.count_refusal()

    def process_data_received(self, event: DataReceived) -> None:
        if event.flow_controlled_length:  # an empty frame would read as the end of the stream
            super().process_data_received(event)

    def process_window_updated(self, event: WindowUpdated) -> None:
        if event.stream_id:
            super().process_window_updated(event)
        else:
            self.connection.wake_blocked()

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            self.connection.wake_blocked()
