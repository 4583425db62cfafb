"""A host that exceeds a rate limit gets GOAWAY ENHANCE_YOUR_CALM; an honest, busy host does not."""

import asyncio
import logging

import pytest
from h2.errors import ErrorCodes

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import send_packets
from aiostream_ds._grpc import http2_protocol
from aiostream_ds._http2 import rate_limits
from aiostream_ds._http2.protocol_errors import RateLimitExceeded
from aiostream_ds._http2.rate_limits import RATE_LIMIT_PERIOD, RESET_GRACE, RateLimits
from aiostream_ds._telemetry import Counters
from tests.grafana.memory import FakeSubscription, MemoryHost

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


async def connected_host(clock, run=wait_forever):
    """A host whose connection reads the time from `clock`."""
    host = MemoryHost(run)
    await host.settle()
    host.protocol.connection.limits = RateLimits(clock)
    return host


def assert_closed(host, caplog):
    host.protocol.write_buffer.flush()
    host.read()
    assert host.goaway == CALM
    assert host.transport.closed
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "aiostream_ds._grpc.http2_protocol")
    assert "exceeded a rate limit" in record.getMessage()
    assert "more than" in record.getMessage()


async def assert_open(host, caplog):
    number = host.request(path="/none")
    await host.settle()
    assert host.goaway is None
    assert number in host.ended
    assert not caplog.records


# -- resets --------------------------------------------------------------------------------------


def reset_at_once(host, times):
    for _ in range(times):
        host.h2.reset_stream(host.request(message=None))
    host.deliver()


async def test_streams_that_are_opened_and_reset_at_once_are_limited(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 50)
    counters = Counters()
    monkeypatch.setattr(
        "aiostream_ds._grpc.server.Server.on_rate_limited", counters.count_rate_limited
    )
    host = await connected_host(clock)
    for _ in range(5):
        reset_at_once(host, 10)
        await host.settle()
    assert not host.transport.closed and counters.rate_limited == 0
    reset_at_once(host, 1)
    assert_closed(host, caplog)
    assert counters.rate_limited == 1
    await host.leave()


@pytest.mark.slow
async def test_nothing_is_processed_after_the_limit_in_one_read(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 50)
    host = await connected_host(clock)
    reset_at_once(host, 1000)
    assert_closed(host, caplog)
    assert len(host.server.tasks) == 0
    assert host.protocol.connection.highest == 101
    await host.leave()


async def test_the_reset_limit_is_renewed_each_period(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 50)
    host = await connected_host(clock)
    for _ in range(10):
        reset_at_once(host, 50)
        await host.settle()
        clock.now += RATE_LIMIT_PERIOD
    await assert_open(host, caplog)


async def test_resets_of_answered_streams_are_not_limited(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 5)
    host = await connected_host(clock, answer)
    for _ in range(10):
        numbers = [host.request() for _ in range(10)]
        await host.settle()
        for number in numbers:
            host.h2.reset_stream(number)
        await host.settle()
    await assert_open(host, caplog)


async def test_resets_of_streams_older_than_the_grace_period_are_not_limited(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 5)
    host = await connected_host(clock)
    numbers = [host.request() for _ in range(100)]
    await host.settle()
    clock.now += 2 * RESET_GRACE
    for number in numbers:
        host.h2.reset_stream(number)
    await host.settle()
    assert not host.server.tasks
    await assert_open(host, caplog)


async def test_the_grace_period_is_measured_for_each_stream_and_not_for_the_connection(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 5)
    host = await connected_host(clock)
    for _ in range(20):  # something is received all the time
        old = [host.request() for _ in range(3)]
        await host.settle()
        for _ in range(4):
            clock.now += RESET_GRACE / 2
            host.deliver(PING)
        for number in old:
            host.h2.reset_stream(number)
        await host.settle()
    reset_at_once(host, 10)  # the limit, and once more after the idle period
    assert not host.transport.closed
    reset_at_once(host, 1)
    assert_closed(host, caplog)
    await host.leave()


async def test_malformed_requests_count_as_resets(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 50)
    host = await connected_host(clock)
    for _ in range(51):
        host.request(headers=[("connection", "close")], message=None)
    host.deliver()
    assert_closed(host, caplog)
    await host.leave()


