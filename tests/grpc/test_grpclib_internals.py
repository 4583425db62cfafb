"""The private parts of grpclib and h2 that _http2 and _grpc rely on. When an upgrade moves one, a
test fails here; then _dependencies.py and pyproject.toml have to change.

    h2       the frame dispatch table, the stream and connection states, the tables of open and
             closed streams, both outbound windows, the buffers of received bytes
    grpclib  the protocol, its connection and event processor, the server's factory of protocols

Those of rate limits and hpack are in tests/http2/test_rate_limits.py and test_headers.py.
"""

import asyncio
import inspect
import struct

import h2.connection
import h2.events
import h2.settings
import h2.stream
import pytest
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.server import Server as GrpclibServer

from aiostream_ds._frames.packet import Packet, Schema, render
from aiostream_ds._grafana.packet_delivery import packet_message
from aiostream_ds._grpc.call import Codec
from aiostream_ds._grpc.methods import bidi_stream
from aiostream_ds._grpc.server import Server
from aiostream_ds._http2 import connection as http2
from aiostream_ds._http2.stream import Http2Stream
from aiostream_ds._http2.write_buffer import FLUSH_BYTES, FLUSH_CHUNKS
from aiostream_ds._pb import pluginv2 as pb

# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, Schema(b'{"fields":[]}', "1")], ids=["data", "both"])
@pytest.mark.parametrize("size", [1, 118, 119, 127, 128, 16_374, 16_384, 70_000, 2_097_152])
def test_an_encoded_packet_is_the_same_as_betterproto2s(size, schema):
    packet = Packet(Schema(b"{}", "0"), b"x" * size, 1)
    payload = render(schema, packet)
    body = bytes(pb.StreamPacket(data=payload))
    assert packet_message(schema, packet) == b"\0" + struct.pack(">I", len(body)) + body


def test_the_codec_decodes_what_it_encodes():
    codec = Codec()
    message = pb.PublishStreamResponse(data=b"abc")
    data = codec.encode(message, pb.PublishStreamResponse)
    assert codec.decode(data, pb.PublishStreamResponse) == message


def test_the_codec_passes_bytes_through():
    assert Codec().encode(b"encoded", pb.StreamPacket) == b"encoded"


@pytest.mark.parametrize("reply", [None, "text", pb.StreamPacket()])
def test_the_codec_refuses_a_response_of_the_wrong_type(reply):
    with pytest.raises(TypeError, match="must be bytes or PublishStreamResponse"):
        Codec().encode(reply, pb.PublishStreamResponse)


# -- one connection in memory --------------------------------------------------------------------


class FakeTransport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written = []
        self.closed = False

    def write(self, data):
        self.written.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close


def connect(transport, methods=None):
    server = Server({"": lambda: methods or {}})
    protocol = server._protocol_factory()
    protocol.connection_made(transport)
    protocol.write_buffer.flush()
    return server, protocol


def client():
    peer = h2.connection.H2Connection()
    peer.initiate_connection()
    return peer


