"""The encoding of messages, the write buffer, and one connection on the event loop."""

import asyncio
import socket
import struct

import h2.connection
import h2.events
import h2.settings
import pytest

from aiostream_ds._frames.packet import Packet, Schema, render
from aiostream_ds._grafana import packet_delivery
from aiostream_ds._grafana.packet_delivery import _MAX_SIZES as MAX_SIZES
from aiostream_ds._grafana.packet_delivery import packet_message
from aiostream_ds._grpc import write_buffer
from aiostream_ds._grpc.call import Codec
from aiostream_ds._grpc.http2_stream import CallStream, StreamClosedError
from aiostream_ds._grpc.methods import bidi_stream
from aiostream_ds._grpc.server import Server
from aiostream_ds._grpc.write_buffer import COPIED_BYTES, FLUSH_BYTES, FLUSH_CHUNKS
from aiostream_ds._http2 import connection as http2
from aiostream_ds._http2.stream_states import StreamState
from aiostream_ds._pb import pluginv2 as pb

# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, Schema(b'{"fields":[]}', "1")], ids=["data", "both"])
@pytest.mark.parametrize("size", [1, 118, 119, 127, 128, 16_374, 16_384, 70_000, 2_097_152])
def test_an_encoded_packet_is_the_same_as_betterproto2s(size, schema):
    packet = Packet(Schema(b"{}", "0"), b"x" * size, 1)
    payload = render(schema, packet)
    body = bytes(pb.StreamPacket(data=payload))
    assert packet_message(schema, packet) == b"\0" + struct.pack(">I", len(body)) + body


def test_what_precedes_packets_is_kept_for_a_bounded_number_of_sizes():
    schema = Schema(b"{}", "s")
    packets = [Packet(schema, b"1" * size, 1) for size in range(1, MAX_SIZES + 100)]
    expected = b"".join(packet_message(None, each) for each in packets)
    for _ in range(2):
        assert packet_delivery._messages_of_one_schema(None, packets) == expected
        assert len(packet_delivery._between_data) <= MAX_SIZES


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
    protocol = server.new_connection()
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
    connect(transport)
    events = client().receive_data(b"".join(transport.written))
    changed = [e for e in events if isinstance(e, h2.events.RemoteSettingsChanged)]
    code = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
    assert changed[0].changed_settings[code].new_value == http2.STREAMS_LIMIT == 2**31 - 1


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


async def test_parts_are_written_with_what_is_buffered_and_not_copied(monkeypatch):
    monkeypatch.setattr(write_buffer, "_WRITELINES_PAUSES", True)  # in any version of Python
    transport = FakeTransport()
    _, protocol = connect(transport)
    transport.written.clear()
    found = []
    transport.writelines = found.extend
    protocol.write_buffer.write(b"abc")
    data = memoryview(b"d" * COPIED_BYTES)
    protocol.write_buffer.write_parts([b"head", data], COPIED_BYTES + 4)
    assert found == [], "one system call for an iteration of the event loop"
    await asyncio.sleep(0)
    assert found == [b"abc", b"head", data] and found[2] is data
    await asyncio.sleep(0)
    assert transport.written == [] and len(found) == 3  # nothing is written twice
    transport.close()
    protocol.write_buffer.write_parts([data], FLUSH_BYTES)
    assert len(found) == 3


async def test_parts_are_written_at_once_when_the_buffer_is_full(monkeypatch):
    monkeypatch.setattr(write_buffer, "_WRITELINES_PAUSES", True)
    transport = FakeTransport()
    _, protocol = connect(transport)
    found = []
    transport.writelines = found.extend
    data = memoryview(b"d" * FLUSH_BYTES)
    protocol.write_buffer.write_parts([b"head", data], FLUSH_BYTES + 4)
    assert found[-2:] == [b"head", data]


