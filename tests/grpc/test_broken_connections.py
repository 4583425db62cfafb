"""Connections that are lost before a request is complete."""

import asyncio
import socket

import pytest
from grpclib.client import Channel

from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import pluginv2 as pb
from tests.grpc.test_cancel_calls import Each

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HEADERS = b"\0\0\1\1\4\0\0\0\1\x83"  # an incomplete request

BYTES = PREFACE + SETTINGS + HEADERS


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_connection_lost_at_any_byte_leaves_the_server_working(how):
    async with open_application(Catalog(Each)) as application:
        server = Server(application.services())
        listening = socket.create_server(("127.0.0.1", 0))
        address = listening.getsockname()[:2]
        await server.start(sock=listening)
        try:
            for size in range(len(BYTES) + 1):
                _, writer = await asyncio.open_connection(*address)
                writer.write(BYTES[:size])
                if how == "reset":
                    raw = writer.get_extra_info("socket")
                    linger = b"\1\0\0\0\0\0\0\0"
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    await writer.drain()
                writer.transport.abort() if how == "reset" else writer.close()
            for _ in range(500):
                if not server.connections:
                    break
                await asyncio.sleep(0.01)
            assert not server.connections and not server.tasks
            channel = Channel(*address)
            try:
                call = channel.request(
                    "/pluginv2.Diagnostics/CollectMetrics",
                    _unary(),
                    pb.CollectMetricsRequest,
                    pb.CollectMetricsResponse,
                )
                async with call as stream:
                    await stream.send_message(pb.CollectMetricsRequest(), end=True)
                    assert await stream.recv_message() is not None
            finally:
                channel.close()
        finally:
            server.close()
            await server.wait_closed()


def _unary():
    from grpclib.const import Cardinality

    return Cardinality.UNARY_UNARY
