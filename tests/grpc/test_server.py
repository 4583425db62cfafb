"""A grpclib client, or raw HTTP/2, against the server over a UNIX socket."""

import asyncio
import logging
import re
import struct
from contextlib import asynccontextmanager, suppress

import h2.connection
import h2.events
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import send_packets
from aiostream_ds._grpc.call import Codec, GRPCError, Status
from aiostream_ds._grpc.methods import bidi_stream, server_stream, unary
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import pluginv2 as pb

Request, Reply = pb.PublishStreamRequest, pb.PublishStreamResponse


async def echo(request, call):
    return Reply(data=request.data)


ECHO = unary(echo, Request, Reply)


class Host:
    """A server and one connection of a host to it."""

    def __init__(self, server, path):
        self.server = server
        self.path = str(path)
        self.channel = Channel(path=self.path, codec=Codec())

    async def call(self, path="/echo", data=b"", **options):
        method = UnaryUnaryMethod(self.channel, path, Request, Reply)
        return await method(Request(data=data), **options)

    def stream(self, path="/run", **options):
        return UnaryStreamMethod(self.channel, path, Request, Reply).open(**options)

    async def status(self, *args, **options):
        with pytest.raises(GRPCError) as caught:
            await self.call(*args, **options)
        return caught.value.status, caught.value.message


@asynccontextmanager
async def serving(tmp_path, methods, **options):
    server = Server({"": lambda: {"/echo": ECHO, **methods}}, **options)
    path = tmp_path / "s"
    await server.start(path=str(path))
    host = Host(server, path)
    try:
        yield host
    finally:
        host.channel.close()
        server.close()
        await server.wait_closed()


# -- unary calls ---------------------------------------------------------------------------------


async def test_a_unary_call_gets_its_response(tmp_path):
    async with serving(tmp_path, {}) as host:
        assert (await host.call(data=b"abc")).data == b"abc"


async def test_a_response_of_bytes_is_sent_as_it_is(tmp_path):
    async def ready(request, call):
        return bytes(Reply(data=b"ready"))

    async with serving(tmp_path, {"/ready": unary(ready, Request, Reply)}) as host:
        assert (await host.call("/ready")).data == b"ready"


async def test_messages_may_be_larger_than_the_windows(tmp_path):
    data = b"0123456789abcdef" * 400_000
    async with serving(tmp_path, {}) as host:
        assert (await host.call(data=data)).data == data


async def test_a_call_has_path_metadata_peer_and_deadline(tmp_path):
    seen = []

    async def record(request, call):
        seen.append((call, asyncio.get_running_loop().time()))
        return Reply()

    async with serving(tmp_path, {"/record": unary(record, Request, Reply)}) as host:
        pairs = [("traceparent", "00-1"), ("many", "a"), ("many", "b")]
        await host.call("/record", metadata=pairs, timeout=50)
        await host.call("/record")
    (call, now), (bare, _) = seen
    assert (call.path, call.peer) == ("/record", "unix")
    assert call.metadata == {"traceparent": "00-1", "many": "a,b"}
    assert 45 < call.deadline - now <= 50
    assert bare.deadline is None


async def test_a_grpc_error_keeps_its_status_and_message(tmp_path):
    async def refuse(request, call):
        raise GRPCError(Status.PERMISSION_DENIED, "not you, Jörg")

    async with serving(tmp_path, {"/no": unary(refuse, Request, Reply)}) as host:
        assert await host.status("/no") == (Status.PERMISSION_DENIED, "not you, Jörg")


# A class, not an object: pytest keeps parameters, and with an exception's traceback its frames.
@pytest.mark.parametrize("kind", [ValueError, SystemExit, TimeoutError])
async def test_an_exception_is_internal_and_logged_once_with_its_traceback(tmp_path, caplog, kind):
    async def fail(request, call):
        raise kind("broken")

    async with serving(tmp_path, {"/fail": unary(fail, Request, Reply)}) as host:
        text = f"{kind.__name__}: broken"
        assert await host.status("/fail") == (Status.INTERNAL, text)
        assert (await host.call(data=b"alive")).data == b"alive"
    (record,) = caplog.records
    assert record.exc_info[0] is kind
    assert "/fail" in record.getMessage()


async def test_a_very_long_error_message_is_truncated(tmp_path):
    async def refuse(request, call):
        raise GRPCError(Status.ABORTED, "ö" * 100_000)

    async with serving(tmp_path, {"/no": unary(refuse, Request, Reply)}) as host:
        status, message = await host.status("/no")
    assert status == Status.ABORTED
    assert re.fullmatch(r"ö{4100} … \(100000 characters\)", message)