@pytest.mark.parametrize("pauses", [write_buffer._WRITELINES_PAUSES, False])
async def test_parts_pause_the_writer_of_a_host_that_does_not_read(monkeypatch, pauses):
    """With CVE-2024-12254 `writelines` does not."""
    monkeypatch.setattr(write_buffer, "_WRITELINES_PAUSES", pauses)
    ours, host = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Server({}).new_connection, sock=ours)
    assert protocol.connection.writable
    protocol.write_buffer.write_parts([b"head", memoryview(bytes(4 << 20))], 4 << 20)
    assert not protocol.connection.writable
    transport.abort()
    host.close()


async def test_the_frames_of_a_large_answer_are_written_without_a_copy(monkeypatch):
    monkeypatch.setattr(write_buffer, "_WRITELINES_PAUSES", True)  # in any version of Python
    answer = memoryview(bytes(range(256)) * 200)

    async def run(_, call):
        await call.stream.write(answer)

    transport = FakeTransport()
    found = []
    transport.writelines = found.extend
    _, protocol = connect(transport, {"/s": bidi_stream(run, pb.StreamPacket, pb.StreamPacket)})
    peer = client()
    request(peer, 1, "/s")
    protocol.data_received(peer.data_to_send())
    while len(found) < 8:  # the head and the data of four frames
        await asyncio.sleep(0)
    views = [each for each in found if isinstance(each, memoryview)]
    assert b"".join(views) == answer and all(each.obj is answer.obj for each in views)


@pytest.mark.parametrize(
    ("size", "window", "starts"),
    [(10, 10, True), (11, 10, False), (16_384, 1 << 20, True), (16_385, 1 << 20, False)],
)
async def test_headers_and_a_first_message_of_one_frame_are_one_write(size, window, starts):
    found, calls = [], []

    async def run(_, call):
        calls.append(call)
        await asyncio.Event().wait()

    table = {"/s": bidi_stream(run, pb.StreamPacket, pb.StreamPacket)}
    server, protocol = connect(FakeTransport(), table)
    peer = client()
    peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    peer.increment_flow_control_window(1 << 20)
    request(peer, 1, "/s")
    protocol.data_received(peer.data_to_send())
    while not calls:
        await asyncio.sleep(0)
    (call,) = calls
    protocol.connection.write, before = found.append, call.stream.window
    assert call.start_with(b"x" * size) is starts is call.sent
    assert (len(found), before - call.stream.window) == ((1, size) if starts else (0, 0))
    if starts:
        assert not call.start_with(b"x")  # headers are sent once
    protocol.connection_lost(None)
    assert not call.start_with(b"x")
    await asyncio.wait(server.tasks)


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
    connection = protocol.connection
    assert connection.window == connection.streams[1].window == 65_535 - 40_005
    protocol.connection_lost(None)
    await asyncio.wait(server.tasks)


async def test_ended_streams_are_removed():
    transport = FakeTransport()
    server, protocol = connect(transport)
    peer = client()
    for number in range(1, 41, 2):
        request(peer, number)
    protocol.data_received(peer.data_to_send())
    connection = protocol.connection
    assert len(connection.streams) == 20
    await asyncio.wait(server.tasks)
    await asyncio.sleep(0)
    assert len(connection.streams) == 0
    assert connection.state_of(1) is StreamState.RESET  # answered before the end of its request


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


async def test_a_call_that_is_cancelled_before_its_first_step_resets_its_stream():
    transport = FakeTransport()
    server, protocol = connect(transport)
    peer = client()
    request(peer, 1)
    protocol.data_received(peer.data_to_send())
    (task,) = server.tasks
    task.cancel()
    await asyncio.wait(server.tasks)
    await asyncio.sleep(0)
    assert protocol.connection.state_of(1) is StreamState.RESET


# -- one stream ----------------------------------------------------------------------------------


def open_stream(number=1):
    """A transport, its protocol and a stream that no call uses."""

    class Unanswered:
        accept = cancel = staticmethod(lambda *_: None)
        close = staticmethod(lambda: None)

    transport = FakeTransport()
    _, protocol = connect(transport)
    protocol.calls = Unanswered()
    peer = client()
    request(peer, number)
    protocol.data_received(peer.data_to_send())
    stream = protocol.connection.streams[number]
    assert isinstance(stream, CallStream)
    return protocol, stream, peer


