"""Forward proxies on loopback, in the event loop of a test: SOCKS5, and HTTP with CONNECT.

`asked` has the destinations that clients have asked for. All of them lead to `target`, so that a
test may use names that no DNS knows.
"""

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["ForwardProxy", "HttpProxy", "SocksProxy"]


class ForwardProxy:
    """A proxy whose connections all lead to `target`.

    Args:
        login: user and password that clients must have; "": none.
    """

    def __init__(self, target: int, login: tuple[str, str] | None = None) -> None:
        self.target, self.login = target, login
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["ForwardProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b""
    ) -> None:
        """Pass bytes until either side ends."""
        theirs, other = await asyncio.open_connection("127.0.0.1", self.target)
        other.write(first)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass(reader, other))
                tasks.create_task(_pass(theirs, writer))
        except* OSError:
            pass
        finally:
            other.transport.abort()


class SocksProxy(ForwardProxy):
    """SOCKS5 (RFC 1928), with a user and password (RFC 1929) if there is a login."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 2 if self.login else 0
        if version != 5 or method not in methods:
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        writer.write(bytes((5, method)))
        if self.login and not await self._log_in(reader, writer):
            return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = socket.inet_ntoa(await reader.readexactly(4))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        self.asked.append((host, port))
        if host == "refused.test":
            writer.write(b"\x05\x02\x00\x01\0\0\0\0\0\0")
            await writer.drain()
            return
        writer.write(b"\x05\x00\x00\x01\0\0\0\0\0\0")
        await self.connect(reader, writer)

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1)
        user = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        is_right = (user, password) == self.login
        writer.write(b"\x01\x00" if is_right else b"\x01\x01")
        await writer.drain()
        return is_right


class HttpProxy(ForwardProxy):
    """An HTTP proxy: requests with an absolute URL, and CONNECT."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, url, _ = head.split("\r\n")[0].split(" ")
        if self.login:
            pair = base64.b64encode(":".join(self.login).encode()).decode()
            if f"Proxy-Authorization: Basic {pair}\r\n" not in head:
                writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
        if method == "CONNECT":
            host, _, port = url.rpartition(":")
            self.asked.append((host, int(port)))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await self.connect(reader, writer)
            return
        rest = url.removeprefix("http://")
        host, _, port = rest.partition("/")[0].partition(":")
        self.asked.append((host, int(port or 80)))
        await self.connect(reader, writer, head.replace(url, "/" + rest.partition("/")[2]).encode())


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
