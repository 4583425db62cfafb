"""An `Http2Connection` without I/O, and the frames that it has written."""

from hyperframe.frame import Frame

from aiostream_ds._http2.connection import Http2Connection
from aiostream_ds._http2.http2_events import (
    ConnectionEnded,
    DataReceived,
    RequestReceived,
    StreamReset,
)
from tests.http2.frames import START


class Engine:
    """A connection whose host has sent `START`. `received` has the events as tuples."""

    def __init__(self, start=START):
        self.output = bytearray()
        self.connection = Http2Connection(self.output.extend)
        self.connection.start()
        self.received = []
        self.ended = None  # the code of GOAWAY
        self.streams = {}
        self.send(start)
        self.output.clear()

    def send(self, data):
        """The events of these bytes, as tuples."""
        found = []
        for event in self.connection.receive(data):
            found += self._tuples(event)
        self.received += found
        return found

    def _tuples(self, event):
        if isinstance(event, RequestReceived):
            self.streams[event.stream.number] = event.stream
            yield "request", event.stream.number
            if event.ended:
                yield "end", event.stream.number
        elif isinstance(event, DataReceived):
            if event.data:
                yield "data", event.stream.number, event.data
            self.connection.acknowledge(event.stream, event.size)
            if event.ended:
                yield "end", event.stream.number
        elif isinstance(event, StreamReset):
            yield "reset", event.stream.number
        elif isinstance(event, ConnectionEnded):
            self.ended = event.code
            yield "ended", event.code

    def take_frames(self):
        """(type, stream, error code or payload) of each frame that was written."""
        found = []
        data = memoryview(bytes(self.output))
        self.output.clear()
        while data:
            frame, size = Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + size])
            data = data[9 + size :]
            name = type(frame).__name__.removesuffix("Frame")
            found.append((name, frame.stream_id, getattr(frame, "error_code", None)))
        return found
