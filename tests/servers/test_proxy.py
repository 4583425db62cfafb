"""The proxy of the tests cuts, refuses and holds connections, and keeps its port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .proxy import Proxy


@asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    """A proxy to a server that sends every line back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            yield proxy
        await asyncio.sleep(0)


@asynccontextmanager
async def dialing(
    proxy: Proxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_bytes_pass_and_are_counted():
    async with echoing() as proxy, dialing(proxy) as (reader, writer):
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        assert (proxy.accepted, proxy.open) == (1, 1)
        writer.write_eof()
        assert await reader.read() == b""
        assert proxy.received == 4


async def test_a_cut_resets_connections_and_new_ones_work():
    async with echoing() as proxy:
        async with dialing(proxy) as (reader, writer):
            writer.write(b"one\n")
            await reader.readline()
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await reader.readline()
        async with dialing(proxy) as (reader, writer):
            writer.write(b"two\n")
            assert await reader.readline() == b"two\n"
        assert proxy.accepted == 2


async def test_refused_connections_work_again_on_the_same_port():
    async with echoing() as proxy:
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        proxy.restore()
        assert proxy.port == port
        async with dialing(proxy) as (reader, writer):
            writer.write(b"one\n")
            assert await reader.readline() == b"one\n"


async def test_held_bytes_arrive_after_the_proxy_is_restored():
    async with echoing() as proxy, dialing(proxy) as (reader, writer):
        writer.write(b"one\n")
        await reader.readline()
        proxy.hold()
        writer.write(b"two\n")
        line = asyncio.create_task(reader.readline())
        done, _ = await asyncio.wait([line], timeout=0.05)
        assert not done
        proxy.restore()
        assert await line == b"two\n"


async def test_a_target_that_does_not_listen_ends_the_connection():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    with Proxy(port) as proxy:
        with pytest.raises(ConnectionResetError):  # while it connects, or afterwards
            async with dialing(proxy) as (reader, _):
                await reader.readline()


@pytest.mark.parametrize("end", ["refuse", "__exit__"])
async def test_connections_that_come_when_it_begins_to_refuse_are_reset(end):
    for _ in range(20):
        async with echoing() as proxy:
            address = "127.0.0.1", proxy.port
            connections = [socket.create_connection(address, timeout=10) for _ in range(5)]
            if end == "refuse":
                proxy.refuse()
                assert all(map(is_ended, connections))
        assert all(map(is_ended, connections))


def is_ended(connection: socket.socket) -> bool:
    if connection.fileno() < 0:
        return True
    with connection, contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True
