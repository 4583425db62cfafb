"""Grafana, played in memory: a real gRPC client before our real server, with the rules of its
stream manager (one RunStream a channel, presence checks, retries). Nothing below it is mocked.

Times are the loop's: under a virtual clock the 15 s until Grafana notices an empty channel cost
nothing. Wrong behaviour of the plugin shows as what a user would see.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds.frames import arrow, json
from aiostream_ds.frames.frame import Frame
from aiostream_ds.grafana._pb import pluginv2 as pb
from aiostream_ds.grafana.application import Application, background_tasks, open_application
from aiostream_ds.grafana.wire import Server
from aiostream_ds.plugin.catalog import Catalog, Target
from aiostream_ds.plugin.model import Response, User
from aiostream_ds.testing.memory import connect
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = [
    "CHECK_INTERVAL",
    "EMPTY_CHECKS",
    "Grafana",
    "QueryFailed",
    "open_grafana",
    "serve_in_memory",
]

log = logging.getLogger(__name__)

CHECK_INTERVAL = 5.0
"""Seconds between two looks of Grafana's at who follows a channel (live/runstream/manager.go)."""

EMPTY_CHECKS = 3
"""Looks in a row that find nobody before RunStream is cancelled."""

FAST_FAILURE = 0.1
"""Seconds; a RunStream that fails later than this is called again at once."""