async def test_a_response_of_the_wrong_type_is_internal(tmp_path, caplog):
    async def nothing(request, call):
        return None

    async with serving(tmp_path, {"/nothing": unary(nothing, Request, Reply)}) as host:
        status, message = await host.status("/nothing")
    assert status is Status.INTERNAL
    assert "must be bytes or PublishStreamResponse" in message
    assert len(caplog.records) == 1


async def test_an_unknown_method_is_unimplemented_and_the_connection_stays_open(tmp_path):
    async with serving(tmp_path, {}) as host:
        status, message = await host.status("/pluginv2.New/Thing")
        assert status is Status.UNIMPLEMENTED
        assert "/pluginv2.New/Thing" in message
        assert (await host.call(data=b"alive")).data == b"alive"


async def respond_late(request, call):
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return Reply(data=b"late")


async def stream_late(request, call):
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def refuse_late(request, call):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise GRPCError(Status.NOT_FOUND, "late") from None


@pytest.mark.parametrize(
    "method",
    [
        unary(respond_late, Request, Reply),
        unary(refuse_late, Request, Reply),
        server_stream(stream_late, Request, Reply),
    ],
    ids=["response", "error", "stream"],
)
async def test_what_a_function_does_after_its_deadline_does_not_change_the_status(tmp_path, method):
    async with serving(tmp_path, {"/late": method}) as host:
        raw = await Raw.connect(host)
        raw.request("/late", timeout="10m")
        raw.message(b"")
        assert (await raw.trailers())["grpc-status"] == str(Status.DEADLINE_EXCEEDED.value)
        assert not raw.received
        await raw.close()


async def test_a_call_ends_at_the_hosts_deadline(tmp_path):
    cancelled = asyncio.Event()

    async def wait(request, call):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(tmp_path, {"/wait": unary(wait, Request, Reply)}) as host:
        raw = await Raw.connect(host)
        raw.request("/wait", timeout="10m")
        raw.message(b"")
        assert (await raw.trailers())["grpc-status"] == str(Status.DEADLINE_EXCEEDED.value)
        assert cancelled.is_set()
        await raw.close()


async def test_a_message_over_the_limit_is_resource_exhausted(tmp_path):
    async with serving(tmp_path, {}, receive_limit=1000) as host:
        status, message = await host.status(data=b"x" * 1001)
        assert status is Status.RESOURCE_EXHAUSTED
        assert "must have at most 1000 bytes, got " in message
        assert (await host.call(data=b"x" * 900)).data == b"x" * 900


async def test_a_request_that_cannot_be_decoded_is_internal(tmp_path, caplog):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo")
        raw.message(b"\x12\x02\xff\xff")  # field 2, a string that is not UTF-8
        trailers = await raw.trailers()
        await raw.close()
    assert trailers["grpc-status"] == str(Status.INTERNAL.value)
    assert "cannot decode the request of /echo" in trailers["grpc-message"]
    assert not caplog.records


# -- streams -------------------------------------------------------------------------------------


async def test_a_stream_keeps_its_order(tmp_path):
    async def count(request, call):
        for number in range(3000):
            await call.send(Reply(data=b"%d" % number))

    async with serving(tmp_path, {"/run": server_stream(count, Request, Reply)}) as host:
        async with host.stream() as stream:
            await stream.send_message(Request(), end=True)
            got = [int(reply.data) async for reply in stream]
    assert got == list(range(3000))


async def test_messages_before_an_error_arrive(tmp_path):
    async def fail(request, call):
        await call.send(Reply(data=b"first"))
        raise GRPCError(Status.UNAVAILABLE, "broker gone")

    async with serving(tmp_path, {"/run": server_stream(fail, Request, Reply)}) as host:
        got = []
        with pytest.raises(GRPCError) as caught:
            async with host.stream() as stream:
                await stream.send_message(Request(), end=True)
                got.append((await stream.recv_message()).data)
                await stream.recv_message()
    assert got == [b"first"]
    assert (caught.value.status, caught.value.message) == (Status.UNAVAILABLE, "broker gone")


async def test_a_bidirectional_stream(tmp_path):
    async def upper(_, call):
        while (message := await call.receive()) is not None:
            await call.send(Reply(data=message.data.upper()))

    async with serving(tmp_path, {"/both": bidi_stream(upper, Request, Reply)}) as host:
        async with StreamStreamMethod(host.channel, "/both", Request, Reply).open() as stream:
            for word in (b"a", b"b"):
                await stream.send_message(Request(data=word))
                assert (await stream.recv_message()).data == word.upper()
            await stream.end()
            assert await stream.recv_message() is None


