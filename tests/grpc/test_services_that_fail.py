"""A call whose service cannot be loaded is answered."""

import asyncio

import pytest
from grpclib.client import UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from aiostream_ds._grpc.call import Status
from aiostream_ds._grpc.methods import unary
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing.memory import connect

pytestmark = pytest.mark.virtual

Request, Reply = pb.PublishStreamRequest, pb.PublishStreamResponse


async def call(channel, **options):
    method = UnaryUnaryMethod(channel, "/late.Service/Echo", Request, Reply)
    return await method(Request(data=b"a"), **options)


async def echo(request, call):
    return Reply(data=request.data)


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError, OSError, MemoryError, KeyboardInterrupt, SystemExit]
)
@pytest.mark.parametrize("options", [{}, {"timeout": 5}])
async def test_a_call_whose_service_cannot_be_loaded_is_answered_and_the_next_tries_again(
    error, options, caplog
):
    failures = [error("too many open files"), error("too many open files")]

    def load():
        if failures:
            raise failures.pop()
        return {"/late.Service/Echo": unary(echo, Request, Reply)}

    server = Server({"late.Service": load})
    channel = connect(server)
    for _ in range(2):
        with pytest.raises(GRPCError) as caught:
            await asyncio.wait_for(call(channel, **options), 60)
        assert caught.value.status is Status.INTERNAL
        assert caught.value.message == f"{error.__name__}: too many open files"
    assert (await call(channel, **options)).data == b"a"
    assert [record.exc_info[0] for record in caplog.records] == [error, error]
    channel.close()
    if server.tasks:
        await asyncio.wait(server.tasks)
