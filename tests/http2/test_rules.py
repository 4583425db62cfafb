"""RFC 9113 where the connection differs from grpclib's: DATA frames, windows, resets, fairness.

h2spec checks the general rules (tests/conformance/test_http2.py).
"""

import asyncio
import itertools
import socket

import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana import packet_delivery
from aiostream_ds._grafana.packet_delivery import packet_message, send_packets
from aiostream_ds._grpc.http2_stream import CallStream
from aiostream_ds._grpc.write_buffer import FLUSH_BYTES
from aiostream_ds._http2.headers import find_malformation
from aiostream_ds._http2.http2_events import WindowOpened
from aiostream_ds._http2.protocol_errors import StreamClosedError
from aiostream_ds._http2.stream_states import StreamState
from tests.grafana.memory import FakeSubscription, MemoryHost
from tests.http2.engine import Engine
from tests.http2.frames import request, window_update

SCHEMA = Schema(b"{}", "1")
LARGE = 2**31 - 1


def sends(size, times=1):
    async def run(request, call):
        for _ in range(times):
            await call.write(b"x" * size)

    return run


# -- windows -------------------------------------------------------------------------------------


async def test_a_stream_window_of_zero_lets_only_headers_out_and_then_exactly_its_increments():
    host = MemoryHost(sends(1000), initial_window_size=0)
    number = host.request()
    await host.settle()
    assert [e.stream_id for e in host.events if isinstance(e, h2.events.ResponseReceived)] == [1]
    assert host.frames == []
    for step in (1, 10, 900):
        host.h2.increment_flow_control_window(step, number)
        await host.settle()
    assert host.frames == [(number, 1), (number, 10), (number, 900)]
    host.h2.increment_flow_control_window(5000, number)
    await host.settle()
    assert (host.received(number), host.ended[number]) == (1000, "0")


async def test_all_streams_share_the_connections_window():
    host = MemoryHost(sends(50_000), initial_window_size=LARGE)
    first, second = host.request(), host.request()
    await host.settle()
    assert host.received(first) + host.received(second) == 65_535
    host.h2.increment_flow_control_window(10)
    await host.settle()
    assert host.received(first) + host.received(second) == 65_545
    host.h2.increment_flow_control_window(100_000)
    await host.settle()
    assert host.ended == {first: "0", second: "0"}


async def test_a_waiting_stream_continues_when_the_initial_window_grows():
    host = MemoryHost(sends(1000), initial_window_size=300)
    number = host.request()
    await host.settle()
    host.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 500})
    await host.settle()
    assert host.frames == [(number, 300), (number, 200)]
    host.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5000})
    await host.settle()
    assert (host.received(number), host.ended[number]) == (1000, "0")


async def test_nothing_is_sent_until_a_negative_window_is_positive_again():
    host = MemoryHost(sends(1000), initial_window_size=300)
    number = host.request()
    await host.settle()
    host.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})  # the window is -300
    host.h2.increment_flow_control_window(300, number)  # 0
    await host.settle()
    assert host.frames == [(number, 300)]
    host.h2.increment_flow_control_window(7, number)
    await host.settle()
    assert host.frames == [(number, 300), (number, 7)]
    await host.leave()


async def test_pushed_packets_wait_while_the_window_is_negative():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=300)
    number = host.request()
    subscription.put(Packet(SCHEMA, b"x" * 200, 1))
    await host.settle()  # from now on packets are pushed
    before = host.received(number)
    host.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    await host.settle()
    subscription.put(Packet(SCHEMA, b"x", 1))
    await host.settle()
    assert host.received(number) == before
    host.h2.increment_flow_control_window(1000, number)
    await host.settle()
    assert before < host.received(number) < before + 50
    await host.leave()


@pytest.mark.parametrize("first", [0, 1])
async def test_a_stalled_subscription_does_not_wait_for_a_window_that_never_opens(first):
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=100)
    number = host.request()
    for _ in range(first):  # then the next packet is pushed, not drained
        subscription.put(Packet(SCHEMA, b"x", 1))
        await host.settle()
    subscription.put(Packet(SCHEMA, b"x" * 1000, 1))
    await host.settle()
    assert host.received(number) == 100 and number not in host.ended
    subscription.stall()
    await host.settle()
    assert host.ended[number] == "14" and subscription.left
    await host.leave()


