"""A Grafana server with a real plugin process: the HTTP and Live API that a browser uses.

    browser ──HTTP──▶ ds/query, resources, health ──▶ the Go host ──gRPC──▶ plugin
            ◀──ws──── /api/live/ws (Centrifuge's JSON protocol) ◀── RunStream

It behaves like Grafana's stream manager: the plugin is called before the browser joins, so that a
packet between the two is lost; nothing is recovered after a reconnect; subscribers get no event
when the plugin process or the settings change. `Wire` simulates the network's faults.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.conformance.driver import Host
from tests.exact.client import CallFailed
from tests.exact.hosts import Node
from tests.exact.packets import Message

PLUGIN = "conformance-test-datasource"
CHECK_INTERVAL = 5.0  # seconds between two checks whether a stream has subscribers
EMPTY_CHECKS = 3  # checks in a row without any, after which the stream ends
PING = 25  # seconds between two pings of the server


class Wire:
    """The network's faults. `frozen`: connections stay open and carry nothing."""

    def __init__(self) -> None:
        self.http = self.socket = True
        self.frozen = False
        self.join_loss = 0.0  # seconds after a subscription in which packets are lost
        self.calls: list[str] = []
        self._sockets: set[web.WebSocketResponse] = set()
        self._thawed = asyncio.Event()

    async def cut(self, http: bool = True) -> None:
        """Close the sockets and refuse new ones; with `http` also all calls."""
        self.socket, self.http = False, not http
        for socket in tuple(self._sockets):
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    def restore(self) -> None:
        self.socket = self.http = True
        self.frozen = False
        self._thawed.set()
        self._thawed = asyncio.Event()

    def freeze(self) -> None:
        self.frozen = True

    async def flow(self) -> None:
        while self.frozen:
            await self._thawed.wait()


