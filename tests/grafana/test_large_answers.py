"""A short response of a unary call is written at once; a longer one waits for its windows."""

import asyncio

import pytest
from h2.settings import SettingCodes

from aiostream_ds._grpc.methods import unary
from aiostream_ds._grpc.write_buffer import FLUSH_BYTES
from aiostream_ds._http2.connection import Http2Stream
from aiostream_ds._http2.stream_states import StreamState
from aiostream_ds._pb import pluginv2 as pb

from .memory import MemoryHost

ONE = "/one"


def make_host(answer, **settings):
    """A host of a plugin that answers `ONE` with `answer(request, call)`."""
    host = MemoryHost(answer, **settings)
    host.methods[ONE] = unary(answer, pb.PublishStreamRequest, pb.PublishStreamResponse)
    return host


def replies(size):
    async def reply(request, call):
        return b"x" * size

    return reply


def counted(host, monkeypatch):
    """The numbers of the streams for which `write_response` succeeded."""
    numbers = []
    original = Http2Stream.write_response

    def write_response(stream, *parts):
        done = original(stream, *parts)
        if done:
            numbers.append(stream.number)
        return done

    monkeypatch.setattr(Http2Stream, "write_response", write_response)
    return numbers


@pytest.mark.parametrize("size", [0, 1, 16_379])
async def test_a_short_response_is_written_at_once(size, monkeypatch):
    host = make_host(replies(size))
    at_once = counted(host, monkeypatch)
    number = host.request(ONE)
    host.deliver()
    connection = host.protocol.connection
    window = connection.window
    await host.settle()
    assert at_once == [number]
    assert host.ended == {number: "0"}
    assert host.received(number) == 5 + size
    assert window - connection.window == 5 + size
    assert connection.state_of(number) is StreamState.ENDED and not host.resets
    await host.leave()


@pytest.mark.parametrize(
    ("size", "settings"),
    [(16_380, {}), (70_000, {}), (100, {"initial_window_size": 50})],
    ids=["longer than a frame", "longer than the connection's window", "a narrow window"],
)
async def test_a_longer_response_waits_for_its_windows(size, settings, monkeypatch):
    host = make_host(replies(size), **settings)
    at_once = counted(host, monkeypatch)
    number = host.request(ONE)
    await host.settle()
    host.h2.increment_flow_control_window(size)
    if number not in host.ended:
        host.h2.increment_flow_control_window(size, number)
    await host.settle()
    assert at_once == []
    assert host.received(number) == 5 + size
    assert host.ended == {number: "0"}
    await host.leave()


@pytest.mark.parametrize(
    "sizes",
    [
        (),
        (0,),
        (1, 2),
        (3, FLUSH_BYTES, 4),
        (FLUSH_BYTES, 5, FLUSH_BYTES + 1),
        (FLUSH_BYTES - 1, 6, FLUSH_BYTES, FLUSH_BYTES),
        (3 * FLUSH_BYTES,),
    ],
    ids=str,
)
async def test_a_response_in_pieces_arrives_whole(sizes):
    pieces = [bytes((65 + place,)) * size for place, size in enumerate(sizes)]

    async def reply(request, call):
        return list(map(memoryview, pieces))

    host = make_host(reply, initial_window_size=1 << 20)
    host.h2.increment_flow_control_window(1 << 20)
    number = host.request(ONE)
    while number not in host.ended:
        await host.settle()
    body = b"".join(pieces)
    assert host.bodies[number] == b"\0" + len(body).to_bytes(4, "big") + body
    assert all(data for _, data in host.frames)
    await host.leave()


async def test_a_new_header_table_size_is_confirmed_before_the_response(monkeypatch):
    host = make_host(replies(1))
    at_once = counted(host, monkeypatch)
    host.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    first, second = host.request(ONE), host.request(ONE)
    await host.settle()
    assert host.ended == {first: "0", second: "0"}
    assert at_once == [first, second]
    await host.leave()


async def test_a_stream_that_was_reset_gets_no_response(monkeypatch):
    go_on = asyncio.Event()

    async def late(request, call):
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            return b"late"

    host = make_host(late)
    at_once = counted(host, monkeypatch)
    number = host.request(ONE)
    await host.settle()
    host.h2.reset_stream(number)
    await host.settle()
    assert at_once == [] and host.received(number) == 0
    await host.leave()


async def test_a_host_that_has_not_ended_its_request_gets_the_response_and_a_reset(monkeypatch):
    host = make_host(replies(1))
    at_once = counted(host, monkeypatch)
    number = host.request(ONE, message=None)
    host.h2.send_data(number, b"\0\0\0\0\0", end_stream=False)
    await host.settle()
    assert at_once == []
    assert host.ended == {number: "0"}
    assert number in host.resets
    await host.leave()
