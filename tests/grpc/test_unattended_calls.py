"""A response that goes on without a task: it is resumed, cancelled and answered as any other."""

import asyncio
import contextvars
import gc
import struct

import pytest

from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.packet_delivery import packet_message, send_packets
from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._grpc.http2_stream import StreamClosedError
from aiostream_ds._grpc.methods import MethodTable, unary
from aiostream_ds._http2.stream_states import StreamState
from aiostream_ds._pb import pluginv2 as pb
from tests.grafana.memory import FakeSubscription, MemoryHost
from tests.suspensions import rest_of
from tests.waiting import until

RUN = "/pluginv2.Stream/RunStream"
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


class Begun:
    """A method that begins without a task unless it is not ready; the paths of its calls."""

    def __init__(self):
        self.is_ready, self.error = True, None
        self.begun, self.run_with = [], []

    def begin(self, request, call):
        if not self.is_ready:
            return False
        if self.error is not None:
            raise self.error
        self.begun.append(request.path)
        call.unattended = Response(call)
        return True

    async def run(self, request, call):
        self.run_with.append(request.path)

    def host(self):
        host = MemoryHost(self.run)
        host.methods[RUN] = host.methods["/run"]._replace(begin=self.begin)
        host.server.table = MethodTable({"pluginv2.Stream": lambda: host.methods})
        host.server.table.find(RUN)  # the first call of a service always has a task
        return host


def message(path):
    return bytes(pb.PublishStreamRequest(path=path))


def has_ended(host, number):
    host.read()
    return number in host.ended


async def test_a_call_whose_request_is_there_begins_without_a_task():
    method = Begun()
    host = method.host()
    number = host.request(RUN, message=message("a"))
    await host.settle()
    assert (method.begun, method.run_with) == (["a"], [])
    assert not host.server.tasks
    host.h2.reset_stream(number)
    host.deliver()
    assert not host.protocol.connection.streams


async def test_a_call_that_cannot_begin_without_a_task_has_one_and_its_whole_request():
    method = Begun()
    method.is_ready = False
    host = method.host()
    number = host.request(RUN, message=message("a"))
    await host.settle()
    assert (method.begun, method.run_with, host.ended[number]) == ([], ["a"], "0")


async def test_a_request_that_arrives_in_parts_is_waited_for_by_a_task():
    method = Begun()
    host = method.host()
    number = host.request(RUN, message=None)
    await host.settle()
    assert len(host.server.tasks) == 1
    data = message("a")
    host.h2.send_data(number, struct.pack(">BI", 0, len(data)) + data, end_stream=True)
    await host.settle()
    assert (method.begun, method.run_with, host.ended[number]) == ([], ["a"], "0")


SUBSCRIBE = "/pluginv2.Stream/SubscribeStream"


