"""Connects grpclib's client to the plugin's server in memory, without a socket."""

import asyncio
from typing import Any

from grpclib.client import Channel
from grpclib.config import Configuration

from aiostream_ds._grpc.call import Codec
from aiostream_ds._grpc.server import Server

__all__ = ["connect"]

_WINDOWS = Configuration(
    http2_connection_window_size=1 << 24, http2_stream_window_size=(1 << 16) - 1
)
"""A stream's window is that of gRPC for Go, so a slow client has the same effect as Grafana."""


class _Pipe(asyncio.Transport):
    """One direction of the connection: bytes arrive in the next iteration of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._closed = False
        self.reader: Any = None
        self.back: _Pipe | None = None

    def write(self, data: Any) -> None:
        if data and not self._closed:
            self._loop.call_soon(self._deliver, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _deliver(self, data: bytes) -> None:
        if not self._closed:
            self.reader.data_received(data)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        back = self.back
        if self._closed or back is None:
            return
        self._closed = back._closed = True
        self._loop.call_soon(self.reader.connection_lost, None)
        self._loop.call_soon(back.reader.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class _MemoryChannel(Channel):
    """grpclib's client over two pipes; grpclib connects through this one method."""

    def __init__(self, server: Server) -> None:
        super().__init__(codec=Codec(), config=_WINDOWS)
        self._memory_server = server

    async def _create_connection(self) -> Any:
        loop = asyncio.get_running_loop()
        client, server = self._protocol_factory(), self._memory_server.new_connection()
        to_server, to_client = _Pipe(loop), _Pipe(loop)
        to_server.reader, to_client.reader = server, client
        to_server.back, to_client.back = to_client, to_server
        server.connection_made(to_client)
        client.connection_made(to_server)
        return client


def connect(server: Server) -> Channel:
    """A client channel to `server`. The caller closes it."""
    return _MemoryChannel(server)