class Server(Node):
    """One Grafana server: `hosts.Node` with the API for browsers."""

    def __init__(self, host: Host, command: Sequence[str | Path], settings: Message) -> None:
        super().__init__(host, command, settings)
        self.wire = Wire()
        self.url = ""
        self.joined = asyncio.Event()  # set when a browser has joined
        self._watchers: set[asyncio.Task[None]] = set()

    # -- HTTP ----------------------------------------------------------------------------------

    async def answer_query(self, request: web.Request) -> web.Response:
        body = await request.json()
        expressions = [query for query in body["queries"] if query.get("type") == "math"]
        queries = [
            {
                "refId": query["refId"],
                "json": query,
                "queryType": query.get("queryType", ""),
                "maxDataPoints": query.get("maxDataPoints", 1000),
                "intervalMS": query.get("intervalMs", 1000),
                "from": int(body["from"]),
                "to": int(body["to"]),
            }
            for query in body["queries"]
            if query not in expressions
        ]
        # Grafana evaluates expressions itself; its other queries get this header
        headers = {"http_X-Grafana-From-Expr": "true"} if expressions else {}
        try:
            answer = await self._call("query", queries=queries, headers=headers, browser=True)
        except CallFailed as error:
            return web.json_response({"message": str(error)}, status=500)
        failed = [each["status"] for each in answer["responses"].values() if each["status"] != 200]
        results = {
            ref_id: {"status": each["status"], "frames": each["frames"]}
            | ({"error": each["error"]} if each["error"] else {})
            for ref_id, each in answer["responses"].items()
        }
        for expression in expressions:
            ref_id = expression["expression"].removeprefix("$")
            results[expression["refId"]] = {"status": 200, "frames": results[ref_id]["frames"]}
        return web.json_response({"results": results}, status=400 if failed else 200)

    async def answer_resource(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        url = f"{path}?{request.query_string}" if request.query_string else path
        body = await request.text()
        try:
            answer = await self._call(
                "resource", path=path, url=url, method=request.method, body=body
            )
        except CallFailed as error:
            return web.json_response({"message": str(error)}, status=500)
        messages = answer["messages"]
        text = "".join(message["body"] for message in messages)
        return web.Response(text=text, status=messages[0]["code"], content_type="application/json")

    async def answer_health(self, request: web.Request) -> web.Response:
        try:
            answer = await self._call("health")
        except CallFailed as error:
            return web.json_response({"status": "ERROR", "message": str(error)}, status=500)
        status = 200 if answer["status"] == "OK" else 400
        return web.json_response(answer, status=status)

    # -- Live ----------------------------------------------------------------------------------

    async def answer_live(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.wire._sockets.add(socket)
        client = _Client(self, socket)
        pings = asyncio.create_task(client.ping())
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    await self.wire.flow()
                    for line in message.data.splitlines():
                        await client.receive(json.loads(line))
        finally:
            pings.cancel()
            self.wire._sockets.discard(socket)
            client.close()
        return socket

    async def subscribe(self, path: str, receive: Callable[[Message], None]) -> Message:
        reply = await self._call("subscribe", path=path)
        if reply["status"] != "OK":
            raise CallFailed(f"{path}: {reply['status']}")
        data: Message = reply["data"]
        return data

    def join(self, path: str, receive: Callable[[Message], None]) -> None:
        """The browser has joined: it gets packets from now on."""
        self._receivers.setdefault(path, {})[receive] = None
        self.joined.set()

    def start_run(self, path: str) -> None:
        if path not in self._runs:
            self._run(path)
            self._watchers.add(asyncio.create_task(self._watch(path), name=f"watch {path}"))

    async def _watch(self, path: str) -> None:
        empty = 0
        while empty < EMPTY_CHECKS:
            await asyncio.sleep(CHECK_INTERVAL)
            empty = 0 if self._receivers.get(path) else empty + 1
        run = self._runs.pop(path, None)
        if run is not None:
            run.cancel()

    async def close(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await super().close()


class _Client:
    """One connection of a browser, in Centrifuge's JSON protocol."""

    def __init__(self, server: Server, socket: web.WebSocketResponse) -> None:
        self._server, self._socket = server, socket
        self._out: asyncio.Queue[str] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write(), name="live writer")
        self._joined: dict[str, Callable[[Message], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, command: Message) -> None:
        number = command.get("id")
        if "connect" in command:
            connected = {"client": "c", "version": "0", "ping": PING, "pong": True}
            self._send({"id": number, "connect": connected})
        elif "subscribe" in command:
            task = asyncio.create_task(self._subscribe(number, command["subscribe"]["channel"]))
            self._tasks.add(task)
        elif "unsubscribe" in command:
            self._leave(command["unsubscribe"]["channel"])
            self._send({"id": number, "unsubscribe": {}})

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(PING)
            self._send({})

    def close(self) -> None:
        self._writer.cancel()
        for task in self._tasks:
            task.cancel()
        for channel in tuple(self._joined):
            self._leave(channel)

    async def _subscribe(self, number: int, channel: str) -> None:
        path = channel.split("/", 3)[3]
        wire = self._server.wire

        def receive(message: Message) -> None:
            self._send({"push": {"channel": channel, "pub": {"data": message}}})

        try:
            data = await self._server.subscribe(path, receive)
        except CallFailed as error:
            self._send({"id": number, "error": {"code": 103, "message": str(error)}})
            return
        self._server.start_run(path)
        self._send({"id": number, "subscribe": {"data": data} if data else {}})
        await asyncio.sleep(wire.join_loss)
        self._joined[channel] = receive
        self._server.join(path, receive)

    def _leave(self, channel: str) -> None:
        receive = self._joined.pop(channel, None)
        if receive is not None:
            self._server.unsubscribe(channel.split("/", 3)[3], receive)

    def _send(self, message: Message) -> None:
        self._out.put_nowait(json.dumps(message))

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                text = await self._out.get()
                await self._server.wire.flow()
                await self._socket.send_str(text)


@asynccontextmanager
async def open_server(
    binary: Path, command: Sequence[str | Path], settings: Message, page: Path, module: Path
) -> AsyncIterator[Server]:
    """A Grafana on a local port, with its plugin and the page in place of its frontend."""
    async with Host(binary) as host:
        server = Server(host, command, settings)
        await server.start()
        runner = web.AppRunner(_application(server, page, module), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield server
        finally:
            server.wire.restore()
            await runner.cleanup()
            await server.close()


def _application(server: Server, page: Path, module: Path) -> web.Application:
    application = web.Application(middlewares=[_simulate(server.wire)], client_max_size=1 << 26)
    data_source = "/api/datasources/uid/{uid}"
    application.add_routes(
        [
            web.post("/api/ds/query", server.answer_query),
            web.route("*", data_source + "/resources/{path:.*}", server.answer_resource),
            web.get(data_source + "/health", server.answer_health),
            web.get("/api/live/ws", server.answer_live),
            web.static(f"/public/plugins/{PLUGIN}", module),
            web.static("/page", page),
        ]
    )
    return application


def _simulate(wire: Wire) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        is_socket = request.path == "/api/live/ws"
        if request.path.startswith("/api/"):
            wire.calls.append(request.path_qs)
            await wire.flow()
            if not (wire.socket if is_socket else wire.http):
                assert request.transport is not None
                request.transport.abort()
                raise web.HTTPServiceUnavailable
        return await handler(request)

    return middleware
