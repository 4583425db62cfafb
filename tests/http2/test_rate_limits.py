"""Floods end their connection with ENHANCE_YOUR_CALM; an honest host that does much is not cut."""

import asyncio
import logging

import pytest
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError
from h2.frame_buffer import FrameBuffer
from h2.stream import H2Stream

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import send_packets
from aiostream_ds._http2 import rate_limits as floods
from aiostream_ds._http2.rate_limits import FLOOD_PERIOD, RESET_GRACE, RateLimits
from aiostream_ds._telemetry import Counters
from tests.grafana.memory import Batches, MemoryHost

CALM = ErrorCodes.ENHANCE_YOUR_CALM
PING = b"\0\0\x08\x06\0\0\0\0\0abcdefgh"
EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


async def wait_forever(request, call):
    await asyncio.Event().wait()


async def answer(request, call):
    await call.write(b"x")
    await asyncio.Event().wait()


async def a_host(clock, run=wait_forever):
    """A host whose connection counts by `clock`."""
    host = MemoryHost(run)
    await host.turn()
    host.protocol.h2.floods = RateLimits(clock)
    return host


def assert_cut(host, caplog):
    host.protocol.outbox.flush()
    host.read()
    assert host.goaway == CALM
    assert host.transport.closed
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "aiostream_ds._http2.connection")
    assert "flooded" in record.getMessage()
    assert "more than" in record.getMessage()


async def assert_well(host, caplog):
    number = host.request(path="/none")
    await host.turn()
    assert host.goaway is None
    assert number in host.ended
    assert not caplog.records


# -- resets --------------------------------------------------------------------------------------


def reset_at_once(host, times):
    for _ in range(times):
        host.h2.reset_stream(host.request(message=None))
    host.deliver()


async def test_streams_opened_and_reset_again_and_again_are_a_flood(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 50)
    counters = Counters()
    monkeypatch.setattr("aiostream_ds._grpc.server.Server.on_flood", counters.count_flood)
    host = await a_host(clock)
    for _ in range(5):
        reset_at_once(host, 10)
        await host.turn()
    assert not host.transport.closed and counters.floods == 0
    reset_at_once(host, 1)
    assert_cut(host, caplog)
    assert counters.floods == 1
    await host.leave()


async def test_a_flood_in_one_read_stops_at_the_limit(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 50)
    host = await a_host(clock)
    reset_at_once(host, 1000)
    assert_cut(host, caplog)
    assert len(host.server.tasks) == 0
    assert host.protocol.h2.highest_inbound_stream_id == 101
    await host.leave()


async def test_resets_at_a_bearable_pace_are_no_flood(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 50)
    host = await a_host(clock)
    for _ in range(10):
        reset_at_once(host, 50)
        await host.turn()
        clock.now += FLOOD_PERIOD
    await assert_well(host, caplog)


async def test_streams_that_were_answered_may_be_reset_at_will(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 5)
    host = await a_host(clock, answer)
    for _ in range(10):
        numbers = [host.request() for _ in range(10)]
        await host.turn()
        for number in numbers:
            host.h2.reset_stream(number)
        await host.turn()
    await assert_well(host, caplog)


async def test_quiet_streams_that_lived_on_may_all_be_reset_together(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 5)
    host = await a_host(clock)
    numbers = [host.request() for _ in range(100)]
    await host.turn()
    clock.now += 2 * RESET_GRACE
    for number in numbers:
        host.h2.reset_stream(number)
    await host.turn()
    assert not host.server.tasks
    await assert_well(host, caplog)