@pytest.mark.parametrize("window", [65_535, 3], ids=["open", "closed"])
async def test_a_unary_call_is_answered_without_a_task_unless_it_has_to_wait(window):
    answered, tasks = [], []

    def begin(request, call):
        answered.append(call.respond_nowait(b"answer"))
        return answered[-1]

    async def run(request, call):
        tasks.append(request.path)
        return b"answer"

    host = MemoryHost(run, initial_window_size=window)
    method = unary(run, pb.PublishStreamRequest, pb.PublishStreamResponse, begin)
    host.server.table = MethodTable({"pluginv2.Stream": lambda: {SUBSCRIBE: method}})
    host.server.table.find(SUBSCRIBE)
    number = host.request(SUBSCRIBE, [("grpc-timeout", "9S")], message=message("a"))
    await host.settle()
    if window == 3:
        assert (answered, tasks, len(host.server.tasks)) == ([False], ["a"], 1)
        host.h2.increment_flow_control_window(100, number)
        await host.settle()
    else:
        assert (answered, tasks) == ([True], [])
    assert (host.bodies[number], host.ended[number]) == (b"\0\0\0\0\6answer", "0")
    assert not host.server.tasks and not host.protocol.connection.streams
    assert not next(iter(host.server.connections)).calls._calls


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0\0\0\0\3\x12\1\xff", Status.INTERNAL),
        (b"\0\0\0\0\2\0", Status.INTERNAL),
        (b"\1\0\0\0\0", Status.UNIMPLEMENTED),
        (b"\0\xff\0\0\0", Status.RESOURCE_EXHAUSTED),
        (b"", Status.INTERNAL),
    ],
)
async def test_an_invalid_request_does_not_begin(data, status):
    method = Begun()
    host = method.host()
    number = host.request(RUN, message=None)
    host.h2.send_data(number, data, end_stream=True)
    await host.settle()
    assert (method.begun, method.run_with) == ([], [])
    assert host.ended[number] == str(status.value)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GRPCError(Status.UNAVAILABLE, "lost"), Status.UNAVAILABLE),
        (ZeroDivisionError("oops"), Status.INTERNAL),
    ],
)
async def test_a_call_that_fails_to_begin_ends_and_the_next_one_begins(error, status):
    method = Begun()
    method.error = error
    host = method.host()
    first, second = (host.request(RUN, message=message("a")) for _ in range(2))
    host.deliver()
    await host.settle()
    assert host.ended == {each: str(status.value) for each in (first, second)}
    assert not host.server.tasks and not host.protocol.connection.streams
    method.error = None
    host.request(RUN, message=message("b"))
    await host.settle()
    assert (method.begun, method.run_with) == (["b"], [])


async def test_a_call_with_a_deadline_begins_without_a_task_and_ends_at_it():
    method = Begun()
    host = method.host()
    number = host.request(RUN, headers=[("grpc-timeout", "50m")], message=message("a"))
    later = host.request(RUN, headers=[("grpc-timeout", "30S")], message=message("b"))
    await host.settle()
    assert (method.begun, method.run_with) == (["a", "b"], [])
    assert not host.server.tasks
    await until(lambda: has_ended(host, number))
    assert host.ended == {number: str(Status.DEADLINE_EXCEEDED.value)}
    assert [*host.protocol.connection.streams] == [later]
    await host.leave()


@pytest.mark.parametrize("timeout", ["", "5", "9" * 9 + "n", "9" * 400 + "S"])
async def test_a_call_with_an_invalid_deadline_does_not_begin(timeout):
    method = Begun()
    host = method.host()
    invalid = host.request(RUN, headers=[("grpc-timeout", timeout)], message=message("b"))
    await host.settle()
    assert (method.begun, method.run_with) == ([], [])
    assert host.ended[invalid] == str(Status.INVALID_ARGUMENT.value)


async def test_the_timer_of_a_deadline_ends_with_the_call():
    method = Begun()
    host = method.host()
    number = host.request(RUN, headers=[("grpc-timeout", "30S")], message=message("a"))
    await host.settle()
    (call,) = host.protocol.calls._calls.values()
    timer = call.timer
    host.h2.reset_stream(number)
    host.deliver()
    assert timer.cancelled() and call.timer is None


async def test_a_call_that_cannot_begin_without_a_task_has_one_deadline():
    method = Begun()
    method.is_ready = False
    found = []

    async def run(request, call):
        found.append(call)
        await asyncio.Event().wait()

    method.run = run
    host = method.host()
    number = host.request(RUN, headers=[("grpc-timeout", "50m")], message=message("a"))
    await host.settle()
    (call,) = found
    await until(lambda: has_ended(host, number))
    assert host.ended[number] == str(Status.DEADLINE_EXCEEDED.value)
    await until(lambda: not host.server.tasks)
    assert call.timer is None and not host.protocol.connection.streams


async def test_calls_of_a_closed_server_do_not_begin():
    method = Begun()
    host = method.host()
    numbers = [host.request(RUN, message=message("a")) for _ in range(3)]
    host.deliver()
    host.protocol.calls.close()
    await host.settle()
    assert not method.begun
    assert {host.ended[each] for each in numbers} == {str(Status.UNAVAILABLE.value)}


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


