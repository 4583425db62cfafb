"""A server that accepts and never answers, used by a task that was cancelled and cleans up.

`asyncio.timeout` raises CancelledError there instead of TimeoutError before Python 3.11.3, and the
rest of what cleans up does not run.
"""

import asyncio
from types import SimpleNamespace

import pytest

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.nats import nats_client
from aiostream_ds._cluster.redis import pipelined_connection
from aiostream_ds._nats.nats_servers import NatsLogin, NatsServer
from aiostream_ds._redis.redis_connection import Address, RedisLogin
from aiostream_ds.errors import UpstreamError
from aiostream_ds.sources.mqtt import broker_connection

LIMIT = 0.02


async def connect_to_nats(port):
    options = SimpleNamespace(login=NatsLogin(), tls=None, name="test", inbox="test.inbox")
    server = NatsServer("127.0.0.1", port, tls=False, tls_name="")
    await nats_client.NatsClient([server], options, LIMIT, restored=None).open()


async def connect_to_redis(port):
    login = RedisLogin("", "", 0, None)
    await pipelined_connection.connect(Address("127.0.0.1", port), login, print, print)


async def connect_to_mqtt(port):
    options = broker_connection.ConnectOptions("127.0.0.1", port, None, "", "", "test", 60)
    await broker_connection.BrokerConnection.open(options)


@pytest.mark.parametrize(
    "connect, error",
    [
        (connect_to_nats, EngineError),
        (connect_to_redis, UpstreamError),
        (connect_to_mqtt, UpstreamError),
    ],
)
async def test_what_cleans_up_learns_that_a_server_is_silent(connect, error, monkeypatch):
    monkeypatch.setattr(nats_client, "CONNECT_TIMEOUT", LIMIT)
    monkeypatch.setattr(pipelined_connection, "ANSWER_SECONDS", LIMIT)
    monkeypatch.setattr(broker_connection, "TIMEOUT", LIMIT)
    seen = []

    async def accept(reader, writer):
        await reader.read()
        writer.close()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await connect(server.sockets[0].getsockname()[1])
            except BaseException as caught:
                seen.append(type(caught))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert seen == [error] and task.cancelled()