RETRY_DELAYS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds that Grafana waits after one, two, … RunStreams in a row that failed faster."""

ADMIN = User(login="admin", name="Admin", email="admin@localhost", role="Admin")


class QueryFailed(Exception):
    """A query was answered with an error; `status` and `source` are the wire's."""

    def __init__(self, status: int, source: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.source = source


class _Run:
    """One RunStream of a channel, with the identity of whoever came first."""

    def __init__(self, path: str, user: User | None) -> None:
        self.path = path
        self.user = user
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class Grafana:
    """One Grafana server with one configured data source. Made by `serve_in_memory`."""

    def __init__(
        self,
        application: Application,
        tasks: TaskGroup,
        settings: Mapping[str, Any],
        secure: Mapping[str, str],
        uid: str,
    ) -> None:
        self.uid = uid
        self._tasks = tasks
        self._connect(application)
        self._settings = dict(settings)
        self._secure = dict(secure)
        self._updated_ms = 1
        self._runs: dict[str, _Run] = {}
        self._viewers: dict[str, set[Viewer]] = {}

    # -- what a dashboard does -----------------------------------------------------------------

    async def query(
        self,
        query: Mapping[str, Any],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        max_data_points: int = 1000,
        user: User | None = ADMIN,
        as_json: bool = False,
    ) -> list[Frame]:
        """The frames of one query (default: the last five minutes). Raises QueryFailed."""
        end = end or datetime.now(UTC)
        start = start or end - timedelta(minutes=5)
        request = pb.QueryDataRequest(
            plugin_context=self.context(user),
            format=pb.DataFrameFormat.JSON if as_json else pb.DataFrameFormat.ARROW,
            queries=[
                pb.DataQuery(
                    ref_id="A",
                    query_type=str(query.get("queryType", "")),
                    max_data_points=max_data_points,
                    interval_ms=1000,
                    time_range=pb.TimeRange(
                        from_epoch_ms=round(start.timestamp() * 1000),
                        to_epoch_ms=round(end.timestamp() * 1000),
                    ),
                    json=msgspec.json.encode(query),
                )
            ],
        )
        reply = await self._call("Data/QueryData", request, pb.QueryDataResponse)
        answer = reply.responses["A"]
        if answer.status != 200:
            raise QueryFailed(answer.status, answer.error_source, answer.error)
        decode = json.decode if as_json else arrow.decode
        return [decode(frame) for frame in answer.frames]

    async def follow(
        self, path: str, user: User | None = ADMIN, *, frame: Frame | None = None
    ) -> Viewer:
        """A browser subscribes to a path. `frame` is that of an exact query, whose channel this is:
        its columns are those of the rows. Raises Refused, or GRPCError when the call fails."""
        request = pb.SubscribeStreamRequest(plugin_context=self.context(user), path=path)
        reply = await self._call("Stream/SubscribeStream", request, pb.SubscribeStreamResponse)
        if reply.status != pb.SubscribeStreamResponseStatus.OK:
            raise Refused(reply.status.name or "", path)
        if path not in self._runs:
            self._start(path, user)
        viewers = self._viewers.setdefault(path, set())
        viewer = Viewer(path, viewers.discard, frame)
        if reply.data:
            viewer.push(reply.data)
        viewers.add(viewer)
        return viewer

    async def publish(self, path: str, data: Any, user: User | None = ADMIN) -> bytes:
        """A user publishes JSON. Returns the plugin's answer; raises Refused."""
        request = pb.PublishStreamRequest(
            plugin_context=self.context(user), path=path, data=msgspec.json.encode(data)
        )
        reply = await self._call("Stream/PublishStream", request, pb.PublishStreamResponse)
        if reply.status != pb.PublishStreamResponseStatus.OK:
            raise Refused(reply.status.name or "", path)
        return bytes(reply.data)

    async def resource(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, Sequence[str]] = {},
        user: User | None = ADMIN,
    ) -> Response:
        """One HTTP request to the data source's resources, its pieces joined."""
        request = pb.CallResourceRequest(
            plugin_context=self.context(user),
            path=path.partition("?")[0],
            method=method,
            url=path,
            headers={name: pb.StringList(values=list(v)) for name, v in headers.items()},
            body=body,
        )
        rpc = UnaryStreamMethod(
            self._channel,
            "/pluginv2.Resource/CallResource",
            pb.CallResourceRequest,
            pb.CallResourceResponse,
        )
        with _cancellations_put_right():
            messages = await rpc(request)
        if not messages:
            raise ValueError("the plugin sent an empty resource response")
        found = {name: list(v.values) for name, v in messages[0].headers.items()}
        pieces = b"".join(m.body for m in messages)
        return Response(status=messages[0].code, headers=found, body=pieces)

    async def health(self) -> tuple[bool, str]:
        """Save & test: whether it is green, and the message."""
        request = pb.CheckHealthRequest(plugin_context=self.context(ADMIN))
        reply = await self._call("Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        return reply.status == pb.CheckHealthResponseHealthStatus.OK, reply.message

    async def metrics(self) -> dict[str, float]:
        """The plugin's own metrics by name, labels included in the name."""
        request = pb.CollectMetricsRequest(plugin_context=pb.PluginContext())
        reply = await self._call("Diagnostics/CollectMetrics", request, pb.CollectMetricsResponse)
        lines = (reply.metrics.prometheus if reply.metrics else b"").decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    async def change_settings(
        self, settings: Mapping[str, Any], secure: Mapping[str, str] | None = None
    ) -> None:
        """An admin saves the data source: every stream of it is cancelled and started anew."""
        self._settings = dict(settings)
        self._secure = dict(secure) if secure is not None else self._secure
        self._updated_ms += 1
        runs = tuple(self._runs.values())
        for run in runs:
            run.scope.cancel()
        for run in runs:
            await run.ended.wait()
            if run.path not in self._runs:  # else somebody has just subscribed anew
                self._start(run.path, run.user)

    async def replace_plugin(self, application: Application) -> None:
        """The plugin's process dies and Grafana starts another: every call under way fails, every
        stream is run again, and who follows one is told nothing."""
        server, channel = self._server, self._channel
        self._connect(application)
        await _disconnect(server, channel)

    # -- how it does it ------------------------------------------------------------------------

    def context(self, user: User | None) -> pb.PluginContext:
        """The plugin context of a call by `user`; None is background work."""
        return pb.PluginContext(
            org_id=1,
            plugin_id="test-datasource",
            user=None
            if user is None
            else pb.User(login=user.login, name=user.name, email=user.email, role=user.role),
            data_source_instance_settings=pb.DataSourceInstanceSettings(
                id=1,
                uid=self.uid,
                name="test",
                json_data=msgspec.json.encode(self._settings),
                decrypted_secure_json_data=dict(self._secure),
                last_updated_ms=self._updated_ms,
            ),
        )

    def _connect(self, application: Application) -> None:
        self.plugin = application
        self._server = Server(application.methods())
        self._server.on_flood = application.counters.count_flood
        self._channel = connect(self._server)

    async def _close(self) -> None:
        await _disconnect(self._server, self._channel)

    async def _call(self, method: str, request: Any, reply: Any) -> Any:
        rpc = UnaryUnaryMethod(self._channel, f"/pluginv2.{method}", type(request), reply)
        with _cancellations_put_right():
            return await rpc(request)

    def _start(self, path: str, user: User | None) -> None:
        run = self._runs[path] = _Run(path, user)
        self._tasks.start_soon(self._run, run)
        self._tasks.start_soon(self._watch, run)

    async def _run(self, run: _Run) -> None:
        fast_failures = 0
        try:
            with run.scope:
                while True:
                    started = anyio.current_time()
                    try:
                        with _cancellations_put_right():
                            await self._receive(run)
                        for viewer in tuple(self._viewers.get(run.path, ())):
                            viewer.end()
                        return  # as in Grafana: who still looks stays subscribed, and sees nothing
                    except (GRPCError, StreamTerminatedError) as error:
                        log.debug("RunStream %s ended: %r", run.path, error)
                    if anyio.current_time() - started < FAST_FAILURE:
                        delay = RETRY_DELAYS[min(fast_failures, len(RETRY_DELAYS) - 1)]
                        await anyio.sleep(delay)
                        fast_failures += 1
                    else:
                        fast_failures = 0
        finally:
            run.ended.set()
            if self._runs.get(run.path) is run:
                del self._runs[run.path]

    async def _receive(self, run: _Run) -> None:
        rpc = UnaryStreamMethod(
            self._channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
        )
        async with rpc.open() as call:
            request = pb.RunStreamRequest(plugin_context=self.context(run.user), path=run.path)
            await call.send_message(request, end=True)
            async for packet in call:
                for viewer in tuple(self._viewers.get(run.path, ())):
                    viewer.push(packet.data)
                # a stream that never waits keeps this task's future done whenever a cancellation
                # could be delivered: here it is heeded
                await anyio.lowlevel.checkpoint()

    async def _watch(self, run: _Run) -> None:
        empty = 0
        while not run.ended.is_set():
            with anyio.move_on_after(CHECK_INTERVAL):
                await run.ended.wait()
            empty = 0 if self._viewers.get(run.path) else empty + 1
            if empty == EMPTY_CHECKS:
                run.scope.cancel()


@asynccontextmanager
async def open_grafana(
    application: Application,
    *,
    settings: Mapping[str, Any] | None = None,
    secure: Mapping[str, str] | None = None,
    uid: str = "test",
) -> AsyncGenerator[Grafana]:
    """A Grafana before a plugin that lives already; it goes, with all its viewers, on leaving."""
    async with AsyncExitStack() as last:
        async with background_tasks() as tasks:
            grafana = Grafana(application, tasks, settings or {}, secure or {}, uid)
            last.push_async_callback(grafana._close)
            yield grafana


@asynccontextmanager
async def serve_in_memory(
    target: Target,
    *,
    settings: Mapping[str, Any] | None = None,
    secure: Mapping[str, str] | None = None,
    by: str | None = None,
    uid: str = "test",
) -> AsyncGenerator[Grafana]:
    """A plugin with this DataSource class, and a Grafana before it.

    `settings` is the data source's jsonData (camelCase), `secure` its secureJsonData. On leaving,
    Grafana goes first, then the plugin, which ends every stream and lifespan.
    """
    async with (
        open_application(Catalog(target, by)) as application,
        open_grafana(application, settings=settings, secure=secure, uid=uid) as grafana,
    ):
        yield grafana


@contextmanager
def _cancellations_put_right() -> Iterator[None]:
    """grpclib ends a call whose connection is lost by cancelling its task, and leaves that counted:
    anyio would take the next cancellation for one from outside."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except StreamTerminatedError:
        while task is not None and task.cancelling() > before:
            task.uncancel()
        raise


async def _disconnect(server: Server, channel: Channel) -> None:
    """Ends a connection, and waits for the server's calls: they are cancelled by it."""
    channel.close()
    with anyio.CancelScope(shield=True):
        if server.tasks:
            await asyncio.wait(server.tasks)