def request(peer, number, path="/none"):
    headers = [
        (":method", "POST"),
        (":path", path),
        (":scheme", "http"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    peer.send_headers(number, headers)


async def test_the_first_settings_frame_removes_the_limit_of_100_streams():
    transport = FakeTransport()
    _, protocol = connect(transport)
    events = client().receive_data(b"".join(transport.written))
    changed = [e for e in events if isinstance(e, h2.events.RemoteSettingsChanged)]
    code = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
    assert changed[0].changed_settings[code].new_value == http2.STREAMS_LIMIT
    # h2 enforces the announced limit
    assert protocol.connection._connection.local_settings.max_concurrent_streams == 2**31 - 1


async def test_writes_of_one_iteration_are_written_together():
    transport = FakeTransport()
    _, protocol = connect(transport)
    transport.written.clear()
    for _ in range(FLUSH_CHUNKS - 1):
        protocol.write_buffer.write(b"abc")
    assert transport.written == []
    await asyncio.sleep(0)
    assert transport.written == [b"abc" * (FLUSH_CHUNKS - 1)]


async def test_the_buffer_is_flushed_after_flush_chunks():
    transport = FakeTransport()
    _, protocol = connect(transport)
    transport.written.clear()
    for _ in range(FLUSH_CHUNKS):
        protocol.write_buffer.write(b"abc")
    assert transport.written == [b"abc" * FLUSH_CHUNKS]


async def test_the_buffer_is_flushed_after_flush_bytes():
    transport = FakeTransport()
    _, protocol = connect(transport)
    transport.written.clear()
    protocol.write_buffer.write(b"x" * FLUSH_BYTES)
    assert len(transport.written) == 1


async def test_data_frames_are_subtracted_from_both_windows():
    got_headers = asyncio.Event()

    async def run(_, call):
        await call.send(b"x" * 40_000)  # three frames
        got_headers.set()
        await asyncio.Event().wait()

    transport = FakeTransport()
    table = {"/s": bidi_stream(run, pb.StreamPacket, pb.StreamPacket)}
    server, protocol = connect(transport, table)
    peer = client()
    request(peer, 1, "/s")
    protocol.data_received(peer.data_to_send())
    await got_headers.wait()
    protocol.write_buffer.flush()
    events = peer.receive_data(b"".join(transport.written))
    received = [e for e in events if isinstance(e, h2.events.DataReceived)]
    assert [len(e.data) for e in received] == [16_384, 16_384, 40_005 - 2 * 16_384]
    connection = protocol.connection._connection
    assert connection.outbound_flow_control_window == 65_535 - 40_005
    assert connection.streams[1].outbound_flow_control_window == 65_535 - 40_005
    assert connection.local_flow_control_window(1) == 65_535 - 40_005
    protocol.connection_lost(None)
    await asyncio.wait(server.tasks)


async def test_ended_streams_are_removed_from_h2():
    transport = FakeTransport()
    server, protocol = connect(transport)
    peer = client()
    for number in range(1, 41, 2):
        request(peer, number)
    protocol.data_received(peer.data_to_send())
    connection = protocol.connection._connection
    assert connection.open_inbound_streams == 20
    await asyncio.wait(server.tasks)
    await asyncio.sleep(0)
    assert connection.open_inbound_streams == 0
    assert len(protocol.connection.streams) == 0
    # h2 still distinguishes a closed stream from one that was never opened
    assert connection._stream_is_closed_by_reset(1)


async def test_a_call_that_is_reset_in_the_same_read_never_runs_and_is_removed():
    called = []
    transport = FakeTransport()

    async def run(_, call):
        called.append(call)

    table = {"/s": bidi_stream(run, pb.StreamPacket, pb.StreamPacket)}
    server, protocol = connect(transport, table)
    peer = client()
    request(peer, 1, "/s")
    peer.reset_stream(1)
    protocol.data_received(peer.data_to_send())
    await asyncio.wait(server.tasks)
    await asyncio.sleep(0)
    assert not called
    assert not server.tasks
    assert len(protocol.connection.streams) == 0
    assert len(protocol.connection._connection.streams) == 0


async def test_a_window_update_of_the_connection_wakes_waiting_streams_only():
    transport = FakeTransport()
    server, protocol = connect(transport)
    waiting = asyncio.ensure_future(protocol.connection.wait_for_window(1))
    await asyncio.sleep(0)
    assert list(protocol.connection.blocked) == [1]
    peer = client()
    peer.increment_flow_control_window(1000)
    protocol.data_received(peer.data_to_send())
    await waiting
    assert not protocol.connection.blocked


# -- private parts of grpclib and h2 --------------------------------------------------------------


def test_h2_counts_streams_with_a_property():
    source = inspect.getsource(h2.connection.H2Connection._receive_headers_frame)
    assert "self.open_inbound_streams" in source
    assert "local_settings.max_concurrent_streams" in source


def test_h2_records_closed_streams_as_forget_does():
    source = inspect.getsource(h2.connection.H2Connection._open_streams)
    assert "self._closed_streams[stream_id] = stream.closed_by" in source


def test_h2_subtracts_sent_data_from_the_window():
    source = inspect.getsource(h2.connection.H2Connection.send_data)
    assert "self.outbound_flow_control_window -= frame_size" in source


def test_h2_dispatches_frames_with_a_table_and_handles_failed_ones():
    source = inspect.getsource(h2.connection.H2Connection._receive_frame)
    assert "self._frame_dispatch_table[frame.__class__](frame)" in source
    assert "except StreamClosedError" in source and "except StreamIDTooLowError" in source
    # omitted in the override: the debug string of each frame, and sending nothing
    assert "self._prepare_for_sending(frames)" in source


def test_h2_changes_only_states_when_headers_are_sent():
    source = inspect.getsource(h2.stream.H2Stream.send_headers)
    assert "self.state_machine.process_input(input_)" in source
    assert "self.state_machine.process_input(StreamInputs.SEND_END_STREAM)" in source


async def test_h2_has_the_private_attributes_that_are_used():
    _, protocol = connect(FakeTransport())
    peer = client()
    request(peer, 1)
    protocol.data_received(peer.data_to_send())
    connection = protocol.connection._connection
    buffer = connection.incoming_buffer
    assert (buffer._data, buffer._headers_buffer, buffer._preamble_len) == (b"", [], 0)
    assert connection.state_machine.state is h2.connection.ConnectionState.SERVER_OPEN
    stream = connection.streams[1]
    assert stream.state_machine.state is h2.stream.StreamState.OPEN
    assert stream.closed_by is None and connection._closed_streams is not None
    assert connection.encoder.header_table.resized is False
    assert callable(connection._prepare_for_sending) and connection._frame_dispatch_table
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Connection, "flush is_closing feed ack pause_writing resume_writing"),
        (EventsProcessor, "process process_request_received process_data_received close"),
        (EventsProcessor, "process_window_updated process_stream_ended process_stream_reset"),
        (EventsProcessor, "process_remote_settings_changed"),
        (H2Protocol, "connection_made data_received connection_lost"),
        (GrpclibServer, "_protocol_factory start close wait_closed"),
    ],
)
def test_grpclib_has_the_methods_that_are_overridden_or_called(owner, names):
    assert [name for name in names.split() if not hasattr(owner, name)] == []


