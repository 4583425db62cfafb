"""One page: its WebSocket, the channels it follows, and its requests.

    page ──▶ {"id": 7, "type": "follow", "path": "cpu"}
    page ◀── [{"id": 7, "ok": true}, {"id": 7, "packets": […]}, {"state": …}, {"log": […]}]

Messages are JSON. A page sends objects and gets arrays of all queued messages. Requests are handled
concurrently; a slow or stuck page does not delay another.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from grpclib.exceptions import GRPCError, StreamTerminatedError
from starlette.websockets import WebSocket, WebSocketDisconnect

from aiostream_ds._author_code import message_of
from aiostream_ds._loggers import get_logger
from aiostream_ds._redaction import redact
from aiostream_ds.console.hub import Hub
from aiostream_ds.console.page_queue import FollowedChannel, PageQueue, QueueOverflow
from aiostream_ds.models import User
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_second_server
from aiostream_ds.testing.viewer import Refused

__all__ = ["MAX_CHANNELS", "TIMEOUT", "PageRequest", "Session"]

log = get_logger(__name__)

MAX_CHANNELS = 5_000
"""Channels that one page may follow."""

MAX_REQUESTS = 64
"""Requests of one page that are handled at once; the next waits."""

TIMEOUT = 60.0
"""Seconds until a request without an answer, or a message that is not read, fails."""

SEND_INTERVAL = 1 / 60
"""Seconds between two messages to the page; what is queued meanwhile is sent together."""

STATE_INTERVAL = 1.0
"""Seconds between two reports of all channels."""


class PageRequest(msgspec.Struct, kw_only=True, frozen=True):
    """A page's request. `id` names the answer, and for `follow` the channel."""

    type: str
    id: int = 0
    path: str = ""
    query: dict[str, Any] = {}
    seconds: float = 300.0
    points: int = 1000
    user: User | None = User(login="admin", name="Admin", email="admin@localhost", role="Admin")
    delay: float = 0.0
    settings: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    data: Any = None
    method: str = "GET"


