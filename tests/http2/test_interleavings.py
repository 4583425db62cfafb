"""Random schedules of requests, resets, windows and data: no byte is lost, no stream is left.

`HTTP2_INTERLEAVINGS=10000` plays more of them.
"""

import asyncio
import os
import random

import pytest
from h2.events import SettingsAcknowledged
from h2.settings import SettingCodes

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import packet_message, send_packets
from aiostream_ds._grpc.call import Status
from aiostream_ds._grpc.methods import bidi_stream, server_stream
from aiostream_ds._http2.connection import RECEIVE_WINDOW
from aiostream_ds._pb import pluginv2 as pb
from tests.grafana.memory import FakeSubscription, MemoryHost

SCHEDULES = int(os.environ.get("HTTP2_INTERLEAVINGS", "200"))
STEPS = 60
LARGE = 2**31 - 1
SCHEMA = Schema(b"{}", "1")


class Received:
    """The request type of messages that stay bytes."""

    @staticmethod
    def parse(data):
        return data


class Schedule:
    """A host with random behaviour, and calls that send what the host can check.

    A call echoes each message, then sends `1 + message[0] * 100` bytes more; others send packets as
    a stream of rows does. `sent` has what each stream's call should send, if the host lets it.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        window = self.random.choice([0, 10, 1000, 65_535])
        self.host = MemoryHost(self.echo, initial_window_size=window)
        self.host.methods["/run"] = bidi_stream(self.run, Received, pb.StreamPacket)
        self.peer = self.host.h2
        self.settings_sent = 2  # by the host's start
        self.open = []  # the host may send
        self.live = []  # neither ended nor reset by the host
        self.sent = {}
        self.subscriptions = {}  # those of the calls that send packets
        packets = server_stream(self.send_packets, pb.PublishStreamRequest, pb.StreamPacket)
        self.host.methods["/packets"] = packets

    async def send_packets(self, request, call):
        subscription = self.subscriptions[call.stream.number] = FakeSubscription()
        return await send_packets(call, subscription)

    def follow(self):
        number = self.host.request("/packets")
        self.live.append(number)
        self.sent[number] = b""

    def put(self):
        for number, subscription in self.subscriptions.items():
            if number in self.live and self.random.random() < 0.5:
                size = self.random.choice([1, 300, 9_000, 150_000])
                packet = Packet(SCHEMA, b"x" * size, 1)
                self.sent[number] += packet_message(None, packet)
                sink = None if subscription.queue else subscription.sink
                if sink is None or not sink.write(None, packet):
                    subscription.put(packet)

    async def echo(self, request, call):
        raise AssertionError

    async def run(self, _, call):
        while (message := await call.receive()) is not None:
            await call.send(message)
            await call.write(self.more(message))
            if message[:1] == b"!":
                return  # before the host has ended the request

    @staticmethod
    def more(message):
        body = b"x" * (1 + message[0] * 100)
        return b"\0" + len(body).to_bytes(4, "big") + body

    def request(self):
        number = self.host.request(message=None)
        self.open.append(number)
        self.live.append(number)
        self.sent[number] = b""

    def data(self):
        if not self.open:
            return
        rng, number = self.random, self.random.choice(self.open)
        if not self.is_open(number):
            return self.open.remove(number)  # the server has answered and reset it
        body = rng.choice([b"!", b"."] + [b""] * 6) + rng.randbytes(rng.choice([1, 5, 300, 9_000]))
        data = b"\0" + len(body).to_bytes(4, "big") + body
        if self.peer.local_flow_control_window(number) < len(data) + 256:
            return
        end = rng.random() < 0.4
        if rng.random() < 0.5:
            cut = rng.randrange(len(data) + 1)
            self.peer.send_data(number, data[:cut], pad_length=rng.choice([None, 0, 200]))
            data = data[cut:]
            while len(data) > 9_000:
                self.peer.send_data(number, data[:9_000])
                data = data[9_000:]
        self.peer.send_data(number, data, end_stream=end)
        self.sent[number] += b"\0" + len(body).to_bytes(4, "big") + body + self.more(body)
        if end or body[:1] == b"!":
            self.open.remove(number)

    def reset(self):
        if self.live:
            number = self.random.choice(self.live)
            self.live.remove(number)
            if number in self.open:
                self.open.remove(number)
            if self.is_open(number):
                self.peer.reset_stream(number)

    def window(self):
        number = self.random.choice([0, *filter(self.is_open, self.live)])
        self.peer.increment_flow_control_window(
            self.random.choice([1, 100, 20_000]), number or None
        )

    def is_open(self, number):
        """Whether the host can still send frames on the stream."""
        return number in self.peer.streams and not self.peer.streams[number].closed

    def settings(self):
        """One at a time: h2's client takes the first acknowledgement for all that wait."""
        acknowledged = [e for e in self.host.events if isinstance(e, SettingsAcknowledged)]
        if len(acknowledged) < self.settings_sent:
            return
        self.settings_sent += 1
        rng = self.random
        values = {
            SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([0, 10, 1000, 65_535, 100_000]),
            SettingCodes.MAX_FRAME_SIZE: rng.choice([16_384, 30_000]),
            SettingCodes.HEADER_TABLE_SIZE: rng.choice([0, 4096]),
        }
        self.peer.update_settings(dict([rng.choice([*values.items()])]))

    def pause(self):
        self.host.protocol.pause_writing()

    def resume(self):
        self.host.protocol.resume_writing()

    def deliver(self):
        """What the host has to send, in two parts."""
        data = self.peer.data_to_send()
        cut = self.random.randrange(len(data) + 1)
        for part in (data[:cut], data[cut:]):
            if part:
                self.host.deliver(part)

    async def play(self):
        steps = [self.request, self.data, self.data, self.reset, self.window, self.window]
        steps += [self.settings, self.pause, self.resume, self.deliver, self.deliver]
        steps += [self.follow, self.put, self.put]
        for _ in range(STEPS):
            self.random.choice(steps)()
            for _ in range(self.random.choice([0, 0, 1, 3])):
                await asyncio.sleep(0)
                self.host.read()
        await self.finish()

    async def finish(self):
        """The host reads everything, and ends its requests."""
        self.resume()
        await self.host.settle()
        self.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: LARGE // 4})
        self.peer.increment_flow_control_window(LARGE // 2)
        await self.host.settle()
        for number in self.open:
            if self.is_open(number):
                self.peer.end_stream(number)
        await self.host.settle()
        for subscription in self.subscriptions.values():
            subscription.stall()
        await self.host.settle()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(0, SCHEDULES, 50))
async def test_no_byte_is_lost_and_no_stream_is_left(first):
    for seed in range(first, first + 50):
        schedule = Schedule(seed)
        await schedule.play()
        host, connection = schedule.host, schedule.host.protocol.connection
        for number in schedule.live:
            assert host.bodies.get(number, b"") == schedule.sent[number], (seed, number)
            status = Status.UNAVAILABLE if number in schedule.subscriptions else Status.OK
            assert host.ended[number] == str(status.value), (seed, number)
        for number, sent in schedule.sent.items():
            assert sent.startswith(host.bodies.get(number, b"")), (seed, number)
        assert host.goaway is None and not host.transport.closed, seed
        assert not host.server.tasks and not connection.streams and not connection.blocked, seed
        unread = connection._receive_window + connection._acknowledged
        assert unread == RECEIVE_WINDOW, seed
        await host.leave()
