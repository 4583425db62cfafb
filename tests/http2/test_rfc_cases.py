"""What each rule of RFC 9113 requires of a server, one case for each way to break it.

h2spec has many of them, too (tests/conformance/test_http2.py), but needs Go.
"""

import pytest

from aiostream_ds._http2 import connection as http2
from aiostream_ds._http2.connection import RECEIVE_WINDOW
from aiostream_ds._http2.stream_states import REACTIONS, Reaction, StreamState
from aiostream_ds._http2.wire import ErrorCode
from tests.http2.engine import Engine
from tests.http2.frames import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    START,
    UNKNOWN,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    block,
    frame,
    padded,
    request,
    reset,
    settings,
    window_update,
)

E = ErrorCode
OPEN = request(1)
LARGE = 2**31 - 1

CONNECTION_ERRORS = {
    "4.2 a frame above 16,384 bytes": (OPEN + frame(DATA, 1, size=16_385), E.FRAME_SIZE_ERROR),
    "4.3 another frame inside a header block": (
        frame(HEADERS, 1, block()) + frame(PING, payload=bytes(8)),
        E.PROTOCOL_ERROR,
    ),
    "4.3 an unknown frame inside a header block": (
        frame(HEADERS, 1, block()) + frame(UNKNOWN, 1),
        E.PROTOCOL_ERROR,
    ),
    "4.3 WINDOW_UPDATE inside a header block": (
        frame(HEADERS, 1, block()) + window_update(0, 1),
        E.PROTOCOL_ERROR,
    ),
    "4.3 CONTINUATION of another stream": (
        frame(HEADERS, 1, block()) + frame(CONTINUATION, 3, b"", END_HEADERS),
        E.PROTOCOL_ERROR,
    ),
    "4.3 a block that cannot be decoded": (
        frame(HEADERS, 1, b"\xff\xff\xff\xff\xff", END_HEADERS),
        E.COMPRESSION_ERROR,
    ),
    "4.3 trailers that cannot be decoded": (
        OPEN + frame(HEADERS, 1, b"\x80", END_HEADERS | END_STREAM),
        E.COMPRESSION_ERROR,
    ),
    "5.1 DATA on an idle stream": (frame(DATA, 1, b"x"), E.PROTOCOL_ERROR),
    "5.1 RST_STREAM on an idle stream": (reset(1), E.PROTOCOL_ERROR),
    "5.1 WINDOW_UPDATE on an idle stream": (window_update(1, 1), E.PROTOCOL_ERROR),
    "5.1.1 an even stream": (request(2), E.PROTOCOL_ERROR),
    "5.1.1 a number that was skipped": (request(5) + request(3), E.PROTOCOL_ERROR),
    "5.3.1 HEADERS that depend on their own stream": (
        frame(HEADERS, 1, b"\0\0\0\1\0" + block(), END_HEADERS | WITH_PRIORITY),
        E.PROTOCOL_ERROR,
    ),
    "5.3.1 PRIORITY that depends on its own stream": (
        frame(PRIORITY, 1, b"\0\0\0\1\0"),
        E.PROTOCOL_ERROR,
    ),
    "6.1 DATA on stream 0": (frame(DATA, 0, b"x"), E.PROTOCOL_ERROR),
    "6.1 padding as long as its frame": (
        OPEN + frame(DATA, 1, b"\x04abc", PADDED),
        E.PROTOCOL_ERROR,
    ),
    "6.1 padding without its length": (OPEN + frame(DATA, 1, b"", PADDED), E.FRAME_SIZE_ERROR),
    "6.2 HEADERS on stream 0": (request(0), E.PROTOCOL_ERROR),
    "6.2 padding as long as HEADERS": (
        frame(HEADERS, 1, b"\x01", END_HEADERS | PADDED),
        E.PROTOCOL_ERROR,
    ),
    "6.2 a priority that is cut": (
        frame(HEADERS, 1, b"\0\0\0\0", END_HEADERS | WITH_PRIORITY),
        E.FRAME_SIZE_ERROR,
    ),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, 0, bytes(5)), E.PROTOCOL_ERROR),
    "6.3 PRIORITY of 4 bytes": (frame(PRIORITY, 1, bytes(4)), E.FRAME_SIZE_ERROR),
    "6.4 RST_STREAM on stream 0": (reset(0), E.PROTOCOL_ERROR),
    "6.4 RST_STREAM of 3 bytes": (OPEN + frame(RST_STREAM, 1, bytes(3)), E.FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 1), E.PROTOCOL_ERROR),
    "6.5 SETTINGS of 5 bytes": (frame(SETTINGS, 0, bytes(5)), E.FRAME_SIZE_ERROR),
    "6.5 SETTINGS with ACK and a value": (frame(SETTINGS, 0, bytes(6), ACK), E.FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH 2": (settings((2, 2)), E.PROTOCOL_ERROR),
    "6.5.2 a window of 2^31": (settings((4, 2**31)), E.FLOW_CONTROL_ERROR),
    "6.5.2 a bad value before a good one": (settings((4, 2**31), (4, 1)), E.FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE 16,383": (settings((5, 16_383)), E.PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE 2^24": (settings((5, 2**24)), E.PROTOCOL_ERROR),
    "RFC 8441 ENABLE_CONNECT_PROTOCOL 2": (settings((8, 2)), E.PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE": (OPEN + frame(PUSH_PROMISE, 1, bytes(4)), E.PROTOCOL_ERROR),
    "6.7 PING on a stream": (frame(PING, 1, bytes(8)), E.PROTOCOL_ERROR),
    "6.7 PING of 7 bytes": (frame(PING, 0, bytes(7)), E.FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 1, bytes(8)), E.PROTOCOL_ERROR),
    "6.8 GOAWAY of 7 bytes": (frame(GOAWAY, 0, bytes(7)), E.FRAME_SIZE_ERROR),
    "6.9 an increment of 0": (window_update(0, 0), E.PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, 0, bytes(3)), E.FRAME_SIZE_ERROR),
    "6.9.1 a connection's window above 2^31-1": (window_update(0, LARGE), E.FLOW_CONTROL_ERROR),
    "6.9.2 a stream's window above 2^31-1 by SETTINGS": (
        OPEN + window_update(1, LARGE - 65_535) + settings((4, 65_536)),
        E.FLOW_CONTROL_ERROR,
    ),
    "6.9 an increment of 0 on a closed stream": (
        OPEN + reset(1) + window_update(1, 0),
        E.PROTOCOL_ERROR,
    ),
    "5.1 WINDOW_UPDATE on a stream of the server": (
        request(5) + window_update(2, 1),
        E.PROTOCOL_ERROR,
    ),
    "5.1 RST_STREAM on a stream of the server": (request(5) + reset(2), E.PROTOCOL_ERROR),
    "5.1 DATA on a stream of the server": (request(5) + frame(DATA, 4, b"x"), E.PROTOCOL_ERROR),
    "6.10 CONTINUATION without HEADERS": (
        OPEN + frame(CONTINUATION, 1, b"", END_HEADERS),
        E.PROTOCOL_ERROR,
    ),
    "6.10 CONTINUATION on stream 0": (
        frame(HEADERS, 1, block()) + frame(CONTINUATION, 0, b"", END_HEADERS),
        E.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
def test_a_connection_error_sends_goaway_and_nothing_more_is_read(case):
    data, code = CONNECTION_ERRORS[case]
    engine = Engine()
    assert engine.send(data)[-1] == ("ended", code)
    assert engine.take_frames()[-1] == ("GoAway", 0, code)
    assert engine.send(request(101) + frame(PING, payload=bytes(8))) == []
    assert engine.take_frames() == []
    assert not engine.connection.streams and not engine.connection.writable


STREAM_ERRORS = {
    "8.1 trailers without END_STREAM": (OPEN + request(1, [("a", "b")]), E.PROTOCOL_ERROR),
    "8.1 trailers with a pseudo-header": (
        OPEN + request(1, [(":path", "/")], end=True),
        E.PROTOCOL_ERROR,
    ),
    "8.2.1 trailers in capitals": (OPEN + request(1, [("A", "b")], end=True), E.PROTOCOL_ERROR),
    "8.2.2 trailers with a header of HTTP/1": (
        OPEN + request(1, [("connection", "close")], end=True),
        E.PROTOCOL_ERROR,
    ),
    "8.2.1 NUL in a value": (request(1, [*CALL, ("a", "b\0")]), E.PROTOCOL_ERROR),
    "8.2.1 CR in a value": (request(1, [*CALL, ("a", "b\rc")]), E.PROTOCOL_ERROR),
    "8.2.1 LF in a value": (request(1, [*CALL, ("a", "\nb")]), E.PROTOCOL_ERROR),
    "8.2.2 a header of HTTP/1": (request(1, [*CALL, ("upgrade", "x")]), E.PROTOCOL_ERROR),
    "8.3.1 no path": (request(1, [*CALL[:2], *CALL[3:]]), E.PROTOCOL_ERROR),
    "8.1.1 more body than content-length": (
        request(1, [*CALL, ("content-length", "2")]) + frame(DATA, 1, b"abc"),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 less body than content-length": (
        request(1, [*CALL, ("content-length", "4")]) + frame(DATA, 1, b"abc", END_STREAM),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 trailers before the end of the body": (
        request(1, [*CALL, ("content-length", "4")]) + request(1, [("a", "b")], end=True),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 content-length and no body": (
        request(1, [*CALL, ("content-length", "1")], end=True),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 two lengths": (
        request(1, [*CALL, ("content-length", "1"), ("content-length", "2")]),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 a negative length": (
        request(1, [*CALL, ("content-length", "-1")]),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 a length of a thousand digits": (
        request(1, [*CALL, ("content-length", "1" * 1000)]),
        E.PROTOCOL_ERROR,
    ),
    "6.9 an increment of 0": (OPEN + window_update(1, 0), E.PROTOCOL_ERROR),
    "6.9.1 a window above 2^31-1": (OPEN + window_update(1, LARGE), E.FLOW_CONTROL_ERROR),
    "5.1 DATA after END_STREAM": (request(1, end=True) + frame(DATA, 1, b"x"), E.STREAM_CLOSED),
    "5.1 HEADERS after END_STREAM": (
        request(1, end=True) + request(1, end=True),
        E.STREAM_CLOSED,
    ),
    "5.1 DATA after RST_STREAM": (OPEN + reset(1) + frame(DATA, 1, b"x"), E.STREAM_CLOSED),
    "5.1 HEADERS after RST_STREAM": (OPEN + reset(1) + request(1), E.STREAM_CLOSED),
}


@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_a_stream_error_resets_its_stream_and_no_other(case):
    data, code = STREAM_ERRORS[case]
    engine = Engine()
    engine.send(data)
    assert engine.take_frames() == [("RstStream", 1, code)]
    assert not engine.connection.streams and engine.ended is None
    engine.send(request(3, end=True))
    assert engine.received[-2:] == [("request", 3), ("end", 3)]


def test_more_streams_than_announced_are_refused(monkeypatch):
    monkeypatch.setattr(http2, "STREAMS_LIMIT", 2)
    engine = Engine()
    engine.send(request(1) + request(3) + request(5) + reset(1) + request(7))
    assert engine.take_frames() == [("RstStream", 5, E.REFUSED_STREAM)]
    assert engine.received == [("request", 1), ("request", 3), ("reset", 1), ("request", 7)]


ALLOWED = {
    "5.5 unknown frames": frame(UNKNOWN, 0, b"abc") + frame(UNKNOWN, 1) + frame(0xFF, 99),
    "6.5.2 unknown settings": settings((0x99, 1), (0xFFFF, 2**32 - 1)),
    "6.5.2 limits": settings((1, 0), (2, 0), (3, 0), (4, LARGE), (5, 2**24 - 1), (6, 0), (8, 1)),
    "6.5 SETTINGS with ACK": frame(SETTINGS, flags=ACK),
    "6.7 PING with ACK": frame(PING, payload=bytes(8), flags=ACK),
    "5.3 PRIORITY of an idle stream": frame(PRIORITY, 99, bytes(5)),
    "4.1 flags that are not defined": frame(PING, payload=bytes(8), flags=0xF0),
    "4.1 the reserved bit of a stream": frame(PRIORITY, 99 | 1 << 31, bytes(5)),
    "6.9 the reserved bit of an increment": frame(WINDOW_UPDATE, 0, b"\x80\0\0\1"),
    "6.9.1 a window of 2^31-1": window_update(0, LARGE - 65_535),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_has_no_event_and_no_reset(case):
    engine = Engine()
    assert engine.send(ALLOWED[case]) == []
    assert {name for name, *_ in engine.take_frames()} <= {"Settings", "Ping"}
    engine.send(request(1, end=True))
    assert engine.received == [("request", 1), ("end", 1)]


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\n", PREFACE[:-1] + b"x", PREFACE + frame(PING, payload=bytes(8))],
)
def test_a_connection_begins_with_the_preface_and_settings(first):
    engine = Engine(start=b"")
    assert engine.send(first) == [("ended", E.PROTOCOL_ERROR)]


def test_a_wrong_preface_is_refused_at_its_first_byte():
    engine = Engine(start=b"")
    assert engine.send(b"P") == [] and engine.send(b"O") == [("ended", E.PROTOCOL_ERROR)]


def test_headers_may_begin_with_a_frame_of_padding_only():
    engine = Engine()
    engine.send(frame(HEADERS, 1, padded(b"", 7), PADDED | END_STREAM))
    engine.send(frame(CONTINUATION, 1, block(), END_HEADERS))
    assert engine.received == [("request", 1), ("end", 1)]


def test_a_padded_request_with_priority_in_many_frames_arrives_whole():
    whole = block()
    first = frame(
        HEADERS, 1, padded(bytes(5) + whole[:9], 200), PADDED | WITH_PRIORITY | END_STREAM
    )
    rest = [frame(CONTINUATION, 1, whole[n : n + 20]) for n in range(9, len(whole), 20)]
    engine = Engine()
    engine.send(first + b"".join(rest))
    assert engine.received == []
    engine.send(frame(CONTINUATION, 1, b"", END_HEADERS))
    assert engine.received == [("request", 1), ("end", 1)]


def test_a_body_of_the_announced_length_and_trailers_end_a_request():
    engine = Engine()
    engine.send(request(1, [*CALL, ("content-length", "5")]))
    engine.send(frame(DATA, 1, padded(b"abc", 9), PADDED) + frame(DATA, 1, b"de"))
    engine.send(request(1, [("x", "y")], end=True))
    assert engine.received[1:] == [("data", 1, b"abc"), ("data", 1, b"de"), ("end", 1)]


# -- the table of states -------------------------------------------------------------------------

INTO = {
    StreamState.IDLE: b"",
    StreamState.OPEN: OPEN,
    StreamState.HALF_CLOSED: request(1, end=True),
    StreamState.RESET_BY_HOST: OPEN + reset(1),
    StreamState.RESET: request(1, [*CALL, ("upgrade", "x")]),
    StreamState.ENDED: request(1, end=True),
    StreamState.SKIPPED: request(3),
}
FRAMES = {
    HEADERS: request(1, [("a", "b")], end=True),
    DATA: frame(DATA, 1, b"x"),
    RST_STREAM: reset(1),
    WINDOW_UPDATE: window_update(1, 5),
    PRIORITY: frame(PRIORITY, 1, bytes(5)),
}


@pytest.mark.parametrize("state", StreamState)
@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_has_the_effect_in_the_table_of_states(state, kind):
    engine = Engine()
    engine.send(INTO[state])
    if state is StreamState.ENDED:
        engine.streams[1].write_headers(b"", end=True)
    assert engine.connection.state_of(1) is state
    engine.take_frames()
    before = list(engine.received)
    sent = FRAMES[kind]
    if kind == HEADERS and state is StreamState.IDLE:
        sent = request(1, end=True)
    engine.send(sent)
    reaction = Reaction.IGNORE if kind == PRIORITY else REACTIONS[kind][state]
    written, found = engine.take_frames(), engine.received[len(before) :]
    if reaction is Reaction.IGNORE:
        assert (written, found) == ([], [])
    elif reaction is Reaction.RESET_STREAM:
        assert written == [("RstStream", 1, E.STREAM_CLOSED)]
    elif reaction is Reaction.PROCESS:
        assert not written and (found or kind == WINDOW_UPDATE)
    else:
        assert found == [("ended", reaction.value)]


# -- receive windows -----------------------------------------------------------------------------

FULL = frame(DATA, 1, bytes(2**14))
FRAMES_OF_A_WINDOW = RECEIVE_WINDOW // 2**14


def unread(data):
    """A connection that has received this, and of which nothing was read."""
    engine = Engine()
    return engine, engine.connection.receive(data)


def test_data_beyond_the_window_of_a_stream_ends_the_connection():
    engine, events = unread(OPEN + FULL * FRAMES_OF_A_WINDOW)
    assert engine.ended is None and len(events) == 1 + FRAMES_OF_A_WINDOW
    assert engine.send(frame(DATA, 1, b"x")) == [("ended", E.FLOW_CONTROL_ERROR)]


def test_data_beyond_the_window_of_the_connection_ends_it():
    half = FULL * (FRAMES_OF_A_WINDOW // 2)
    other = half.replace(FULL[:9], frame(DATA, 3, bytes(2**14))[:9])
    engine, _ = unread(OPEN + half + request(3) + other)
    assert engine.send(request(5) + frame(DATA, 5, b"x")) == [("ended", E.FLOW_CONTROL_ERROR)]


def test_padding_uses_the_window_and_empty_data_does_not():
    engine, _ = unread(OPEN + FULL * (FRAMES_OF_A_WINDOW - 1))
    engine.connection.receive(frame(DATA, 1, padded(b"", 255), PADDED) * 64)
    assert engine.send(frame(DATA, 1)) == []
    assert engine.send(frame(DATA, 1, b"x")) == [("ended", E.FLOW_CONTROL_ERROR)]


def test_what_was_read_opens_both_windows_half_a_window_at_a_time():
    engine, events = unread(OPEN + FULL * FRAMES_OF_A_WINDOW)
    stream = events[0].stream
    for event in events[1:]:
        engine.connection.acknowledge(stream, event.size)
    assert [(name, number) for name, number, _ in engine.take_frames()] == [
        ("WindowUpdate", 0),
        ("WindowUpdate", 1),
    ] * 2
    engine.connection.receive(FULL * FRAMES_OF_A_WINDOW)
    assert engine.ended is None


def test_data_of_closed_streams_gives_the_connections_window_back():
    engine = Engine()
    engine.send(INTO[StreamState.RESET])
    for _ in range(3):
        engine.send(FULL * FRAMES_OF_A_WINDOW)
    assert engine.ended is None


# -- sending -------------------------------------------------------------------------------------


def test_a_response_before_the_end_of_the_request_ends_with_a_reset_without_error():
    engine = Engine()
    engine.send(OPEN)
    engine.streams[1].write_headers(b"\x88", end=True)
    assert [name for name, *_ in engine.take_frames()] == ["Headers", "RstStream"]
    assert engine.connection.state_of(1) is StreamState.RESET


@pytest.mark.parametrize("sizes", [(0,), (100,), (4_095,), (0, 4_096), (50, 20, 70)])
def test_a_smaller_dynamic_table_is_confirmed_once_before_the_next_headers(sizes):
    engine = Engine()
    for size in sizes:
        engine.send(settings((1, size)))
    engine.send(OPEN + request(3))
    engine.output.clear()
    for number, expected in ((1, b"\x20\x88"), (3, b"\x88")):
        engine.streams[number].write_headers(b"\x88", end=False)
        assert bytes(engine.output[9:]) == expected
        engine.output.clear()


def test_long_response_headers_are_divided_at_the_frame_size():
    engine = Engine()
    engine.send(OPEN)
    engine.streams[1].write_headers(b"\x88" * 40_000, end=False)
    assert [name for name, *_ in engine.take_frames()] == ["Headers", *["Continuation"] * 2]


@pytest.mark.parametrize("cut", range(1, 40))
def test_events_and_answers_do_not_depend_on_how_bytes_are_divided(cut):
    data = START + b"".join(
        [*ALLOWED.values(), OPEN, frame(DATA, 1, b"abc"), request(3, end=True), reset(3)]
    )
    whole, parts = Engine(start=b""), Engine(start=b"")
    whole.send(data)
    for start in range(0, len(data), cut):
        parts.send(data[start : start + cut])
    assert (parts.received, parts.output) == (whole.received, whole.output)
