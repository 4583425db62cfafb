"""The console as an ASGI app: the page, its WebSocket, and live packets for any web page.

    /                 the page                 /ws        the page's WebSocket
    /static/…         the page's files         /schema    the schema of settings and queries
    /live/PATH        the packets of a path, as Server-Sent Events or over a WebSocket
    /push/PATH        takes rows, as the data source's resource push/PATH in Grafana does

`open_console` makes one to mount in another app.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from grpclib.exceptions import GRPCError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._loggers import get_logger
from aiostream_ds.console.access_guard import LOOPBACK, AccessGuard, ASGIApp
from aiostream_ds.console.hub import Hub, open_hub
from aiostream_ds.console.page_queue import FollowedChannel, PageQueue
from aiostream_ds.console.push_endpoint import push_routes
from aiostream_ds.console.session import TIMEOUT, Session
from aiostream_ds.models import User
from aiostream_ds.testing.grafana import ADMIN
from aiostream_ds.testing.viewer import Refused

__all__ = ["Identify", "make_app", "open_console"]

log = get_logger(__name__)

STATIC = Path(__file__).with_name("static")

KEEP_ALIVE = 15.0
"""Seconds without packets after which an event stream sends a comment, so that proxies keep it."""

Identify = Callable[[HTTPConnection], User | None]
"""Returns the `User` of a request for a live path, or None for one who is not signed in."""


@asynccontextmanager
async def open_console(
    target: Target,
    *,
    by: str | None = None,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    token: str = "",
    page: bool = True,
    identify: Identify | None = None,
) -> AsyncGenerator[ASGIApp]:
    """Open a data source and an ASGI app for it; both close with the block.

    Args:
        target, by: as `serve` takes them.
        settings, secrets: the data source's jsonData (camelCase) and secureJsonData.
        hosts: accepted names in the Host header; None accepts any.
        token: required once from each browser, as `?token=`.
        page: whether to serve the console's page, which can change settings; without it the app
            has only `live/PATH`.
        identify: returns the user of a request; by default every user is an admin.
    """
    async with open_hub(Catalog(target, by), settings=settings, secrets=secrets) as hub:
        yield make_app(hub, hosts=hosts, token=token, page=page, identify=identify)


def make_app(
    hub: Hub,
    *,
    hosts: Collection[str] | None = LOOPBACK,
    token: str = "",
    page: bool = True,
    identify: Identify | None = None,
) -> ASGIApp:
    """Make the app of an open hub. The arguments are those of `open_console`."""
    live = _LiveEndpoint(hub, identify or (lambda _: ADMIN))
    routes: list[BaseRoute] = [
        Route("/live/{path:path}", live.events),
        WebSocketRoute("/live/{path:path}", live.socket),
    ]
    if page:
        routes += push_routes(hub)
        routes += [
            Route("/", _index),
            Route("/schema", _schema(hub)),
            WebSocketRoute("/ws", _page(hub)),
            Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
        ]
    return AccessGuard(Starlette(routes=routes), hosts=hosts, token=token)


async def _index(request: Request) -> Response:
    page = STATIC / "index.html"
    if not request.url.path.endswith("/"):  # mounted: the page's links are relative
        return Response(status_code=307, headers={"location": request.url.path + "/"})
    if not page.is_file():
        return PlainTextResponse("the console's page was not built; run scripts/frontend", 500)
    return FileResponse(page, headers={"cache-control": "no-cache"})


def _schema(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    async def schema(_: Request) -> Response:
        return Response(bytes(hub.forms), media_type="application/json")

    return schema


def _page(hub: Hub) -> Callable[[WebSocket], Awaitable[None]]:
    async def page(socket: WebSocket) -> None:
        await Session(hub, socket).run()

    return page


class _LiveEndpoint:
    """`/live/PATH`: the packets of one channel for one client."""

    def __init__(self, hub: Hub, identify: Identify) -> None:
        self._hub = hub
        self._identify = identify

    async def events(self, request: Request) -> Response:
        """Server-Sent Events: one message for each packet."""
        queue = PageQueue()
        try:
            leave = await self._join(request, queue)
        except Refused as refused:
            status = 403 if refused.status == "PERMISSION_DENIED" else 404
            return PlainTextResponse(f"{refused}\n", status)
        except GRPCError as error:
            return PlainTextResponse(f"{error.message}\n", 502)

        async def lines() -> AsyncIterator[str]:
            yield "retry: 2000\n\n"
            while True:
                packets: list[str] = []
                with anyio.move_on_after(KEEP_ALIVE):
                    packets = await queue.receive_packets()
                yield "".join(f"data: {packet}\n\n" for packet in packets) or ": alive\n\n"

        return _EventStream(lines(), leave)

    async def socket(self, socket: WebSocket) -> None:
        """WebSocket: one text message for each packet."""
        queue = PageQueue()
        try:
            leave = await self._join(socket, queue)
        except Refused as refused:
            await socket.close(1008, str(refused)[:100])
            return
        except GRPCError as error:
            await socket.close(1011, (error.message or "")[:100])
            return
        try:
            await socket.accept()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_closed, socket, tasks.cancel_scope)
                while True:
                    for packet in await queue.receive_packets():
                        with anyio.fail_after(TIMEOUT):
                            await socket.send_text(packet)
        except* (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has disconnected or does not read
        finally:
            leave()

    async def _join(self, request: HTTPConnection, queue: PageQueue) -> Callable[[], None]:
        path = self._hub.path_for(request.path_params["path"])
        channel = FollowedChannel(queue, 0, path)
        return await self._hub.grafana.attach(path, channel, self._identify(request))


class _EventStream(StreamingResponse):
    """An event stream that leaves its channel when it ends, even before the first line."""

    def __init__(self, lines: AsyncIterator[str], leave: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send until the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _until_closed(socket: WebSocket, scope: anyio.CancelScope) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
    scope.cancel()
