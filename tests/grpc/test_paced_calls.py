"""Many RunStreams at once, as after a restart of Grafana: a few begin in each loop iteration."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from aiostream_ds._grpc import http2_stream
from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._grpc.http2_stream import READ_AHEAD_BYTES
from aiostream_ds._grpc.methods import MethodTable, server_stream
from aiostream_ds._grpc.server import CALLS_AT_ONCE, CALLS_WHILE_MORE_ARRIVE, Server
from aiostream_ds._http2.connection import RECEIVE_WINDOW
from aiostream_ds._pb import pluginv2 as pb
from tests.grafana.memory import MemoryHost
from tests.grpc.test_server import ECHO, Host, Reply, Request
from tests.waiting import until

RUN = "/pluginv2.Stream/RunStream"
COUNT = 10 * CALLS_AT_ONCE


class Runs:
    """A RunStream that counts its calls and lasts until it is cancelled."""

    def __init__(self):
        self.begun = 0

    async def run(self, request, call):
        self.begun += 1
        await asyncio.Event().wait()


@asynccontextmanager
async def serving(tmp_path):
    runs = Runs()
    streams = {RUN: server_stream(runs.run, Request, Reply)}
    server = Server({"": lambda: {"/echo": ECHO}, "pluginv2.Stream": lambda: streams})
    await server.start(path=str(tmp_path / "s"))
    host = Host(server, tmp_path / "s")
    await host.call()
    try:
        yield host, runs
    finally:
        host.channel.close()
        server.close()
        await server.wait_closed()


async def read(host, sent):
    async with host.stream(RUN) as stream:
        await stream.send_message(Request(), end=True)
        sent.append(stream)
        await stream.recv_message()


async def sent_at_once(host):
    """COUNT calls whose requests are sent in one step, before the server reads one."""
    sent = []
    tasks = [asyncio.create_task(read(host, sent)) for _ in range(COUNT)]
    while len(sent) < COUNT:
        await asyncio.sleep(0)
    return tasks


def paced_host():
    runs = Runs()
    host = MemoryHost(runs.run)
    host.methods[RUN] = host.methods["/run"]
    host.server.table = MethodTable({"pluginv2.Stream": lambda: host.methods})
    return host, runs


async def end(tasks):
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
async def test_another_call_is_answered_while_they_begin(tmp_path):
    async with serving(tmp_path) as (host, runs):
        tasks = await sent_at_once(host)
        assert (await host.call(data=b"x")).data == b"x"
        assert runs.begun < COUNT
        await until(lambda: runs.begun == COUNT)
        await end(tasks)


@pytest.mark.slow
async def test_a_call_that_is_reset_while_it_waits_never_begins(tmp_path):
    async with serving(tmp_path) as (host, runs):
        tasks = await sent_at_once(host)
        await end(tasks)
        await host.call()
        await until(lambda: not host.server.tasks)
        assert runs.begun < COUNT
        (connection,) = host.server.connections
        assert not connection.calls._waiting


async def test_calls_that_are_reset_at_once_do_not_make_more_calls_begin_in_an_iteration():
    host, runs = paced_host()
    for _ in range(20):
        host.h2.reset_stream(host.request(RUN))
    for _ in range(COUNT):
        host.request(RUN)
    host.deliver()
    begun = 0
    while begun < COUNT:
        await asyncio.sleep(0)
        assert len(host.server.tasks) <= begun + CALLS_AT_ONCE
        begun = len(host.server.tasks)
    await until(lambda: runs.begun == COUNT)
    await host.leave()


async def test_the_requests_of_calls_that_wait_do_not_fill_the_window_of_the_connection():
    host, runs = paced_host()
    await host.settle()
    message = bytes(pb.PublishStreamRequest(data=bytes(16_000)))
    for _ in range(3 * RECEIVE_WINDOW // len(message)):
        host.request(RUN, message=message)
        host.deliver()
        host.protocol.write_buffer.flush()
        host.h2.receive_data(bytes(host.transport.written))
        host.transport.written.clear()
    assert runs.begun == 0
    assert host.h2.outbound_flow_control_window > RECEIVE_WINDOW // 3
    await until(lambda: runs.begun == 3 * RECEIVE_WINDOW // len(message))
    assert host.protocol.connection.read_ahead_left == READ_AHEAD_BYTES
    await host.leave()


async def test_what_is_stored_of_calls_that_wait_is_bounded(monkeypatch):
    monkeypatch.setattr(http2_stream, "READ_AHEAD_BYTES", 100_000)
    host, _ = paced_host()
    await host.settle()
    numbers = [host.request(RUN, message=bytes(16_000)) for _ in range(20)]
    host.deliver()
    connection = host.protocol.connection
    assert connection.read_ahead_left == 0
    for number in numbers[:10]:
        host.h2.reset_stream(number)
    host.deliver()
    assert 0 < connection.read_ahead_left <= 100_000
    await host.leave()


@pytest.mark.parametrize(
    ("arrived", "begun"), [(CALLS_AT_ONCE, CALLS_AT_ONCE), (COUNT, CALLS_WHILE_MORE_ARRIVE)]
)
async def test_fewer_calls_begin_while_many_arrive(arrived, begun):
    host, _ = paced_host()
    for _ in range(arrived):
        host.request(RUN)
    host.deliver()
    await asyncio.sleep(0)
    assert len(host.server.tasks) == begun
    await asyncio.sleep(0)
    assert len(host.server.tasks) == min(arrived, begun + CALLS_AT_ONCE)
    await host.leave()


@pytest.mark.slow
async def test_calls_that_wait_when_the_server_closes_get_their_status(tmp_path):
    async with serving(tmp_path) as (host, runs):
        tasks = await sent_at_once(host)
        while runs.begun < CALLS_AT_ONCE:
            await asyncio.sleep(0)
        assert runs.begun < COUNT - CALLS_AT_ONCE  # some run, some have begun, some wait
        host.server.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in ended} == {GRPCError}
        assert {each.status for each in ended} == {Status.UNAVAILABLE}
