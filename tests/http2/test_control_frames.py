"""WINDOW_UPDATE and PING have the same effect whether they are read with or without h2."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2 import connection as http2
from aiostream_ds._http2.control_frames import read_control_frames
from tests.grafana.memory import MemoryHost

PING, WINDOW_UPDATE, DATA, UNKNOWN = 0x6, 0x8, 0x0, 0x42


def frame(kind, number, body, flags=0):
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + body


def update(number, size):
    return frame(WINDOW_UPDATE, number, size.to_bytes(4, "big"))


STREAMS = st.sampled_from([0, 0, 1, 3, 3 | 1 << 31, 5, 9])  # 5 was reset, 9 was never opened
SIZES = st.one_of(st.integers(0, 70_000), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
EIGHT = st.binary(min_size=8, max_size=8)
FRAMES = st.one_of(
    st.builds(update, STREAMS, SIZES),
    st.builds(frame, st.just(PING), st.sampled_from([0, 0, 0, 1]), EIGHT, st.sampled_from([0, 1])),
    st.builds(frame, st.just(PING), st.just(0), st.binary(max_size=9)),
    st.builds(frame, st.just(WINDOW_UPDATE), STREAMS, st.binary(max_size=5)),
    st.builds(frame, st.just(UNKNOWN), STREAMS, st.binary(max_size=5)),
)


async def forever(request, call):
    await asyncio.Event().wait()


async def outcome(chunks):
    """The state of a server that has received these chunks, and what it has written."""
    host = MemoryHost(forever)
    for _ in range(3):
        number = host.request()
    await host.settle()
    host.h2.reset_stream(number)
    await host.settle()
    host.transport.written.clear()
    for chunk in chunks:
        host.deliver(chunk)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    h2 = host.protocol.h2
    windows = {n: s.outbound_flow_control_window for n, s in h2.streams.items() if not s.closed}
    found = (
        h2.outbound_flow_control_window,
        windows,
        h2.state_machine.state,
        bytes(host.transport.written),
        host.transport.closed,
    )
    await host.leave()
    return found


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 40), max_size=8))
def test_frames_split_anywhere_have_the_same_effect_as_in_h2(frames, cuts):
    data, chunks = b"".join(frames), []
    for cut in cuts:
        chunks.append(data[:cut])
        data = data[cut:]
    chunks = [chunk for chunk in [*chunks, data] if chunk]
    found = asyncio.run(outcome(chunks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http2, "read_control_frames", lambda h2, connection, data: 0)
        assert asyncio.run(outcome(chunks)) == found


async def test_common_frames_are_read_without_h2():
    host = MemoryHost(forever)
    number = host.request()
    await host.settle()
    data = update(0, 5) + frame(PING, 0, b"12345678") + update(number, 7)
    assert read_control_frames(host.protocol.h2, host.protocol.connection, data) == len(data)
    assert (
        read_control_frames(host.protocol.h2, host.protocol.connection, data[:-1]) == len(data) - 13
    )
    await host.leave()


async def test_nothing_is_read_while_h2_holds_a_part_of_a_frame():
    host = MemoryHost(forever)
    await host.settle()
    whole = frame(UNKNOWN, 0, update(0, 9))
    host.deliver(whole[:9])
    assert read_control_frames(host.protocol.h2, host.protocol.connection, whole[9:]) == 0
    await host.leave()