async def test_what_has_resumed_it_does_not_leak_into_its_task():
    """As the context of a stream, whose emitting resumes the calls of its viewers."""
    variable = contextvars.ContextVar("variable", default="")
    host, _, response = await responding()
    found = []

    async def attend():
        found.append(variable.get())
        return response

    response.attend = attend
    variable.set("of the stream")
    response.call.resume()
    await host.settle()
    assert found == [""]


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
    host, number, response = await responding(headers=[("grpc-timeout", "200m")])
    response.call.resume()
    await host.settle()
    assert response.attended == 1
    assert not host.server.tasks
    await until(lambda: has_ended(host, number))
    assert host.ended[number] == str(Status.DEADLINE_EXCEEDED.value)
    assert response.cancelled == 1


async def test_a_stream_of_packets_waits_for_the_window_without_a_task():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=50)
    number = host.request()
    subscription.put(PACKETS[0])
    await host.settle()
    large = Packet(SCHEMA, b"1" * 100, 1)
    subscription.put(large)
    assert not subscription.queue  # it has begun: 50 bytes do not hold it
    subscription.put(PACKETS[1], PACKETS[2])
    await host.settle()
    assert len(subscription.queue) == 2 and not host.server.tasks
    for _ in range(4):
        host.h2.increment_flow_control_window(40, number)
        await host.settle()
        assert not host.server.tasks
    expected = b"".join(packet_message(None, each) for each in (PACKETS[0], large, *PACKETS[1:]))
    assert host.bodies[number] == expected and not subscription.queue
    await host.leave()
    assert subscription.left == 1 and not host.protocol.connection.blocked


async def test_a_call_that_a_program_ends_in_its_begin_ends_alone():
    method = Begun()
    method.error = SystemExit(3)
    host = method.host()
    first, second = (host.request(RUN, message=message("a")) for _ in range(2))
    await host.settle()
    assert host.ended == {each: str(Status.INTERNAL.value) for each in (first, second)}
    assert not host.protocol.connection.streams


class EagerTask(asyncio.Task):
    """A task whose first step runs in `create_task`, as an eager task's of Python 3.12."""

    def __init__(self, work, **options):
        self.is_done_at_once = False
        try:
            signal = work.send(None)
        except StopIteration:
            self.is_done_at_once = True
            super().__init__(asyncio.sleep(0), **options)
            return
        super().__init__(rest_of(work, signal), **options)

    def done(self):
        return self.is_done_at_once or super().done()


async def test_a_call_that_goes_on_without_a_task_is_not_ended_by_an_eager_one():
    subscription = FakeSubscription()
    method = Begun()
    method.is_ready = False
    method.run = lambda _, call: send_packets(call, subscription)
    host = method.host()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **options: EagerTask(work, loop=loop, **options))
    try:
        number = host.request(RUN, message=message("a"))
        await host.settle()
        subscription.put(PACKETS[0])
        await host.settle()
        assert host.bodies.get(number) == packet_message(None, PACKETS[0])
        assert subscription.left == 0 and number not in host.resets
        subscription.stall()
        await host.settle()
        assert (host.ended[number], subscription.left) == (str(Status.UNAVAILABLE.value), 1)
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("is_attended", [True, False])
@pytest.mark.slow
async def test_a_write_that_fails_without_a_task_leaves_no_reference_cycle(is_attended):
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription))
    number = host.request()
    await host.settle()
    gc.collect()
    gc.disable()
    try:
        host.protocol.connection.streams[number].state = StreamState.RESET_BY_HOST
        subscription.put(PACKETS[0])
        if is_attended:
            await host.settle()
        await host.leave()
        await asyncio.sleep(0)
        assert subscription.left == 1
        left = [each for each in gc.get_objects() if isinstance(each, StreamClosedError)]
        assert left == []
    finally:
        gc.enable()


async def test_a_call_ends_whose_subscriber_is_stalled_before_the_task_begins_to_write():
    subscription = FakeSubscription()
    host = MemoryHost(lambda _, call: send_packets(call, subscription), initial_window_size=0)
    number = host.request()
    await host.settle()
    subscription.put(PACKETS[0])
    subscription.stall()
    await host.settle()
    assert host.ended.get(number) == str(Status.UNAVAILABLE.value)
    assert subscription.left == 1