async def test_a_stream_is_old_by_its_own_age_and_not_by_the_connections(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(floods, "RESET_LIMIT", 5)
    host = await a_host(clock)
    for _ in range(20):  # reads all the time, so that there is never a pause
        old = [host.request() for _ in range(3)]
        await host.turn()
        for _ in range(4):
            clock.now += RESET_GRACE / 2
            host.deliver(PING)
        for number in old:
            host.h2.reset_stream(number)
        await host.turn()
    reset_at_once(host, 10)  # the budget, and a second one for the quiet time
    assert not host.transport.closed
    reset_at_once(host, 1)
    assert_cut(host, caplog)
    await host.leave()


async def test_requests_that_we_reset_for_what_they_are_count_too(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 50)
    host = await a_host(clock)
    for _ in range(51):
        host.request(headers=[("connection", "close")], message=None)
    host.deliver()
    assert_cut(host, caplog)
    await host.leave()


async def test_streams_that_h2_resets_for_a_broken_window_count_too(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 50)
    host = await a_host(clock)
    for _ in range(51):
        number = host.request(message=None)
        host.deliver()
        host.deliver(b"\0\0\x04\x08\0" + number.to_bytes(4, "big") + b"\x7f\xff\xff\xff")
    assert_cut(host, caplog)
    await host.leave()


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_dashboard_of_10_000_channels_may_be_closed_as_soon_as_it_is_open(clock, caplog):
    host = await a_host(clock)
    names = [(":method", "POST"), (":scheme", "http"), (":path", "/run"), ("te", "trailers")]
    names.append(("content-type", "application/grpc"))
    numbers = [number.to_bytes(4, "big") for number in range(1, 20_001, 2)]
    for number in numbers:  # by hand: h2's client looks at all its streams for each new one
        block = host.h2.encoder.encode(names)
        host.deliver(len(block).to_bytes(3, "big") + b"\1\4" + number + block)
    await asyncio.sleep(0)
    assert len(host.server.tasks) == 10_000
    host.deliver(b"".join(b"\0\0\4\3\0" + number + b"\0\0\0\x08" for number in numbers))
    await host.turn()
    assert not host.server.tasks
    host.next = 20_001
    await assert_well(host, caplog)


async def test_what_a_host_sends_after_it_was_cut_is_not_read(clock, caplog):
    host = await a_host(clock)
    host.deliver(EMPTY_SETTINGS * (floods.SETTINGS_LIMIT + 1))
    host.deliver(PING * 10)
    assert_cut(host, caplog)


# -- the headers of one request ------------------------------------------------------------------


def headers_frame(kind, payload, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + b"\0\0\0\x01" + payload


async def test_many_continuation_frames_are_a_flood(clock, caplog):
    host = await a_host(clock)
    host.deliver(headers_frame(1, b"\x00\x01a\x01b"))
    host.deliver(headers_frame(9, b"\x00\x01a\x01b") * floods.CONTINUATION_LIMIT)
    assert not host.transport.closed
    host.deliver(headers_frame(9, b"\x00\x01a\x01b"))
    assert_cut(host, caplog)


async def test_long_headers_may_come_in_continuation_frames(clock, caplog):
    host = await a_host(clock)
    number = host.request(path="/none", headers=[("x-long", "x" * 30_000)])
    await host.turn()
    assert host.ended == {number: "12"}
    await assert_well(host, caplog)


async def test_headers_over_64_kib_are_a_flood(clock, caplog):
    host = await a_host(clock)
    host.request(headers=[("x-long", "x" * 1000)] * 66)
    host.deliver()
    host.protocol.outbox.flush()
    host.read()
    assert host.goaway == CALM
    assert len(caplog.records) == 1


# -- frames that are cheap to send ---------------------------------------------------------------


async def test_many_pings_are_a_flood(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    host.deliver(PING * 50)
    await host.turn()
    assert not host.transport.closed
    host.deliver(PING)
    assert_cut(host, caplog)


async def test_pings_at_a_bearable_pace_are_no_flood(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    for _ in range(5):
        host.deliver(PING * 50)
        clock.now += FLOOD_PERIOD
    await assert_well(host, caplog)


async def test_a_host_that_pings_and_does_not_read_is_cut_however_slow_it_is(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    host.protocol.pause_writing()
    for _ in range(50):
        host.deliver(PING)
        clock.now += FLOOD_PERIOD
    assert not caplog.records
    host.deliver(PING)
    assert_cut(host, caplog)


async def test_a_host_that_reads_again_may_ping_again(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    host.protocol.pause_writing()
    host.deliver(PING * 50)
    clock.now += FLOOD_PERIOD
    host.protocol.resume_writing()
    host.deliver(PING * 50)
    await assert_well(host, caplog)


async def test_many_empty_data_frames_are_a_flood(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    number = host.request(message=None)
    host.deliver()
    host.deliver((b"\0\0\0\0\0" + number.to_bytes(4, "big")) * 51)
    assert_cut(host, caplog)
    await host.leave()


async def test_padding_alone_is_an_empty_frame(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 50)
    host = await a_host(clock)
    number = host.request(message=None)
    host.deliver()
    host.deliver((b"\0\0\x05\0\x08" + number.to_bytes(4, "big") + b"\x04\0\0\0\0") * 51)
    assert_cut(host, caplog)
    await host.leave()


async def test_empty_frames_that_end_a_request_are_not_counted(clock, caplog, monkeypatch):
    monkeypatch.setattr(floods, "CONTROL_LIMIT", 5)
    host = await a_host(clock)
    for _ in range(20):
        host.h2.end_stream(host.request(path="/none", message=None))
        await host.turn()
    await assert_well(host, caplog)


async def test_many_settings_are_a_flood(clock, caplog):
    host = await a_host(clock)
    host.deliver(EMPTY_SETTINGS * floods.SETTINGS_LIMIT)
    await host.turn()
    assert not host.transport.closed
    host.deliver(EMPTY_SETTINGS)
    assert_cut(host, caplog)


async def test_what_a_host_sends_beside_a_stream_at_full_speed_is_no_flood(clock, caplog):
    """For each packet a WINDOW_UPDATE of stream and connection: ten times the other limits."""
    reader = Batches()
    host = await a_host(clock, lambda _, call: send_packets(call, reader))
    number = host.request()
    await host.turn()
    frame = b"\0\0\x04\x08\0"
    update = frame + number.to_bytes(4, "big") + b"\0\0\0\x01" + frame + b"\0\0\0\0\0\0\0\x01"
    for _ in range(10):
        host.deliver(update * 100)
        reader.put(Packet(Schema(b"{}", "1"), b"x", 1))
        await host.turn()
    await assert_well(host, caplog)
    await host.leave()


# -- the accounts --------------------------------------------------------------------------------


def test_a_budget_after_a_quiet_time_may_be_used_twice_and_no_more(clock, monkeypatch):
    monkeypatch.setattr(floods, "SETTINGS_LIMIT", 10)
    account = RateLimits(clock)
    clock.now += 3600
    for _ in range(20):
        account.count_settings()
    with pytest.raises(DenialOfServiceError, match="more than 10 SETTINGS frames"):
        account.count_settings()


def test_a_stream_is_young_for_a_second_at_least(clock, monkeypatch):
    monkeypatch.setattr(floods, "RESET_LIMIT", 0)
    account = RateLimits(clock)
    clock.now += RESET_GRACE * 0.9
    account.begin_read(0)  # brings stream 1
    clock.now += RESET_GRACE * 0.9
    account.begin_read(1)
    with pytest.raises(DenialOfServiceError, match="reset at once and unanswered"):
        account.count_reset(1)
    clock.now += RESET_GRACE
    account.begin_read(1)
    account.count_reset(1)


def test_the_clock_is_asked_once_a_read(clock):
    asked = []
    account = RateLimits(lambda: asked.append(clock.now) or clock.now)
    asked.clear()
    account.begin_read(1)
    for number in range(100):
        account.count_reset(number)
        account.count_control()
    assert len(asked) == 1


# -- what h2 must still look like ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["rst_stream", "ping", "data", "settings"])
def test_h2_still_finds_our_counting_by_its_names(name):
    connection = floods.GuardedConnection(H2Configuration(client_side=False))
    found = {f.__name__: f.__func__ for f in connection._frame_dispatch_table.values()}
    method = f"_receive_{name}_frame"
    assert found[method] is getattr(floods.GuardedConnection, method)


def test_h2_still_keeps_for_each_stream_whether_it_was_answered():
    stream = H2Stream(1, H2Configuration(client_side=False), 0, 0)
    assert stream.state_machine.headers_sent is None


def test_h2_still_gathers_the_frames_of_one_requests_headers():
    assert FrameBuffer(server=True)._headers_buffer == []
    assert "_update_header_buffer" in FrameBuffer.__next__.__code__.co_names
