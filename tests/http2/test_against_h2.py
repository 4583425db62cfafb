"""Random sessions of a host have the same effect as on h2's server, or are refused.

`HTTP2_SESSIONS=10000` plays more of them.
"""

import os

import h2.config
import h2.connection
import h2.events
import pytest
from h2.connection import ConnectionState
from h2.exceptions import ProtocolError

from tests.http2.engine import Engine
from tests.http2.frames import START, WINDOW_UPDATE
from tests.http2.sessions import Session

SESSIONS = int(os.environ.get("HTTP2_SESSIONS", "150"))
SEEDS = [
    pytest.param(seed, marks=pytest.mark.slow if seed >= 40 else ()) for seed in range(SESSIONS)
]
STEPS = 40


class Model:
    """h2's server."""

    def __init__(self):
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            validate_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(4 * 1024 * 1024 - 65_535)
        self.h2.receive_data(START)
        self.refused = False

    def send(self, data):
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            self.refused = True
            return []
        found = []
        for event in events:
            found += self._tuples(event)
        return found

    def _tuples(self, event):
        number = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.RequestReceived):
            yield "request", number
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            if event.data:
                yield "data", number, event.data
        elif isinstance(event, h2.events.StreamEnded):
            yield "end", number
        elif isinstance(event, h2.events.StreamReset):
            yield "reset", number
        elif isinstance(event, h2.events.ConnectionTerminated):
            yield "ended", event.error_code

    def respond(self, number):
        stream = self.h2.streams.get(number)
        if stream is None or stream.closed:
            return
        self.h2.send_headers(number, [(":status", "200")], end_stream=True)
        if not self.h2.streams[number].closed:
            self.h2.reset_stream(number)

    def state(self):
        streams = self.h2.streams
        windows = {n: s.outbound_flow_control_window for n, s in streams.items() if not s.closed}
        return self.h2.outbound_flow_control_window, windows, self.h2.max_outbound_frame_size


def state(engine):
    connection = engine.connection
    windows = {number: stream.window for number, stream in connection.streams.items()}
    return connection.window, windows, connection.frame_size


def respond(engine, number):
    stream = engine.streams.get(number)
    if stream is not None and stream.is_open:
        stream.write_headers(b"\x88", end=True)


def merged(events):
    """Parts of a body that follow each other as one."""
    found = []
    for event in events:
        if found and event[0] == "data" == found[-1][0] and event[1] == found[-1][1]:
            found[-1] = (*event[:2], found[-1][2] + event[2])
        else:
            found.append(event)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_valid_session_has_the_same_events_and_windows(seed):
    session, model, engine = Session(seed), Model(), Engine()
    for _ in range(STEPS):
        kind, what = session.step()
        if kind == "respond":
            model.respond(what)
            respond(engine, what)
        else:
            assert merged(engine.send(what)) == merged(model.send(what))
        assert not model.refused and engine.ended is None
        assert state(engine) == model.state()
        names = [name for name, *_ in engine.take_frames()]
        assert "GoAway" not in names and (kind == "respond" or "RstStream" not in names)


def only_h2_refuses(data):
    """Whether a frame is WINDOW_UPDATE with the reserved bit, which must be ignored (6.9)."""
    while len(data) > 9:
        size = int.from_bytes(data[:3], "big")
        if data[3] == WINDOW_UPDATE and size == 4 and data[9] & 0x80:
            return True
        data = data[9 + size :]
    return False


def refuses(engine, frames):
    return engine.ended is not None or any(name == "RstStream" for name, *_ in frames)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_session_has_the_same_events_or_is_refused(seed):
    session, model, engine = Session(seed), Model(), Engine()
    for _ in range(STEPS):
        kind, what = session.step()
        if kind == "respond":
            model.respond(what)
            respond(engine, what)
            engine.take_frames()
            continue
        if session.random.random() < 0.1:
            what = session.damage(what)
            if only_h2_refuses(what):
                return
        expected, found = model.send(what), engine.send(what)
        refused = refuses(engine, engine.take_frames())
        if model.refused or model.h2.state_machine.state is ConnectionState.CLOSED:
            assert refused
            return
        if refused:  # h2 accepts this frame, or has reset its stream, too
            return
        assert merged(found) == merged(expected)
        assert state(engine) == model.state()