def test_grpclib_closes_calls_with_the_handler():
    source = inspect.getsource(EventsProcessor.close)
    assert "self.handler.close()" in source and "self.connection.close()" in source


# -- reading a stream ----------------------------------------------------------------------------


def stream_of_a_connection():
    acknowledged = []

    class FakeConnection:
        def acknowledge(self, number, size, *, ended):
            acknowledged.append((size, ended))

    return Http2Stream(FakeConnection(), None, 1), acknowledged


async def test_read_waits_for_all_bytes_and_acknowledges_them_as_they_arrive():
    stream, acknowledged = stream_of_a_connection()
    reading = asyncio.ensure_future(stream.read(5))
    stream.feed(b"ab", 2)
    await asyncio.sleep(0)
    assert not reading.done()
    stream.feed(b"cdefg", 9)  # two bytes more than requested, and padding
    assert await reading == b"abcde" and sum(size for size, _ in acknowledged) == 11
    assert await stream.read(2) == b"fg" and sum(size for size, _ in acknowledged) == 11


async def test_read_returns_fewer_bytes_at_the_end_of_the_stream():
    stream, acknowledged = stream_of_a_connection()
    stream.feed(b"abc", 3)
    stream.feed_end()
    assert await stream.read(5) == b"abc" and await stream.read(1) == b""
    assert acknowledged == [(3, True)]


async def test_the_bytes_of_ended_streams_are_acknowledged_together():
    transport = FakeTransport()
    _, protocol = connect(transport)
    peer = client()
    window = peer.outbound_flow_control_window
    for number in range(1, 21, 2):
        request(peer, number)
        peer.send_data(number, bytes(2_000), end_stream=True)
        protocol.data_received(peer.data_to_send())
    before = protocol.connection._connection.inbound_flow_control_window
    for stream in tuple(protocol.connection.streams.values()):
        assert await stream.read(2_000) == bytes(2_000)
    increase = protocol.connection._connection.inbound_flow_control_window - before
    manager = protocol.connection._connection._inbound_flow_control_window_manager
    assert increase + manager._bytes_processed in (18_000, 20_000) and window
    protocol.connection_lost(None)
