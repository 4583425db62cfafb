"""A host that exchanges HTTP/2 frames with the server in memory, without a socket."""

import asyncio
import itertools
import struct

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes

from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._grpc.methods import server_stream
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import pluginv2 as pb

IDLE_ITERATIONS = 10  # of the event loop without a write, after which `settle` returns


def split_frames(data):
    """One by one: h2 applies a new MAX_FRAME_SIZE to what it receives after the acknowledgement."""
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        yield data[:size]
        data = data[size:]


class MemoryTransport(asyncio.Transport):
    """Collects what the server writes."""

    def __init__(self):
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return len(self.written)

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close


class MemoryHost:
    """One connection and its server, whose method "/run" is `run(request, call)`."""

    def __init__(self, run, **settings):
        method = server_stream(run, pb.PublishStreamRequest, pb.StreamPacket)
        self.methods = {"/run": method}
        self.server = Server({"": lambda: self.methods})
        self.transport = MemoryTransport()
        self.protocol = self.server.new_connection()
        self.protocol.connection_made(self.transport)
        config = h2.config.H2Configuration(  # malformed requests are sent, too
            validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.next = 1
        self.frames = []  # (stream, bytes) of each DATA frame
        self.bodies = {}  # stream: all of its DATA
        self.ended = {}  # stream: its trailers
        self.resets = {}  # stream: error code
        self.events = []
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({SettingCodes[k.upper()]: v for k, v in settings.items()})

    def request(self, path="/run", headers=(), message=b""):
        """Open a stream. Its frames are sent by the next `deliver` or `settle`."""
        number, self.next = self.next, self.next + 2
        names = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        names |= {"content-type": "application/grpc", "te": "trailers"}
        self.h2.send_headers(number, [*names.items(), *headers])
        if message is not None:
            data = struct.pack(">BI", 0, len(message)) + message
            self.h2.send_data(number, data, end_stream=True)
        return number

    def deliver(self, data=None):
        """Pass these bytes to the server, or everything that this side has to send."""
        self.protocol.data_received(self.h2.data_to_send() if data is None else data)

    async def settle(self):
        """Exchange frames until the server writes nothing more."""
        idle = 0
        while idle < IDLE_ITERATIONS:
            if data := self.h2.data_to_send():
                self.deliver(data)
            await asyncio.sleep(0)
            idle = 0 if self.read() else idle + 1

    def read(self):
        """Process what the server has written. True when there was anything."""
        data, self.transport.written = bytes(self.transport.written), bytearray()
        for event in itertools.chain.from_iterable(map(self.h2.receive_data, split_frames(data))):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.frames.append((event.stream_id, len(event.data)))
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                found = {k.decode(): v.decode() for k, v in event.headers}
                if "grpc-status" in found:
                    self.ended[event.stream_id] = found["grpc-status"]
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = event.error_code
        return bool(data)

    def received(self, number):
        """Bytes of DATA received on a stream."""
        return sum(size for stream, size in self.frames if stream == number)

    @property
    def goaway(self):
        """The error code of the server's GOAWAY, or None."""
        ends = [e for e in self.events if isinstance(e, h2.events.ConnectionTerminated)]
        return ends[-1].error_code if ends else None

    async def leave(self):
        """Lose the connection, and wait for its calls to end."""
        self.protocol.connection_lost(None)
        if self.server.tasks:
            await asyncio.wait(self.server.tasks)


class FakeSubscription:
    """What `send_packets` needs of a subscription. `put` queues packets, `left` counts `leave`."""

    def __init__(self):
        self.queue = []
        self.some = asyncio.Event()
        self.on_ready = self.sink = None
        self.ended = self.stalled = False
        self.left = 0

    def put(self, *packets):
        self.queue += [(None, packet) for packet in packets]
        self.some.set()
        if self.on_ready is not None:
            self.on_ready()

    def receive_nowait(self):
        taken, self.queue = self.queue, []
        self.some.clear()
        return taken

    def stall(self):
        self.ended = self.stalled = True
        self.queue = []
        self.some.set()
        if self.on_ready is not None:
            self.on_ready()

    async def wait(self):
        if not self.stalled:
            await self.some.wait()
        if self.stalled:
            raise GRPCError(Status.UNAVAILABLE, "stalled")
        return True

    def sent(self):
        pass

    def leave(self):
        self.left += 1