@pytest.mark.parametrize("size", [16_384, 20_000, 2**20])
async def test_frames_have_the_largest_size_that_the_host_allows(size):
    settings = {"initial_window_size": LARGE, "max_frame_size": size}
    host = MemoryHost(sends(2 * FLUSH_BYTES), **settings)
    host.h2.increment_flow_control_window(3 * FLUSH_BYTES)
    await host.settle()
    number = host.request()
    await host.settle()
    lengths = [length for _, length in host.frames]
    assert max(lengths) == min(size, FLUSH_BYTES)
    assert sum(lengths) == 2 * FLUSH_BYTES
    assert host.ended[number] == "0"


async def test_pushed_packets_are_split_at_the_frame_size():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription))
    number = host.request()
    subscription.put(Packet(SCHEMA, b"x", 1))
    await host.settle()
    host.frames.clear()
    subscription.put(Packet(SCHEMA, b"x" * 20_000, 1))
    await host.settle()
    assert len(host.frames) == 2
    assert max(size for _, size in host.frames) == 16_384
    assert host.received(number) > 20_000
    await host.leave()


async def test_a_window_overflow_resets_its_stream_only():
    host = MemoryHost(sends(10, times=2), initial_window_size=0)
    broken, whole = host.request(), host.request()
    await host.settle()
    overflow = b"\0\0\x04\x08\0" + broken.to_bytes(4, "big") + LARGE.to_bytes(4, "big")
    host.deliver(overflow * 2)
    host.h2.increment_flow_control_window(100, whole)
    await host.settle()
    assert host.resets == {broken: ErrorCodes.FLOW_CONTROL_ERROR}
    assert host.ended[whole] == "0"
    assert not host.server.tasks


# -- a host that does not read -------------------------------------------------------------------