async def test_streams_that_the_server_resets_for_a_flow_control_error_count_as_resets(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 50)
    host = await connected_host(clock)
    for _ in range(51):
        number = host.request(message=None)
        host.deliver()
        host.deliver(b"\0\0\x04\x08\0" + number.to_bytes(4, "big") + b"\x7f\xff\xff\xff")
    assert_closed(host, caplog)
    await host.leave()


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_dashboard_of_10_000_channels_may_be_closed_right_after_it_was_opened(
    clock, caplog
):
    host = await connected_host(clock)
    names = [(":method", "POST"), (":scheme", "http"), (":path", "/run"), ("te", "trailers")]
    names.append(("content-type", "application/grpc"))
    numbers = [number.to_bytes(4, "big") for number in range(1, 20_001, 2)]
    for number in numbers:  # by hand: h2's client iterates over all its streams for each new one
        block = host.h2.encoder.encode(names)
        host.deliver(len(block).to_bytes(3, "big") + b"\1\4" + number + block)
    await asyncio.sleep(0)
    assert len(host.server.tasks) == 10_000
    host.deliver(b"".join(b"\0\0\4\3\0" + number + b"\0\0\0\x08" for number in numbers))
    await host.settle()
    assert not host.server.tasks
    host.next = 20_001
    await assert_open(host, caplog)


async def test_frames_after_a_closed_connection_are_not_read(clock, caplog):
    host = await connected_host(clock)
    host.deliver(EMPTY_SETTINGS * (rate_limits.SETTINGS_LIMIT + 1))
    host.deliver(PING * 10)
    assert_closed(host, caplog)


# -- the headers of one request ------------------------------------------------------------------


