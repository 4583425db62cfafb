"""Servers of the web on loopback: aiohttp with Server-Sent Events and NDJSON, and `websockets`.

Each runs in a thread with an event loop of its own: a test that is busy does not delay it. What
was published before stays over `stop` and `start`, as in a server with a store.
"""

import asyncio
import contextlib
import ssl
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from tempfile import NamedTemporaryFile
from typing import Any, Self

from aiohttp import web
from websockets.asyncio.server import Server as WebSocketsServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .certificates import Certificate
from .ports import free_port

__all__ = ["EventServer", "SocketServer", "WebServer"]

_TIMEOUT = 10.0


class WebServer(ABC):
    """A server on 127.0.0.1, in a thread. As a context manager it runs.

    Attributes:
        port: the port, which stays the same over `stop` and `start`.
        tls: with it, the server accepts TLS only.
        client_ca: with it, a client's certificate that this CA has signed is demanded.
        accepted: the requests so far.
    """

    def __init__(self, tls: Certificate | None = None, client_ca: str | None = None) -> None:
        self.tls, self.client_ca = tls, client_ca
        self.port = free_port()
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        self.call(self._open(self.port, self._context()))

    def stop(self) -> None:
        """End the server as a kill does: connections are reset."""
        self.call(self._close())

    def restart(self) -> None:
        self.stop()
        self.start()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _context(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with NamedTemporaryFile("w") as file:
            file.write(self.tls.certificate + self.tls.key)
            file.flush()
            context.load_cert_chain(file.name)
        if self.client_ca is not None:
            context.load_verify_locations(cadata=self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @abstractmethod
    async def _open(self, port: int, context: ssl.SSLContext | None) -> None:
        """Listen; 0: at a free port. Sets `port`."""

    @abstractmethod
    async def _close(self) -> None:
        """Do not listen any more, and reset all connections."""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EventServer(WebServer):
    """What was published, at three addresses; `handler` may replace them.

    `/sse`      Server-Sent Events with ids: those after `Last-Event-ID`, or new ones
    `/plain`    Server-Sent Events without ids: new ones
    `/lines`    NDJSON: new ones

    Attributes:
        log: the payloads; the id of an event is its number, from 1 on.
        token: if it is set, requests without this bearer token are answered 401.
        requests: the headers of each request.
    """

    def __init__(self, handler: Handler | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.log: list[str] = []
        self.token = ""
        self.requests: list[Any] = []
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.open = 0
        self.gzip = False
        self._handler = handler
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._transports: set[asyncio.BaseTransport] = set()

    def publish(self, payloads: Sequence[str]) -> None:
        """Add payloads; safe in any thread."""
        self._loop.call_soon_threadsafe(self._add, list(payloads))

    def _add(self, payloads: list[str]) -> None:
        self.log += payloads
        self._changed.set()
        self._changed = asyncio.Event()

    async def _open(self, port: int, context: ssl.SSLContext | None) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            for site in tuple(runner.sites):
                await site.stop()
            for transport in tuple(self._transports):
                transport.abort()  # type: ignore[attr-defined]
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.accepted += 1
        self.requests.append(request.headers)
        self.paths.append(request.raw_path)
        self.bodies.append(await request.read())
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="bad token")
        transport = request.transport
        assert transport is not None
        self._transports.add(transport)
        self.open += 1
        try:
            if self._handler is not None:
                return await self._handler(request)
            return await self._stream(request)
        except ConnectionError:
            return web.Response()
        finally:
            self.open -= 1
            self._transports.discard(transport)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.strip("/").partition("/")[0]
        last = request.headers.get("Last-Event-ID", "") if kind == "sse" else ""
        sent = int(last) if last else len(self.log)  # before the first wait: `open` counts it
        response = web.StreamResponse()
        is_lines = kind == "lines"
        response.content_type = "application/x-ndjson" if is_lines else "text/event-stream"
        pack = zlib.compressobj(wbits=31) if self.gzip else None
        if pack:
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)

        async def write(data: bytes) -> None:
            if pack:
                data = pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH)
            await response.write(data)

        await write(b"\n" if is_lines else b": hello\n\n")  # the head leaves with it
        while True:
            changed, end = self._changed, len(self.log)
            if sent == end:
                await changed.wait()
                continue
            parts = []
            for number in range(sent, end):
                id = f"id: {number + 1}\n" if kind == "sse" else ""
                text = self.log[number]
                parts.append(f"{text}\n" if is_lines else f"{id}data: {text}\n\n")
            sent = end
            await write("".join(parts).encode())


class SocketServer(WebServer):
    """A server of `websockets` that sends what is published to all clients.

    Attributes:
        received: what clients have sent.
        handler: if it is set, what is done with a connection instead.
        token: if it is set, clients without this bearer token are answered 401.
    """

    def __init__(
        self,
        handler: Callable[[ServerConnection], Awaitable[None]] | None = None,
        subprotocols: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.received: list[str | bytes] = []
        self.requests: list[Request] = []
        self.token = ""
        self.handler = handler
        self._subprotocols = list(subprotocols)
        self._server: WebSocketsServer | None = None
        self.clients: set[ServerConnection] = set()

    def publish(self, payloads: Sequence[str | bytes]) -> None:
        """Send payloads to all clients; safe in any thread."""
        asyncio.run_coroutine_threadsafe(self.send(payloads), self._loop)

    async def send(self, payloads: Sequence[str | bytes]) -> None:
        for client in tuple(self.clients):
            with contextlib.suppress(ConnectionClosed):
                for payload in payloads:
                    await client.send(payload)

    async def _open(self, port: int, context: ssl.SSLContext | None) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            port,
            ssl=context,
            process_request=self._check,
            subprotocols=self._subprotocols or None,  # type: ignore[arg-type]
            ping_interval=None,
            max_size=None,
            close_timeout=0.1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close(close_connections=False)
            for client in tuple(server.connections):
                client.transport.abort()
            await server.wait_closed()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.accepted += 1
        self.requests.append(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(401, "bad token")
        return None

    async def _serve(self, client: ServerConnection) -> None:
        self.clients.add(client)
        try:
            if self.handler is not None:
                await self.handler(client)
                return
            async for message in client:
                self.received.append(message)
        except ConnectionClosed:
            pass
        finally:
            self.clients.discard(client)