def socket_pair():
    """Two ends of a connection with a small send buffer."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


async def test_the_bytes_written_for_a_host_that_never_reads_are_bounded():
    wrote = 0

    async def run(request, call):
        nonlocal wrote
        while True:
            await call.write(b"x" * 10_000)
            wrote += 10_000

    loop = asyncio.get_running_loop()
    host = MemoryHost(run, initial_window_size=LARGE)  # so large that windows do not limit
    host.h2.increment_flow_control_window(LARGE - 65_535)
    host.request()
    protocol = host.server.new_connection()
    ours, theirs = socket_pair()
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
    protocol.data_received(host.h2.data_to_send())
    for _ in range(200):
        await asyncio.sleep(0)
    assert not protocol.connection.writable
    once = wrote
    assert transport.get_write_buffer_size() < 4 * FLUSH_BYTES
    for _ in range(200):
        await asyncio.sleep(0)
    assert wrote == once
    transport.abort()
    await protocol.lost
    await asyncio.wait(host.server.tasks)
    theirs.close()


async def test_packets_for_a_host_that_never_reads_stay_in_the_subscription():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=LARGE)
    host.request()
    subscription.put(Packet(SCHEMA, b"x", 1))
    await host.settle()
    host.protocol.pause_writing()
    for _ in range(3):
        subscription.put(Packet(SCHEMA, b"x" * 100, 1))
        await host.settle()
    assert len(subscription.queue) == 3  # where the policy can drop them
    before = host.received(1)
    host.protocol.resume_writing()
    await host.settle()
    assert host.received(1) > before + 300
    await host.leave()


# -- the end of a stream, of a connection --------------------------------------------------------


class Ends:
    """Counts the calls that have begun, and how often each was cancelled."""

    def __init__(self, act):
        self.act = act
        self.begun = 0
        self.cancelled = []

    async def __call__(self, request, call):
        self.begun += 1
        try:
            await self.act(call)
        except asyncio.CancelledError:
            self.cancelled.append(asyncio.current_task().cancelling())
            raise


async def wait_forever(call):
    await asyncio.Event().wait()


async def fill_the_window(call):
    while True:
        await call.write(b"x" * 10_000)


async def send_and_wait(call):
    await call.write(b"x")
    await asyncio.Event().wait()


@pytest.mark.parametrize("act", [wait_forever, fill_the_window, send_and_wait])
async def test_a_reset_cancels_its_call_once_and_nothing_is_sent_after_it(act):
    run = Ends(act)
    host = MemoryHost(run)
    number = host.request()
    await host.settle()
    host.h2.reset_stream(number)
    before = list(host.frames)
    await host.settle()
    assert (run.begun, run.cancelled) == (1, [1])
    assert host.frames == before
    assert (host.goaway, host.server.tasks) == (None, set())
    assert not host.protocol.connection.streams


async def test_a_call_that_suppresses_its_cancellation_cannot_write():
    refused = []

    async def run(request, call):
        try:
            await call.write(b"x" * 70_000)
        except asyncio.CancelledError:
            with pytest.raises(StreamClosedError):
                await call.write(b"x")
            refused.append(call.stream.write_nowait(b"x"))

    host = MemoryHost(run)
    number = host.request()
    await host.settle()
    before = list(host.frames)
    host.h2.increment_flow_control_window(100_000)
    host.h2.reset_stream(number)
    await host.settle()
    assert refused == [False]
    assert host.frames == before
    assert (host.goaway, host.server.tasks) == (None, set())


async def test_a_reset_cancels_a_call_that_waits_for_its_request():
    run = Ends(wait_forever)
    host = MemoryHost(run)
    number = host.request(message=None)
    await host.settle()
    assert len(host.server.tasks) == 1
    host.h2.reset_stream(number)
    await host.settle()
    assert (run.begun, host.server.tasks) == (0, set())


async def test_a_reset_ends_a_stream_whose_packets_are_pushed():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription))
    number = host.request()
    subscription.put(Packet(SCHEMA, b"x", 1))
    await host.settle()
    before = list(host.frames)
    subscription.put(Packet(SCHEMA, b"x", 1))  # in the same iteration, before it could be written
    host.h2.reset_stream(number)
    host.deliver()
    await host.settle()
    assert (subscription.left, subscription.on_ready) == (1, None)
    assert host.frames == before
    assert not host.server.tasks


async def test_a_packet_that_is_emitted_while_others_are_taken_follows_them():
    class Refilled(FakeSubscription):
        """Emits while packets are taken, as an author's generator does once there is space."""

        refused = None

        def receive_nowait(self):
            taken = super().receive_nowait()
            if taken[0][1] is first:
                self.refused = not self.sink.write(None, later)
                if self.refused:
                    self.put(later)
            return taken

    first, later = Packet(SCHEMA, b"1", 1), Packet(SCHEMA, b"2", 1)
    subscription = Refilled()
    host = MemoryHost(lambda _, call: send_packets(call, subscription))
    number = host.request()
    subscription.put(Packet(SCHEMA, b"0", 1))
    await host.settle()
    assert subscription.sink is not None
    subscription.put(first)
    await host.settle()
    assert subscription.refused
    expected = [Packet(SCHEMA, b"0", 1), first, later]
    assert host.bodies[number] == b"".join(packet_message(None, each) for each in expected)
    await host.leave()


@pytest.mark.parametrize("schema", [None, SCHEMA])
async def test_several_packets_are_written_as_one_by_one(schema):
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription))
    number = host.request()
    await host.settle()
    packets = [Packet(SCHEMA, b"1" * n, 1) for n in (1, 200, 200, 3, 20_000)]
    assert subscription.sink.write_all(schema, packets, sum(len(each.data) for each in packets))
    await host.settle()
    expected = [packet_message(schema, packets[0])]
    expected += [packet_message(None, each) for each in packets[1:]]
    assert host.bodies[number] == b"".join(expected)
    await host.leave()


async def test_several_packets_above_the_window_are_all_refused():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=80)
    number = host.request()
    await host.settle()
    for each in (b"1" * 50, b"1" * 20):  # more than the window; with what is around it, too
        assert not subscription.sink.write_all(None, [Packet(SCHEMA, each, 1)] * 3, 3 * len(each))
    assert subscription.sink.write(None, Packet(SCHEMA, b"2", 1))
    await host.settle()
    assert host.bodies[number] == packet_message(None, Packet(SCHEMA, b"2", 1))
    await host.leave()