def headers_frame(kind, payload, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + b"\0\0\0\x01" + payload


async def test_continuation_frames_are_limited(clock, caplog):
    host = await connected_host(clock)
    host.deliver(headers_frame(1, b"\x00\x01a\x01b"))
    host.deliver(headers_frame(9, b"\x00\x01a\x01b") * rate_limits.CONTINUATION_LIMIT)
    assert not host.transport.closed
    host.deliver(headers_frame(9, b"\x00\x01a\x01b"))
    assert_closed(host, caplog)


@pytest.mark.slow
async def test_long_headers_may_come_in_continuation_frames(clock, caplog):
    host = await connected_host(clock)
    number = host.request(path="/none", headers=[("x-long", "x" * 30_000)])
    await host.settle()
    assert host.ended == {number: "12"}
    await assert_open(host, caplog)


async def test_headers_over_64_kib_close_the_connection(clock, caplog):
    host = await connected_host(clock)
    host.request(headers=[("x-long", "x" * 1000)] * 66)
    host.deliver()
    host.protocol.write_buffer.flush()
    host.read()
    assert host.goaway == CALM
    assert len(caplog.records) == 1


# -- frames that are cheap to send ---------------------------------------------------------------


async def test_pings_are_limited(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    host.deliver(PING * (rate_limits.UNCOUNTED_PINGS + 50))
    await host.settle()
    assert not host.transport.closed
    host.deliver(PING * (rate_limits.UNCOUNTED_PINGS + 1))
    assert_closed(host, caplog)


async def test_a_host_that_waits_for_each_answer_may_ping_as_often_as_it_can(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    for _ in range(200):
        host.deliver(PING * 2)  # of two kinds: one measures the connection, one keeps it alive
        await host.settle()
    await assert_open(host, caplog)


async def test_the_ping_limit_is_renewed_each_period(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    for _ in range(5):
        host.deliver(PING * (rate_limits.UNCOUNTED_PINGS + 50))
        clock.now += RATE_LIMIT_PERIOD
    await assert_open(host, caplog)


async def test_the_ping_limit_is_not_renewed_while_the_host_does_not_read(
    clock, caplog, monkeypatch
):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    host.protocol.pause_writing()
    for _ in range(50):
        host.deliver(PING)
        clock.now += RATE_LIMIT_PERIOD
    assert not caplog.records
    host.deliver(PING)
    assert_closed(host, caplog)


async def test_the_ping_limit_is_renewed_once_the_host_reads_again(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    host.protocol.pause_writing()
    host.deliver(PING * 50)
    clock.now += RATE_LIMIT_PERIOD
    host.protocol.resume_writing()
    host.deliver(PING * 50)
    await assert_open(host, caplog)


# -- answers that are not read --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/none", ""], ids=["errors", "resets"])
async def test_what_waits_for_a_host_that_sends_requests_and_never_reads_is_bounded(
    clock, caplog, monkeypatch, path
):
    monkeypatch.setattr(http2_protocol, "UNREAD_LIMIT", 3_000)
    counters = Counters()
    monkeypatch.setattr(
        "aiostream_ds._grpc.server.Server.on_rate_limited", counters.count_rate_limited
    )
    host = await connected_host(clock)
    host.protocol.pause_writing()
    for _ in range(500):
        host.request(path=path, message=None)
        host.deliver()
        await asyncio.sleep(0)
        if host.transport.closed:
            break
    assert host.transport.closed and len(host.transport.written) < 4_000
    (record,) = caplog.records
    assert "exceeded a rate limit: more than 3,000 bytes that" in record.getMessage()
    assert counters.rate_limited == 1
    assert not host.protocol.connection.streams
    await host.leave()
    assert not host.server.tasks


async def test_empty_data_frames_are_limited(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    number = host.request(message=None)
    host.deliver()
    host.deliver((b"\0\0\0\0\0" + number.to_bytes(4, "big")) * 51)
    assert_closed(host, caplog)
    await host.leave()


async def test_a_data_frame_of_padding_only_counts_as_empty(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 50)
    host = await connected_host(clock)
    number = host.request(message=None)
    host.deliver()
    host.deliver((b"\0\0\x05\0\x08" + number.to_bytes(4, "big") + b"\x04\0\0\0\0") * 51)
    assert_closed(host, caplog)
    await host.leave()


async def test_empty_frames_that_end_a_request_are_not_counted(clock, caplog, monkeypatch):
    monkeypatch.setattr(rate_limits, "CONTROL_LIMIT", 5)
    host = await connected_host(clock)
    for _ in range(20):
        host.h2.end_stream(host.request(path="/none", message=None))
        await host.settle()
    await assert_open(host, caplog)


async def test_settings_frames_are_limited(clock, caplog):
    host = await connected_host(clock)
    host.deliver(EMPTY_SETTINGS * rate_limits.SETTINGS_LIMIT)
    await host.settle()
    assert not host.transport.closed
    host.deliver(EMPTY_SETTINGS)
    assert_closed(host, caplog)


async def test_window_updates_of_a_stream_at_full_speed_are_not_limited(clock, caplog):
    """A WINDOW_UPDATE of stream and connection for each packet: ten times the other limits."""
    subscription = FakeSubscription()
    host = await connected_host(clock, lambda _, call: send_packets(call, subscription))
    number = host.request()
    await host.settle()
    frame = b"\0\0\x04\x08\0"
    update = frame + number.to_bytes(4, "big") + b"\0\0\0\x01" + frame + b"\0\0\0\0\0\0\0\x01"
    for _ in range(10):
        host.deliver(update * 100)
        subscription.put(Packet(Schema(b"{}", "1"), b"x", 1))
        await host.settle()
    await assert_open(host, caplog)
    await host.leave()


# -- RateLimits ----------------------------------------------------------------------------------


def test_a_limit_may_be_used_twice_after_an_idle_period(clock, monkeypatch):
    monkeypatch.setattr(rate_limits, "SETTINGS_LIMIT", 10)
    limits = RateLimits(clock)
    clock.now += 3600
    for _ in range(20):
        limits.count_settings()
    with pytest.raises(RateLimitExceeded, match="more than 10 SETTINGS frames"):
        limits.count_settings()


def test_the_grace_period_of_a_stream_is_a_second_at_least(clock, monkeypatch):
    monkeypatch.setattr(rate_limits, "RESET_LIMIT", 0)
    limits = RateLimits(clock)
    clock.now += RESET_GRACE * 0.9
    limits.begin_read(0)  # brings stream 1
    clock.now += RESET_GRACE * 0.9
    limits.begin_read(1)
    with pytest.raises(RateLimitExceeded, match="reset at once and unanswered"):
        limits.count_reset(1)
    clock.now += RESET_GRACE
    limits.begin_read(1)
    limits.count_reset(1)


def test_the_clock_is_read_once_per_received_chunk(clock):
    calls = []
    limits = RateLimits(lambda: calls.append(clock.now) or clock.now)
    calls.clear()
    limits.begin_read(1)
    for number in range(100):
        limits.count_reset(number)
        limits.count_control()
    assert len(calls) == 1
