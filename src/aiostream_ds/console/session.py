"""One page: its WebSocket, what it follows, and what it asks for.

    page ──▶ {"id": 7, "do": "follow", "path": "cpu"}
    page ◀── [{"id": 7, "ok": true}, {"id": 7, "packets": […]}, {"state": …}, {"log": […]}]

Messages are JSON; the page's are objects, ours arrays of all that waited. A page's questions are
answered beside each other; nothing that it does, or leaves undone, holds up another.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from grpclib.exceptions import GRPCError, StreamTerminatedError
from starlette.websockets import WebSocket, WebSocketDisconnect

from aiostream_ds.console.hub import Hub
from aiostream_ds.console.page_queue import Feed, Outbox, Overflow
from aiostream_ds.models import User
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_beside
from aiostream_ds.testing.viewer import Refused

__all__ = ["FEEDS", "Ask", "Session"]

log = logging.getLogger(__name__)

FEEDS = 5_000
"""Channels that one page may follow."""

AT_ONCE = 64
"""Things a page asked for that are done beside each other; the next waits for one of them."""

PATIENCE = 60.0
"""Seconds after which an unanswered question, or an unread message, is given up."""

FLUSH_BYTES = 1 / 60
"""Seconds between two messages to the page: what comes meanwhile goes together."""

STATE_EVERY = 1.0
"""Seconds between two reports of all channels."""


class Ask(msgspec.Struct, kw_only=True, frozen=True):
    """What a page asks. `id` names the answer, and for `follow` the feed."""

    do: str
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
    """One page while it is open."""

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        self._hub = hub
        self._socket = socket
        self._outbox = Outbox()
        self._leaves: dict[int, Callable[[], None]] = {}
        self._turns = anyio.Semaphore(AT_ONCE)
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Serve the page until it closes, reads nothing any more or says what is no JSON."""
        await self._socket.accept()
        hub, outbox = self._hub, self._outbox
        outbox.tell(hub.hello())
        outbox.tell({"reload": hub.reload})
        for line in hub.log.lines:
            outbox.log(line)
        hub.pages.add(outbox)
        try:
            async with anyio.create_task_group() as self._tasks:
                for work in (self._send, self._report):
                    self._tasks.start_soon(work)
                await self._receive()
                self._tasks.cancel_scope.cancel()
        finally:
            hub.pages.discard(outbox)
            for leave in tuple(self._leaves.values()):
                leave()

    async def _receive(self) -> None:
        try:
            while True:
                text = await self._socket.receive_text()
                ask = msgspec.json.decode(text, type=Ask)
                if ask.do == "leave":
                    self._leave(ask.id)
                    continue
                await self._turns.acquire()
                self._tasks.start_soon(self._answer, ask)
        except (WebSocketDisconnect, KeyError, RuntimeError):
            return  # closed, or bytes where text is allowed
        except (ValueError, RecursionError) as error:
            await self._close(1003, f"this cannot be read: {error}")

    async def _send(self) -> None:
        try:
            while True:
                text = await self._outbox.take()
                with anyio.fail_after(PATIENCE):
                    await self._socket.send_text(text)
                await anyio.sleep(FLUSH_BYTES)
        except (WebSocketDisconnect, RuntimeError, OSError):
            self._tasks.cancel_scope.cancel()  # TimeoutError, too: the page reads nothing
        except Overflow as error:
            log.info("a page is given up: %s", error)
            self._tasks.cancel_scope.cancel()

    async def _report(self) -> None:
        while True:
            if not self._outbox.behind:
                self._outbox.tell(self._hub.state(self._outbox))
            await anyio.sleep(STATE_EVERY)

    async def _close(self, code: int, reason: str) -> None:
        with anyio.move_on_after(1):
            await self._socket.close(code, reason[:100])

    # -- what a page can ask -------------------------------------------------------------------

    async def _answer(self, ask: Ask) -> None:
        try:
            found = _DOINGS.get(ask.do)
            if found is None:
                raise ValueError(f"do = {ask.do!r} is none of leave, {', '.join(_DOINGS)}")
            with anyio.fail_after(PATIENCE):
                answer = await found(self, ask)
            self._outbox.tell({"id": ask.id, **answer})
        except Exception as error:
            self._outbox.tell({"id": ask.id, "error": _said(error), **_status(error)})
        finally:
            self._turns.release()

    def _leave(self, id: int) -> None:
        leave = self._leaves.pop(id, None)
        if leave is not None:
            leave()

    async def _follow(self, ask: Ask) -> dict[str, Any]:
        if len(self._leaves) >= FEEDS:
            raise ValueError(f"the page follows {FEEDS} channels already, which is the most")
        self._leave(ask.id)
        feed = Feed(self._outbox, ask.id, ask.path)
        if ask.delay:
            leave = await self._tasks.start(self._slowly, ask, feed)
        else:
            leave = await self._hub.grafana.attach(ask.path, feed, ask.user)

        def go() -> None:
            leave()
            self._outbox.forget(feed)

        self._leaves[ask.id] = go
        return {"ok": True}

    async def _slowly(
        self, ask: Ask, feed: Feed, *, task_status: anyio.abc.TaskStatus[Callable[[], None]]
    ) -> None:
        """A Grafana of its own that takes `delay` seconds over each packet."""
        left = anyio.Event()
        async with open_beside(self._hub.grafana, reading_delay=ask.delay) as second:
            await second.attach(ask.path, feed, ask.user)
            task_status.started(left.set)
            await left.wait()

    async def _query(self, ask: Ask) -> dict[str, Any]:
        end = datetime.now(UTC)
        start = datetime.fromtimestamp(end.timestamp() - ask.seconds, UTC)
        query = ask.query or self._hub.query_of(ask.path)
        frames = await self._hub.grafana.query_bytes(
            query, start=start, end=end, max_data_points=ask.points, user=ask.user
        )
        return {"query": query, "frames": [msgspec.Raw(frame) for frame in frames]}

    async def _save(self, ask: Ask) -> dict[str, Any]:
        await self._hub.save(ask.settings, ask.secrets)
        return await self._health(ask)

    async def _health(self, ask: Ask) -> dict[str, Any]:
        ok, message = await self._hub.grafana.health()
        return {"ok": ok, "message": message}

    async def _publish(self, ask: Ask) -> dict[str, Any]:
        answer = await self._hub.grafana.publish(ask.path, ask.data, ask.user)
        return {"ok": True, "data": answer.decode("utf-8", "replace")}

    async def _resource(self, ask: Ask) -> dict[str, Any]:
        body = b"" if ask.data is None else msgspec.json.encode(ask.data)
        answer = await self._hub.grafana.resource(
            ask.path, method=ask.method, body=body, user=ask.user
        )
        text = answer.body if isinstance(answer.body, bytes) else b""
        return {"status": answer.status, "data": text.decode("utf-8", "replace")}

    async def _cut(self, ask: Ask) -> dict[str, Any]:
        """Grafana loses its connection to the plugin; every RunStream is called again."""
        grafana: Grafana = self._hub.grafana
        await grafana.replace_plugin(self._hub.front)
        return {"ok": True}


_DOINGS: dict[str, Callable[[Session, Ask], Awaitable[dict[str, Any]]]] = {
    "follow": Session._follow,
    "query": Session._query,
    "save": Session._save,
    "health": Session._health,
    "publish": Session._publish,
    "resource": Session._resource,
    "cut": Session._cut,
}


def _said(error: Exception) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message}"
    if isinstance(error, Refused):
        return f"refused: {error}; the log says why"
    if isinstance(error, StreamTerminatedError):
        return "the connection to the plugin was cut"
    if isinstance(error, TimeoutError):
        return f"there was no answer for {PATIENCE:g} s"
    return str(error) or type(error).__name__


def _status(error: Exception) -> dict[str, Any]:
    if isinstance(error, QueryFailed):
        return {"status": error.status, "source": error.source}
    return {"status": error.status} if isinstance(error, Refused) else {}