async def started(coroutine):
    task = asyncio.ensure_future(coroutine)
    for _ in range(2):  # a write yields once before it waits for a window
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_window_update_of_the_connection_wakes_waiting_streams_only():
    protocol, stream, peer = open_stream()
    protocol.connection.window = 0
    writing = await started(stream.write(b"abc"))
    assert list(protocol.connection.blocked) == [stream]
    peer.increment_flow_control_window(1000)
    protocol.data_received(peer.data_to_send())
    await writing
    assert not protocol.connection.blocked and protocol.connection.window == 997


@pytest.mark.parametrize("lost", ["reset", "connection_lost", "close", "abort"])
async def test_a_write_that_waits_ends_when_the_stream_or_the_connection_does(lost):
    protocol, stream, peer = open_stream()
    protocol.connection.window = 0
    writers = [await started(stream.write(b"abc")) for _ in range(2)]
    if lost == "reset":
        peer.reset_stream(1)
        protocol.data_received(peer.data_to_send())
    elif lost == "connection_lost":
        protocol.connection_lost(None)
    else:
        getattr(protocol, lost)()
        protocol.connection_lost(None)
    for writer in writers:
        with pytest.raises(StreamClosedError, match="stream 1 is closed"):
            await writer
    assert not protocol.connection.blocked and not stream.write_nowait(b"")


async def test_a_write_that_waits_for_the_transport_ends_with_the_connection():
    protocol, stream, _ = open_stream()
    protocol.pause_writing()
    writing = await started(stream.write(b"abc"))
    protocol.connection_lost(None)
    with pytest.raises(StreamClosedError):
        await writing


async def test_nothing_is_written_without_waiting_after_the_write_side_was_closed():
    protocol, stream, _ = open_stream()
    protocol.pause_writing()
    protocol.write_buffer.close()
    protocol.resume_writing()
    assert not stream.write_nowait(b"abc") and not stream.can_respond


async def test_read_waits_for_all_bytes_and_acknowledges_them_as_they_arrive(monkeypatch):
    _, stream, _ = open_stream()
    acknowledged = []
    monkeypatch.setattr(stream.connection, "acknowledge", lambda _, size: acknowledged.append(size))
    reading = await started(stream.read(5))
    stream.feed(b"ab", 2, ended=False)
    await asyncio.sleep(0)
    assert not reading.done()
    stream.feed(b"cdefg", 9, ended=False)  # two bytes more than requested, and padding
    assert await reading == b"abcde" and sum(acknowledged) == 9
    assert await stream.read(2) == b"fg" and sum(acknowledged) == 11


async def test_a_stream_stores_at_most_a_window_however_slow_its_reader_is():
    protocol, stream, peer = open_stream()
    frame, read = bytes(16_000), 0
    while read < 2 * http2.RECEIVE_WINDOW:
        peer.receive_data(b"".join(protocol.write_buffer._transport.written))
        protocol.write_buffer._transport.written.clear()
        while peer.local_flow_control_window(1) >= len(frame):
            peer.send_data(1, frame)
            protocol.data_received(peer.data_to_send())
        assert len(stream._data) <= http2.RECEIVE_WINDOW
        read += len(await stream.read(100_000))
        protocol.write_buffer.flush()


async def test_read_returns_fewer_bytes_at_the_end_of_the_stream():
    _, stream, _ = open_stream()
    stream.feed(b"abc", 3, ended=False)
    stream.feed(b"", 0, ended=True)
    assert await stream.read(5) == b"abc" and await stream.read(1) == b""


async def test_a_forgotten_stream_gives_the_connection_its_unread_bytes():
    protocol, stream, peer = open_stream()
    peer.send_data(1, bytes(3_000))
    protocol.data_received(peer.data_to_send())
    before = protocol.connection._acknowledged
    stream.forget()
    assert protocol.connection._acknowledged - before == 3_000