class Session:
    """One open page."""

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        self._hub = hub
        self._socket = socket
        self._queue = PageQueue()
        self._leaves: dict[int, Callable[[], None]] = {}
        self._pending: dict[int, PageRequest] = {}  # follows without an answer
        self._slots = anyio.Semaphore(MAX_REQUESTS)
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Serve the page until it disconnects, stops reading or sends invalid JSON."""
        await self._socket.accept()
        hub, queue = self._hub, self._queue
        queue.put(hub.hello())
        queue.put({"reload": hub.reload})
        if hub.pushed:
            queue.put({"pushed": hub.pushed})
        for line in hub.log.lines:
            queue.put_log_line(line)
        hub.pages.add(queue)
        try:
            async with anyio.create_task_group() as self._tasks:
                for work in (self._send, self._report):
                    self._tasks.start_soon(work)
                await self._receive()
                self._tasks.cancel_scope.cancel()
        finally:
            hub.pages.discard(queue)
            for leave in tuple(self._leaves.values()):
                leave()

    async def _receive(self) -> None:
        try:
            while True:
                text = await self._socket.receive_text()
                request = msgspec.json.decode(text, type=PageRequest)
                if request.type == "leave":
                    self._leave(request.id)
                    continue
                await self._slots.acquire()
                self._tasks.start_soon(self._answer, request)
        except (WebSocketDisconnect, KeyError, RuntimeError):
            return  # disconnected, or a binary message
        except (ValueError, RecursionError) as error:
            await self._close(1003, f"invalid request: {error}")

    async def _send(self) -> None:
        try:
            while True:
                text = await self._queue.receive()
                with anyio.fail_after(TIMEOUT):
                    await self._socket.send_text(text)
                await anyio.sleep(SEND_INTERVAL)
        except (WebSocketDisconnect, RuntimeError, OSError):
            self._tasks.cancel_scope.cancel()  # OSError includes TimeoutError: it does not read
        except QueueOverflow as error:
            log.info("disconnecting a page: %s", error)
            self._tasks.cancel_scope.cancel()

    async def _report(self) -> None:
        while True:
            if not self._queue.above_high_water:
                self._queue.put(self._hub.state(self._queue))
            await anyio.sleep(STATE_INTERVAL)

    async def _close(self, code: int, reason: str) -> None:
        with anyio.move_on_after(1):
            await self._socket.close(code, reason[:100])

    # -- requests ------------------------------------------------------------------------------

    async def _answer(self, request: PageRequest) -> None:
        try:
            handler = _HANDLERS.get(request.type)
            if handler is None:
                known = ", ".join(("leave", *_HANDLERS))
                raise ValueError(f"type must be one of {known}, got {request.type!r}")
            with anyio.fail_after(TIMEOUT):
                answer = await handler(self, request)
            self._queue.put({"id": request.id, **answer})
        except Exception as error:
            self._queue.put({"id": request.id, "error": redact(_message(error)), **_status(error)})
        finally:
            if self._pending.get(request.id) is request:
                del self._pending[request.id]
            self._slots.release()

    def _leave(self, id: int) -> None:
        self._pending.pop(id, None)
        leave = self._leaves.pop(id, None)
        if leave is not None:
            leave()

    async def _follow(self, request: PageRequest) -> dict[str, Any]:
        if len(self._leaves) >= MAX_CHANNELS:
            raise ValueError(f"a page may follow at most {MAX_CHANNELS} channels")
        self._leave(request.id)
        self._pending[request.id] = request
        path = self._hub.path_for(request.path)
        channel = FollowedChannel(self._queue, request.id, path)
        if request.delay:
            leave_channel = await self._tasks.start(self._follow_slowly, request, channel)
        else:
            grafana = self._hub.grafana
            leave_channel = await grafana.attach(path, channel, request.user)

        def leave() -> None:
            leave_channel()
            self._queue.discard(channel)

        if self._pending.get(request.id) is request:
            self._leaves[request.id] = leave
        else:
            leave()  # the page has left, or follows another path, while this one was opened
        return {"ok": True}

    async def _follow_slowly(
        self,
        request: PageRequest,
        channel: FollowedChannel,
        *,
        task_status: anyio.abc.TaskStatus[Callable[[], None]],
    ) -> None:
        """Follow with a separate Grafana that takes `delay` seconds to read each packet."""
        left = anyio.Event()
        async with open_second_server(self._hub.grafana, reading_delay=request.delay) as second:
            await second.attach(channel.path, channel, request.user)
            task_status.started(left.set)
            await left.wait()

    async def _query(self, request: PageRequest) -> dict[str, Any]:
        end = datetime.now(UTC)
        start = datetime.fromtimestamp(end.timestamp() - request.seconds, UTC)
        query = request.query or self._hub.query_for(request.path)
        frames = await self._hub.grafana.query_bytes(
            query, start=start, end=end, max_data_points=request.points, user=request.user
        )
        return {"query": query, "frames": [msgspec.Raw(frame) for frame in frames]}

    async def _save(self, request: PageRequest) -> dict[str, Any]:
        await self._hub.save(request.settings, request.secrets)
        return await self._health(request)

    async def _health(self, request: PageRequest) -> dict[str, Any]:
        ok, message = await self._hub.grafana.health()
        return {"ok": ok, "message": message}

    async def _publish(self, request: PageRequest) -> dict[str, Any]:
        answer = await self._hub.grafana.publish(request.path, request.data, request.user)
        return {"ok": True, "data": answer.decode("utf-8", "replace")}

    async def _resource(self, request: PageRequest) -> dict[str, Any]:
        body = b"" if request.data is None else msgspec.json.encode(request.data)
        answer = await self._hub.grafana.resource(
            request.path, method=request.method, body=body, user=request.user
        )
        text = answer.body if isinstance(answer.body, bytes) else b""
        return {"status": answer.status, "data": text.decode("utf-8", "replace")}

    async def _disconnect(self, request: PageRequest) -> dict[str, Any]:
        """Close Grafana's connection to the plugin; Grafana calls every RunStream again."""
        grafana: Grafana = self._hub.grafana
        await grafana.replace_plugin(self._hub.plugin)
        return {"ok": True}


_HANDLERS: dict[str, Callable[[Session, PageRequest], Awaitable[dict[str, Any]]]] = {
    "follow": Session._follow,
    "query": Session._query,
    "save": Session._save,
    "health": Session._health,
    "publish": Session._publish,
    "resource": Session._resource,
    "disconnect": Session._disconnect,
}


def _message(error: Exception) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message}"
    if isinstance(error, Refused):
        return f"refused: {error}; see the log for the reason"
    if isinstance(error, StreamTerminatedError):
        return "the connection to the plugin was closed"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return message_of(error)


def _status(error: Exception) -> dict[str, Any]:
    if isinstance(error, QueryFailed):
        return {"status": error.status, "source": error.source}
    return {"status": error.status} if isinstance(error, Refused) else {}