async def test_packets_that_are_too_much_for_one_write_are_not_joined_in_vain(monkeypatch):
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=1 << 20)
    host.h2.increment_flow_control_window(1 << 20)
    host.request()
    host.deliver()
    await host.settle()
    joined = []
    monkeypatch.setattr(
        packet_delivery, "_messages_of_one_schema", lambda *each: joined.append(each) or b""
    )
    for size, expected in ((FLUSH_BYTES // 2, 1), (FLUSH_BYTES // 2 + 1, 1)):
        packets = [Packet(SCHEMA, b"1" * size, 1)] * 2
        subscription.sink.write_all(None, packets, 2 * size)
        assert len(joined) == expected
    await host.leave()


async def test_a_packet_waits_for_a_closed_window_and_later_packets_follow_it():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=40)
    number = host.request()
    subscription.put(Packet(SCHEMA, b"0", 1))
    await host.settle()
    small, large = Packet(SCHEMA, b"1", 1), Packet(SCHEMA, b"2" * 100, 1)
    assert not subscription.sink.write(None, large)
    subscription.put(large)
    stream = host.protocol.connection.streams[number]
    stream.window = 1000  # not woken yet
    assert not subscription.sink.write(None, small)  # it would overtake the rest of the other one
    assert not subscription.sink.write_all(None, [small, small], 2)
    stream.window = 0
    subscription.put(small)
    host.h2.increment_flow_control_window(1000, number)
    host.deliver()
    await host.settle()
    await host.settle()
    expected = [Packet(SCHEMA, b"0", 1), large, small]
    assert host.bodies[number] == b"".join(packet_message(None, each) for each in expected)
    await host.leave()


async def test_a_reset_of_an_ended_stream_has_no_effect():
    host = MemoryHost(sends(10))
    number = host.request()
    await host.settle()
    assert host.ended[number] == "0"
    reset = b"\0\0\x04\x03\0" + number.to_bytes(4, "big") + b"\0\0\0\x08"
    host.deliver(reset * 3)
    again = host.request()
    await host.settle()
    assert (host.ended[again], host.goaway) == ("0", None)


def test_windows_that_open_together_are_one_event():
    """Each event costs a turn of all streams that wait."""
    engine = Engine()
    engine.send(request(1) + request(3))
    waiting = engine.streams[3]
    engine.connection.blocked[waiting] = True
    window = engine.connection.window
    opened = window_update(0, 10) * 1_000 + window_update(3, 5)
    events = engine.connection.receive(opened + window_update(0, 10) + request(5))
    assert events[:2] == [WindowOpened(None), WindowOpened(waiting)]
    assert (len(events), engine.connection.window) == (3, window + 10_010)


async def test_late_frames_of_a_forgotten_stream_have_no_effect(monkeypatch):
    monkeypatch.setattr("aiostream_ds._http2.stream_states.CLOSED_STREAMS", 4)
    host = MemoryHost(sends(10))
    first, *others = [host.request() for _ in range(10)]
    await host.settle()
    state_of = host.protocol.connection.state_of
    assert state_of(first) is StreamState.SKIPPED
    assert {state_of(number) for number in others[-4:]} == {StreamState.ENDED}
    tail = first.to_bytes(4, "big")
    host.deliver(b"\0\0\x04\x03\0" + tail + b"\0\0\0\x08")  # RST_STREAM
    host.deliver(b"\0\0\x04\x08\0" + tail + b"\0\0\1\0")  # WINDOW_UPDATE
    again = host.request()
    await host.settle()
    assert (host.ended[again], host.goaway) == ("0", None)


async def test_a_goaway_ends_the_calls_and_the_connection(caplog):
    run = Ends(send_and_wait)
    host = MemoryHost(run)
    for _ in range(3):
        host.request()
    await host.settle()
    host.h2.close_connection()
    host.deliver()
    await asyncio.wait(host.server.tasks)
    assert run.cancelled == [1, 1, 1]
    assert host.transport.closed
    host.protocol.connection_lost(None)
    assert not host.server.connections
    assert not caplog.records


# -- fairness ------------------------------------------------------------------------------------


async def test_two_streams_at_full_speed_alternate_after_at_most_two_flushes():
    subscriptions = [FakeSubscription(), FakeSubscription()]
    unread = iter(subscriptions)
    host = MemoryHost(lambda _, call: send_packets(call, next(unread)), initial_window_size=LARGE)
    host.h2.increment_flow_control_window(LARGE - 65_535)
    for subscription in subscriptions:
        subscription.put(*[Packet(SCHEMA, b"x" * 20_000, 1)] * 100)
    numbers = host.request(), host.request()
    await host.settle()
    assert [host.received(number) > 2_000_000 for number in numbers] == [True, True]
    runs = [
        sum(size for _, size in frames)
        for _, frames in itertools.groupby(host.frames, key=lambda frame: frame[0])
    ]
    # the last run may be what one still had to send when the other was done
    assert max(runs[:-1]) <= 2 * FLUSH_BYTES
    await host.leave()


@pytest.mark.parametrize("increment", [16_384, 10_000, 7, 40_000])
@pytest.mark.parametrize("size", [40_000, 5_000, 1_000])
async def test_streams_that_wait_for_the_connections_window_use_it_in_turn(size, increment):
    async def run(request, call):
        while True:
            await call.write(b"x" * size)

    host = MemoryHost(run, initial_window_size=LARGE)
    numbers = [host.request() for _ in range(3)]
    await host.settle()
    before = [host.received(number) for number in numbers]
    for _ in range(30):
        host.h2.increment_flow_control_window(increment)
        await host.settle()
    used = [host.received(number) - more for number, more in zip(numbers, before, strict=True)]
    assert used == [10 * increment] * 3
    await host.leave()


@pytest.mark.parametrize("favoured", [0, 2])
@pytest.mark.parametrize("is_alone", [True, False])
async def test_the_window_of_a_stream_does_not_change_its_turn(favoured, is_alone):
    async def run(request, call):
        while True:
            await call.write(b"x" * 40_000)

    host = MemoryHost(run, initial_window_size=1_000_000)
    numbers = [host.request() for _ in range(3)]
    await host.settle()
    before = [host.received(number) for number in numbers]
    for _ in range(30):
        host.h2.increment_flow_control_window(10_000, numbers[favoured])
        if is_alone:
            await host.settle()
        host.h2.increment_flow_control_window(10_000)
        await host.settle()
    used = [host.received(number) - more for number, more in zip(numbers, before, strict=True)]
    assert used == [100_000] * 3
    await host.leave()


class Endless(FakeSubscription):
    """A subscription that has another packet of `size` bytes in the next iteration."""

    def __init__(self, size):
        super().__init__()
        self.packet = Packet(SCHEMA, b"x" * size, 1)
        self.put(self.packet)

    def receive_nowait(self):
        asyncio.get_running_loop().call_soon(self.put, self.packet)
        return super().receive_nowait()


@pytest.mark.parametrize("increment", [16_384, 10_000, 7, 40_000])
@pytest.mark.parametrize("kinds", [*itertools.product(["task", "packets"], repeat=3)])
@pytest.mark.parametrize("is_paused", [False, True])
async def test_packets_and_tasks_use_the_connections_window_in_turn(increment, kinds, is_paused):
    remaining = iter(kinds)

    async def run(request, call):
        if next(remaining) == "packets":
            return await send_packets(call, Endless(40_000))
        while True:
            await call.write(b"x" * 40_000)

    host = MemoryHost(run, initial_window_size=LARGE)
    numbers = [host.request() for _ in range(3)]
    await host.settle()
    before = [host.received(number) for number in numbers]
    for _ in range(30):
        if is_paused:
            host.protocol.pause_writing()
        host.h2.increment_flow_control_window(increment)
        await host.settle()
        if is_paused:
            host.protocol.resume_writing()
            await host.settle()
    used = [host.received(number) - more for number, more in zip(numbers, before, strict=True)]
    assert len(host.server.tasks) == kinds.count("task")
    assert sum(used) == 30 * increment and max(used) - min(used) <= 40_050
    await host.leave()
    assert not host.protocol.connection.blocked


async def test_a_window_that_opens_wakes_only_the_streams_that_it_lets_write(monkeypatch):
    woken = []
    wake = CallStream.wake_writer
    monkeypatch.setattr(CallStream, "wake_writer", lambda each: woken.append(each) or wake(each))
    subscriptions = [FakeSubscription() for _ in range(100)]
    unread = iter(subscriptions)
    host = MemoryHost(lambda _, call: send_packets(call, next(unread)), initial_window_size=LARGE)
    numbers = [host.request() for _ in subscriptions]
    await host.settle()
    packet = Packet(SCHEMA, b"x" * 8_000, 1)
    for subscription in subscriptions:
        subscription.put(packet)
    expected = dict.fromkeys(numbers, packet_message(None, packet))
    for _ in range(50):
        host.h2.increment_flow_control_window(16_384)
        await host.settle()
        assert not host.server.tasks
    assert host.bodies == expected
    assert len(woken) <= 150  # a message that does not fit is written in two parts
    await host.leave()


async def test_a_ping_is_answered_while_a_stream_is_at_full_speed():
    async def run(request, call):
        while True:
            await call.write(b"x" * FLUSH_BYTES)
            await asyncio.sleep(0)

    host = MemoryHost(run, initial_window_size=LARGE)
    host.h2.increment_flow_control_window(LARGE - 65_535)
    host.request()
    host.deliver()
    await asyncio.sleep(0)
    host.read()
    host.h2.ping(b"12345678")
    host.deliver()
    await asyncio.sleep(0)
    host.read()
    (ack,) = [e for e in host.events if isinstance(e, h2.events.PingAckReceived)]
    assert ack.ping_data == b"12345678"
    assert host.received(1) > 0
    await host.leave()


# -- malformed requests --------------------------------------------------------------------------

WHOLE = [(":method", "POST"), (":scheme", "http"), (":path", "/run"), ("te", "trailers")]


@pytest.mark.parametrize(
    "headers",
    [
        WHOLE,
        [*WHOLE[:3], (":authority", "x"), ("grpc-timeout", "1S"), ("x-key_1.b", "Jörg")],
        [*WHOLE[:2], (":path", "/b"), ("a", ""), ("a", "")],
    ],
)
def test_well_formed_headers(headers):
    assert find_malformation(headers) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (WHOLE[1:], ":method, :scheme and :path"),
        ([WHOLE[0], *WHOLE], ":method, :scheme and :path"),
        ([*WHOLE[:3], (":authority", "a"), (":authority", "b")], "once each"),
        ([*WHOLE[:3], (":status", "200")], "':status'"),
        ([*WHOLE[:3], (":protocol", "x")], "':protocol'"),
        ([*WHOLE[:2], ("a", "b"), WHOLE[2]], "before all other headers"),
        ([*WHOLE[:2], (":path", "")], ":path must not be empty"),
        ([*WHOLE, ("Upper", "x")], "'Upper'"),
        ([*WHOLE, ("ümlaut", "x")], "'ümlaut'"),
        ([*WHOLE, ("a b", "x")], "must not contain spaces"),
        ([*WHOLE, ("a:b", "x")], "spaces or colons"),
        ([*WHOLE, ("a\n", "x")], "lower-case ASCII"),
        ([*WHOLE, ("", "x")], "''"),
        ([*WHOLE, ("connection", "close")], "'connection'"),
        ([*WHOLE[:3], ("te", "gzip")], "'gzip'"),
        ([], "once each"),
    ],
)
def test_malformed_headers(headers, reason):
    assert reason in find_malformation(headers)


async def test_a_malformed_request_is_reset_and_the_next_one_answered(caplog):
    host = MemoryHost(sends(10))
    broken = host.request(headers=[("connection", "close")])
    whole = host.request()
    await host.settle()
    assert host.resets == {broken: ErrorCodes.PROTOCOL_ERROR}
    assert host.ended == {whole: "0"}
    assert not host.protocol.connection.streams
    assert not caplog.records


async def test_a_malformed_request_that_was_reset_in_the_same_read_is_forgotten():
    host = MemoryHost(sends(10))
    host.h2.reset_stream(host.request(headers=[("connection", "close")], message=None))
    await host.settle()
    assert (host.resets, host.goaway) == ({}, None)
    assert not host.protocol.connection.streams