class Waiting:
    """A method that sends one message and waits; counts running calls and cancellations."""

    def __init__(self):
        self.running = 0
        self.cancellations = []
        self.empty = asyncio.Event()

    async def __call__(self, request, call):
        self.running += 1
        try:
            await call.send(Reply(data=b"here"))
            await asyncio.Event().wait()
        finally:
            self.cancellations.append(asyncio.current_task().cancelling())
            await asyncio.sleep(0)  # an await in `finally` is not cancelled again
            self.running -= 1
            if not self.running:
                self.empty.set()


async def start(host):
    stream = await host.stream().__aenter__()
    await stream.send_message(Request(), end=True)
    assert (await stream.recv_message()).data == b"here"
    return stream


async def test_a_reset_cancels_the_stream_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    wait = Waiting()
    async with serving(tmp_path, {"/run": server_stream(wait, Request, Reply)}) as host:
        stream = await start(host)
        await stream.cancel()
        await wait.empty.wait()
    assert wait.cancellations == [1]
    assert not caplog.records


@pytest.mark.slow
async def test_300_open_streams_do_not_block_other_calls(tmp_path):
    wait = Waiting()
    async with serving(tmp_path, {"/run": server_stream(wait, Request, Reply)}) as host:
        streams = await asyncio.gather(*(start(host) for _ in range(300)))
        assert wait.running == 300
        assert (await host.call(data=b"abc")).data == b"abc"
        for stream in streams:
            await stream.cancel()
        await wait.empty.wait()
        await host.call()
        (connection,) = host.server.connections
        assert not host.server.tasks
        assert not connection.connection.streams
    assert wait.cancellations == [1] * 300


async def test_a_lost_connection_cancels_its_streams_once(tmp_path):
    wait = Waiting()
    async with serving(tmp_path, {"/run": server_stream(wait, Request, Reply)}) as host:
        for _ in range(5):
            await start(host)
        host.channel.close()
        await wait.empty.wait()
    assert wait.cancellations == [1] * 5


async def test_close_sends_unavailable_and_closes_the_connections(tmp_path):
    wait = Waiting()
    async with serving(tmp_path, {"/run": server_stream(wait, Request, Reply)}) as host:
        raw = await Raw.connect(host)
        raw.request("/run")
        raw.message(b"")
        assert await raw.status() == "200"
        host.server.close()
        closing = asyncio.ensure_future(host.server.wait_closed())
        trailers = await raw.trailers()
        assert trailers["grpc-status"] == str(Status.UNAVAILABLE.value)
        while await raw.read():
            pass  # until the server has closed its side
        raw.h2.ping(b"12345678")
        raw.flush()  # the host may still write
        assert host.server.connections
        await raw.close()
        await closing
        assert wait.cancellations == [1]
        assert not host.server.connections
        with pytest.raises(OSError):
            await host.call()


async def test_close_aborts_a_connection_that_the_host_keeps_open(tmp_path):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo")
        raw.message(b"")
        await raw.trailers()
        host.server.close()
        await host.server.wait_closed()
        await asyncio.sleep(0)
        assert not host.server.connections
        await raw.close()


async def test_a_closed_window_blocks_only_its_stream(tmp_path):
    async def send_much(request, call):
        for _ in range(100):
            await call.send(b"x" * 10_000)

    methods = {"/run": server_stream(send_much, Request, Reply)}
    async with serving(tmp_path, methods) as host:
        raw = await Raw.connect(host)
        number = raw.request("/run")
        raw.message(b"")
        while raw.received.get(number, 0) < 65_535:
            await raw.read()
        (connection,) = host.server.connections
        assert len(connection.connection.blocked) == 1
        raw.h2.increment_flow_control_window(2_000_000, number)
        raw.h2.increment_flow_control_window(2_000_000)
        raw.flush()
        trailers = await raw.trailers(number)
        assert trailers["grpc-status"] == "0"
        assert raw.received[number] == 100 * 10_005
        await raw.close()


async def test_a_reset_cancels_a_call_that_waits_for_the_window(tmp_path):
    ended = asyncio.Event()

    async def send_much(request, call):
        try:
            while True:
                await call.send(b"x" * 10_000)
        finally:
            ended.set()

    async with serving(tmp_path, {"/run": server_stream(send_much, Request, Reply)}) as host:
        raw = await Raw.connect(host)
        number = raw.request("/run")
        raw.message(b"")
        while raw.received.get(number, 0) < 65_535:
            await raw.read()
        raw.h2.reset_stream(number)
        raw.flush()
        await ended.wait()
        await raw.close()


