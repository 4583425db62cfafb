"""Many RunStreams at once, as after a restart of Grafana: a few begin in each loop iteration."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._grpc.methods import MethodTable, server_stream
from aiostream_ds._grpc.server import CALLS_AT_ONCE, Server
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
    runs = Runs()
    host = MemoryHost(runs.run)
    host.methods[RUN] = host.methods["/run"]
    host.server.table = MethodTable({"pluginv2.Stream": lambda: host.methods})
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
