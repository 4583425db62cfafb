"""A response that goes on without a task: it is resumed, cancelled and answered as any other."""

import asyncio

import pytest

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import packet_message, send_packets
from aiostream_ds._grpc.call import GRPCError, Status
from tests.grafana.memory import FakeSubscription, MemoryHost
from tests.waiting import until

SCHEMA = Schema(b'{"fields":[]}', "f")
PACKETS = [Packet(SCHEMA, b"%d" % n, 1) for n in range(3)]


class Response:
    """An `Unattended` that counts what happens to it."""

    def __init__(self, call):
        self.call = call
        self.attended = self.cancelled = 0
        self.result = self
        self.error = None

    async def attend(self):
        self.attended += 1
        if self.error is not None:
            raise self.error
        return self.result

    def cancel(self):
        self.cancelled += 1


async def responding(**options):
    """A host, one of its calls, and the response of the call."""
    responses = []

    async def run(request, call):
        responses.append(Response(call))
        return responses[0]

    host = MemoryHost(run)
    number = host.request(**options)
    await host.settle()
    return host, number, responses[0]


async def test_it_has_no_task_and_no_status_until_it_ends():
    host, number, response = await responding()
    assert not host.server.tasks
    assert number not in host.ended and number not in host.resets
    response.result = None
    response.call.resume()
    await host.settle()
    assert (response.attended, host.ended[number]) == (1, "0")
    assert response.cancelled == 0


async def test_it_may_go_on_without_a_task_after_it_was_resumed():
    host, number, response = await responding()
    for count in range(1, 4):
        response.call.resume()
        response.call.resume()  # the same task
        await host.settle()
        assert (response.attended, number in host.ended) == (count, False)
    await host.leave()
    assert response.cancelled == 1


async def test_its_error_becomes_the_status():
    host, number, response = await responding()
    response.error = GRPCError(Status.UNAVAILABLE, "lost")
    response.call.resume()
    await host.settle()
    assert host.ended[number] == str(Status.UNAVAILABLE.value)


@pytest.mark.parametrize("end", ["reset", "lost", "closed"])
async def test_it_is_cancelled_once(end):
    host, number, response = await responding()
    if end == "reset":
        host.h2.reset_stream(number)
        host.deliver()
    elif end == "lost":
        await host.leave()
    else:
        host.protocol.calls.close()
        await host.settle()
        assert host.ended[number] == str(Status.UNAVAILABLE.value)
    host.protocol.calls.close()
    response.call.resume()  # too late
    await asyncio.sleep(0)
    assert (response.cancelled, response.attended) == (1, 0)
    assert not host.server.tasks


async def test_a_reset_before_it_is_attended_again_cancels_the_task():
    host, number, response = await responding()
    response.call.resume()
    host.h2.reset_stream(number)
    host.deliver()
    await until(lambda: not host.server.tasks)
    assert not host.protocol.connection.streams


async def test_a_deadline_ends_it():
    host, number, response = await responding(headers=[("grpc-timeout", "30m")])
    response.call.resume()
    await host.settle()
    assert response.attended == 1
    await until(lambda: not host.server.tasks)
    await host.settle()
    assert host.ended[number] == str(Status.DEADLINE_EXCEEDED.value)
    assert response.cancelled == 1


async def test_a_stream_of_packets_has_a_task_only_while_the_window_is_closed():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=50)
    number = host.request()
    subscription.put(PACKETS[0])
    await host.settle()
    assert not host.server.tasks
    large = Packet(SCHEMA, b"1" * 100, 1)
    subscription.put(large)
    await host.settle()
    assert len(host.server.tasks) == 1
    host.h2.increment_flow_control_window(1000, number)
    await host.settle()
    assert not host.server.tasks
    subscription.put(PACKETS[2])
    await host.settle()
    expected = b"".join(packet_message(None, each) for each in (PACKETS[0], large, PACKETS[2]))
    assert host.bodies[number] == expected
    await host.leave()
    assert subscription.left == 1