# -- stream packets ------------------------------------------------------------------------------

SCHEMA = Schema(b'{"fields":[]}', "1")


class FakeSubscription:
    """A subscription with the given batches, which then ends or raises."""

    def __init__(self, batches, error=None, forever=False):
        self.batches = list(batches)
        self.error = error
        self.forever = forever
        self.left = 0
        self.on_ready = self.sink = None
        self.stalled = False

    @property
    def ended(self):
        return not self.batches

    @property
    def queue(self):
        return self.batches

    def receive_nowait(self):
        if self.on_ready is not None and (self.forever or len(self.batches) > 1):
            self.on_ready()  # more is queued
        if not self.batches:
            return []
        return self.batches[0] if self.forever else self.batches.pop(0)

    async def wait(self):
        if self.batches:
            return True
        if self.error is not None:
            raise self.error
        return False

    def sent(self):
        pass

    def leave(self):
        self.left += 1


def runs(subscription):
    async def run(request, call):
        return await send_packets(call, subscription)

    return {"/run": server_stream(run, Request, pb.StreamPacket)}


async def packets_of(host):
    method = UnaryStreamMethod(host.channel, "/run", Request, pb.StreamPacket)
    async with method.open() as stream:
        await stream.send_message(Request(), end=True)
        return [packet.data async for packet in stream]


@pytest.mark.slow
async def test_packets_arrive_in_order_and_the_schema_precedes_its_packets(tmp_path):
    packets = [Packet(SCHEMA, b'{"values":[[%d]]}' % n, 1) for n in range(5000)]
    subscription = FakeSubscription(
        [[(SCHEMA, packets[0]), (None, packets[1])], [(None, p) for p in packets]]
    )
    async with serving(tmp_path, runs(subscription)) as host:
        got = await packets_of(host)
    assert got[0] == b'{"schema":{"fields":[]},"data":{"values":[[0]]}}'
    assert got[1:] == [b'{"data":%b}' % p.data for p in [packets[1], *packets]]
    assert subscription.left == 1


async def test_a_packet_larger_than_all_windows_arrives(tmp_path):
    packet = Packet(SCHEMA, b'{"values":["%b"]}' % (b"x" * 900_000), 1)
    async with serving(tmp_path, runs(FakeSubscription([[(None, packet)]]))) as host:
        (got,) = await packets_of(host)
    assert got == b'{"data":%b}' % packet.data


async def test_an_error_of_the_subscription_follows_its_packets(tmp_path):
    packet = Packet(SCHEMA, b"{}", 1)
    subscription = FakeSubscription([[(None, packet)]], error=GRPCError(Status.UNAVAILABLE, "lost"))
    async with serving(tmp_path, runs(subscription)) as host:
        with pytest.raises(GRPCError, match="lost"):
            await packets_of(host)
    assert subscription.left == 1


async def test_a_stream_at_full_speed_does_not_block_other_calls_and_ends_when_reset(tmp_path):
    packet = Packet(SCHEMA, b"x" * 20_000, 1)
    subscription = FakeSubscription([[(None, packet)] * 10], forever=True)
    async with serving(tmp_path, runs(subscription)) as host:
        method = UnaryStreamMethod(host.channel, "/run", Request, pb.StreamPacket)
        stream = await method.open().__aenter__()
        await stream.send_message(Request(), end=True)
        await stream.recv_message()
        assert (await host.call(data=b"abc")).data == b"abc"
        await stream.cancel()
        while host.server.tasks:
            await host.call()
            await asyncio.sleep(0)
    assert subscription.left == 1


# -- protocol errors of a host -------------------------------------------------------------------


