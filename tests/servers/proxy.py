"""A TCP proxy in front of a server: tests cut connections with it, refuse them or hold their bytes.

It runs in a thread with an event loop of its own: a test that is busy does not delay the bytes. The
methods may be called in any thread, and return when the change is in effect.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from .ports import free_port

_CHUNK = 1 << 16
_TIMEOUT = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST


class Proxy:
    """A proxy from a free port of 127.0.0.1 to `target`. As a context manager it runs.

    The port stays the same, also over `refuse` and `restore`. A target that does not listen resets
    the connection of the client.

    Attributes:
        port: the port of the proxy.
        accepted: the number of connections that clients have opened.
        received: the number of bytes that the target has sent.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target, self.host = target, host
        self.accepted = self.received = 0
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections. New ones work."""
        self._call(self._reset)

    def refuse(self) -> None:
        """Reset all connections, and refuse new ones until `restore`."""
        self._call(self._refuse)

    def hold(self) -> None:
        """Accept connections, but hold all bytes in both directions until `restore`, as a network
        that loses every packet, or a server that accepts and never answers."""
        self._call(self._hold)

    def restore(self) -> None:
        """Accept connections again and pass bytes, with the ones that were held."""
        self._call(self._restore)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._restore)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _call(self, method: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(method(), self._loop).result(_TIMEOUT)

    # -- in the proxy's event loop -------------------------------------------------------------

    async def _reset(self) -> None:
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            for each in server.sockets:
                self._loop.remove_reader(each.fileno())
            for _ in range(3):  # asyncio forgets what it has accepted, but not opened, when closed
                await asyncio.sleep(0)
            server.close()
        await self._reset()

    async def _end(self) -> None:
        await self._refuse()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # connections that came now
            await asyncio.wait(others)
        await asyncio.sleep(0)  # until the last transports are closed

    async def _hold(self) -> None:
        self._flows.clear()

    async def _restore(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not async: `_reset` must know a connection before it can pass bytes."""
        if self._server is None:  # it came when the proxy began to refuse
            _reset(writer)
            return
        self.accepted += 1
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        link.add_done_callback(lambda _: _reset(writer))  # also of one that is cancelled at once

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the bytes of one connection until either side ends it; then close both."""
        ends = [writer]
        try:
            await self._flows.wait()
            theirs, other = await asyncio.open_connection(self.host, self.target)
            ends.append(other)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, other))
                tasks.create_task(self._pass(theirs, writer, counted=True))
        except* OSError:
            pass  # the target does not listen, or one side has reset the connection
        finally:
            for end in ends:
                _reset(end)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
            self.received += len(data) * counted
        if writer.can_write_eof():
            writer.write_eof()  # the other direction may go on


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
