"""WINDOW_UPDATE and PING: what is read without h2 has the same effect as what h2 reads."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2 import connection as http2
from aiostream_ds._http2.control_frames import read_control
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


async def outcome(pieces):
    """What a server that has got these bytes keeps in its books, and what it has written."""
    host = MemoryHost(forever)
    for _ in range(3):
        number = host.request()
    await host.turn()
    host.h2.reset_stream(number)
    await host.turn()
    host.transport.written.clear()
    for piece in pieces:
        host.deliver(piece)
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
def test_frames_cut_anywhere_have_the_effect_that_h2_gives_them(frames, cuts):
    data, pieces = b"".join(frames), []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    pieces = [piece for piece in [*pieces, data] if piece]
    quick = asyncio.run(outcome(pieces))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http2, "read_control", lambda h2, connection, data: 0)
        assert asyncio.run(outcome(pieces)) == quick


async def test_usual_frames_are_all_read_without_h2():
    host = MemoryHost(forever)
    number = host.request()
    await host.turn()
    usual = update(0, 5) + frame(PING, 0, b"12345678") + update(number, 7)
    assert read_control(host.protocol.h2, host.protocol.connection, usual) == len(usual)
    assert read_control(host.protocol.h2, host.protocol.connection, usual[:-1]) == len(usual) - 13
    await host.leave()


async def test_nothing_is_read_out_of_the_middle_of_what_h2_has_begun_to_read():
    host = MemoryHost(forever)
    await host.turn()
    whole = frame(UNKNOWN, 0, update(0, 9))
    host.deliver(whole[:9])
    assert read_control(host.protocol.h2, host.protocol.connection, whole[9:]) == 0
    await host.leave()