class Raw:
    """A host that sends single HTTP/2 frames."""

    @classmethod
    async def connect(cls, host):
        raw = cls()
        raw.reader, raw.writer = await asyncio.open_unix_connection(host.path)
        raw.h2 = h2.connection.H2Connection()
        raw.h2.initiate_connection()
        raw.next = 1
        raw.received = {}
        raw.ended = {}
        raw.flush()
        return raw

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def request(self, path, timeout=None, end=False, **override):
        number, self.next = self.next, self.next + 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "localhost",
            ":path": path,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        headers |= {key.replace("_", "-"): value for key, value in override.items()}
        headers |= {"grpc-timeout": timeout} if timeout else {}
        if "method" in override:
            headers[":method"] = headers.pop("method")
        self.h2.send_headers(number, list(headers.items()), end_stream=end)
        self.flush()
        return number

    def message(self, body, flag=0, end=True, number=None):
        data = struct.pack(">BI", flag, len(body)) + body
        self.h2.send_data(number or self.next - 2, data, end_stream=end)
        self.flush()

    async def read(self):
        data = await self.reader.read(65_536)
        for event in self.h2.receive_data(data):
            number = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.DataReceived):
                self.received[number] = self.received.get(number, 0) + len(event.data)
            elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers = {k.decode(): v.decode() for k, v in event.headers}
                self.ended.setdefault(number, {}).update(headers)
        self.flush()
        return data

    async def trailers(self, number=None):
        number = number or self.next - 2
        while "grpc-status" not in self.ended.get(number, {}):
            assert await self.read(), "the server closed the connection"
        return self.ended[number]

    async def status(self, number=None):
        number = number or self.next - 2
        while ":status" not in self.ended.get(number, {}):
            assert await self.read(), "the server closed the connection"
        return self.ended[number][":status"]

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()


async def test_a_compressed_message_is_unimplemented_and_the_connection_stays_open(
    tmp_path, caplog
):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo")
        raw.message(b"\x1f\x8b", flag=1)
        trailers = await raw.trailers()
        assert trailers["grpc-status"] == str(Status.UNIMPLEMENTED.value)
        raw.request("/echo")
        raw.message(b"")
        assert (await raw.trailers())["grpc-status"] == "0"
        await raw.close()
    assert not caplog.records


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\0\0\x05abc", b"\0\0\0\0\x05"])
async def test_a_missing_or_truncated_message_is_internal(tmp_path, body, caplog):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        number = raw.request("/echo", end=not body)
        if body:
            raw.h2.send_data(number, body, end_stream=True)
            raw.flush()
        assert (await raw.trailers())["grpc-status"] == str(Status.INTERNAL.value)
        await raw.close()
    assert not caplog.records


async def test_an_empty_frame_does_not_end_a_message(tmp_path):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        number = raw.request("/echo")
        body = bytes(Request(data=b"abc"))
        message = struct.pack(">BI", 0, len(body)) + body
        for part in (message[:3], b"", message[3:]):
            raw.h2.send_data(number, part)
        raw.h2.end_stream(number)
        raw.flush()
        assert (await raw.trailers())["grpc-status"] == "0"
        assert raw.received[number] == 5 + len(bytes(Reply(data=b"abc")))
        await raw.close()


async def test_frames_of_an_unknown_type_are_ignored(tmp_path):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.writer.write(b"\0\0\x04\xfa\0\0\0\0\0abcd")
        raw.request("/echo")
        raw.message(b"")
        assert (await raw.trailers())["grpc-status"] == "0"
        await raw.close()


async def test_a_header_with_other_than_ascii_is_accepted(tmp_path):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo", x_name="Jörg")
        raw.message(b"")
        assert (await raw.trailers())["grpc-status"] == "0"
        await raw.close()


@pytest.mark.parametrize(
    ("override", "status"),
    [({"method": "GET"}, "405"), ({"content_type": "application/json"}, "415")],
)
async def test_a_request_that_is_not_a_grpc_call_gets_an_http_status(tmp_path, override, status):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo", end=True, **override)
        assert await raw.status() == status
        await raw.close()


async def test_a_malformed_timeout_header_is_an_invalid_argument(tmp_path):
    async with serving(tmp_path, {}) as host:
        raw = await Raw.connect(host)
        raw.request("/echo", timeout="soon")
        raw.message(b"")
        trailers = await raw.trailers()
        await raw.close()
    assert trailers["grpc-status"] == str(Status.INVALID_ARGUMENT.value)
    assert "soon" in trailers["grpc-message"]


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\0" * 50]
)
async def test_a_connection_that_is_not_http2_closes_itself_only(tmp_path, garbage, caplog):
    async with serving(tmp_path, {}) as host:
        await host.call()
        reader, writer = await asyncio.open_unix_connection(host.path)
        writer.write(garbage)
        await reader.read()  # until the server closes the connection
        writer.close()
        await writer.wait_closed()
        assert (await host.call(data=b"alive")).data == b"alive"
    assert not caplog.records


async def test_tcp_nodelay_is_set():
    import socket

    server = Server({"": lambda: {"/echo": ECHO}})
    await server.start("127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = Channel("127.0.0.1", port, codec=Codec())
    await UnaryUnaryMethod(channel, "/echo", Request, Reply)(Request())
    (connection,) = server.connections
    accepted = connection.write_buffer.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    channel.close()
    server.close()
    await server.wait_closed()
