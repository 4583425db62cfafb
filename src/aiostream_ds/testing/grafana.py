"""Grafana, played in memory: a real gRPC client before our real server, with the rules of its
stream manager (one RunStream a channel, presence checks, retries). Nothing below it is mocked.

Times are the loop's: under a virtual clock the 15 s until Grafana notices an empty channel cost
nothing. Wrong behaviour of the plugin shows as what a user would see.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import Frame
from aiostream_ds._grafana.application import Application, background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._process.runtime import Serves
from aiostream_ds.models import Response, User
from aiostream_ds.testing.memory import connect
from aiostream_ds.testing.stream_manager import (
    CHECK_INTERVAL,
    EMPTY_CHECKS,
    Follower,
    StreamManager,
    cancellations_put_right,
)
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = [
    "CHECK_INTERVAL",
    "EMPTY_CHECKS",
    "Grafana",
    "QueryFailed",
    "open_beside",
    "open_grafana",
    "serve_in_memory",
]

ADMIN = User(login="admin", name="Admin", email="admin@localhost", role="Admin")


class QueryFailed(Exception):
    """A query was answered with an error; `status` and `source` are the wire's."""

    def __init__(self, status: int, source: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.source = source


class Grafana(StreamManager):
    """One Grafana server with one configured data source. Made by `serve_in_memory`."""

    def __init__(
        self,
        application: Serves,
        tasks: TaskGroup,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        uid: str,
    ) -> None:
        super().__init__(tasks)
        self.uid = uid
        self._connect(application)
        self._settings = dict(settings)
        self._secrets = dict(secrets)
        self._updated_ms = 1
        self._process: _Process | None = None

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
        frames = await self.query_bytes(
            query, start=start, end=end, max_data_points=max_data_points, user=user, as_json=as_json
        )
        decode = json.decode if as_json else arrow.decode
        return [decode(frame) for frame in frames]

    async def query_bytes(
        self,
        query: Mapping[str, Any],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        max_data_points: int = 1000,
        user: User | None = ADMIN,
        as_json: bool = True,
    ) -> list[bytes]:
        """The same frames as the plugin wrote them, in JSON or in Arrow."""
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
        return [bytes(frame) for frame in answer.frames]

    async def follow(
        self, path: str, user: User | None = ADMIN, *, frame: Frame | None = None
    ) -> Viewer:
        """A browser subscribes to a path. `frame` is that of an exact query, whose channel this is:
        its columns are those of the rows. Raises Refused, or GRPCError when the call fails."""
        viewer = Viewer(path, lambda viewer: self._leave(path, viewer), frame)
        await self.attach(path, viewer, user)
        return viewer

    async def attach(
        self, path: str, follower: Follower, user: User | None = ADMIN
    ) -> Callable[[], None]:
        """The same for a follower of another kind. Returns what closes its tab; raises as
        `follow`."""
        request = pb.SubscribeStreamRequest(plugin_context=self.context(user), path=path)
        reply = await self._call("Stream/SubscribeStream", request, pb.SubscribeStreamResponse)
        if reply.status != pb.SubscribeStreamResponseStatus.OK:
            raise Refused(reply.status.name or "", path)
        self._join(path, follower, user)
        if reply.data:
            follower.push(bytes(reply.data))
        return lambda: self._leave(path, follower)

    async def reconnect(
        self, viewer: Viewer, *, after: float = 0.0, user: User | None = ADMIN
    ) -> None:
        """A browser loses its socket, and subscribes again so many seconds later; what comes in
        between is lost to it. Raises as `follow`."""
        viewer.leave()
        await anyio.sleep(after)
        await self.attach(viewer.path, viewer, user)

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
        with cancellations_put_right():
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
        self, settings: Mapping[str, Any], secrets: Mapping[str, str] | None = None
    ) -> None:
        """An admin saves the data source: every stream of it is cancelled and started anew."""
        self._settings = dict(settings)
        self._secrets = dict(secrets) if secrets is not None else self._secrets
        self._updated_ms += 1
        runs = tuple(self._runs.values())
        for run in runs:
            run.scope.cancel()
        for run in runs:
            await run.ended.wait()
            if run.path not in self._runs:  # else somebody has just subscribed anew
                self._start(run.path, run.user)

    async def replace_plugin(self, application: Serves) -> None:
        """The plugin's process dies and Grafana starts another: every call under way fails, every
        stream is run again, and who follows one is told nothing."""
        server, channel = self._server, self._channel
        self._connect(application)
        await _disconnect(server, channel)

    async def kill(self) -> None:
        """The plugin's process is killed and Grafana starts another, of which nobody is told.

        What a process would lose is lost: instances, rings, the schemas that are known. Only the
        author's `finally` runs, which a kill would not let.

        Raises RuntimeError unless `serve_in_memory` has made this Grafana.
        """
        former = self._process
        if former is None:
            raise RuntimeError("only a Grafana of serve_in_memory can start the plugin again")
        self._process = await former.tasks.start(_live, former.catalog, former.tasks)
        await self.replace_plugin(self._process.application)
        former.scope.cancel()

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
                decrypted_secure_json_data=dict(self._secrets),
                last_updated_ms=self._updated_ms,
            ),
        )

    def _connect(self, application: Serves) -> None:
        self.plugin = application
        self._server = Server(application.services())
        self._server.on_rate_limited = application.counters.count_rate_limited
        self._channel = connect(self._server)

    async def _close(self) -> None:
        await _disconnect(self._server, self._channel)

    async def _call(self, method: str, request: Any, reply: Any) -> Any:
        rpc = UnaryUnaryMethod(self._channel, f"/pluginv2.{method}", type(request), reply)
        with cancellations_put_right():
            return await rpc(request)


@asynccontextmanager
async def open_grafana(
    application: Serves,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    uid: str = "test",
) -> AsyncGenerator[Grafana]:
    """A Grafana before a plugin that lives already; it goes, with all its viewers, on leaving."""
    async with AsyncExitStack() as last:
        async with background_tasks() as tasks:
            grafana = Grafana(application, tasks, settings or {}, secrets or {}, uid)
            last.push_async_callback(grafana._close)
            yield grafana


class _Process(NamedTuple):
    """A plugin that lives in a task of its own, until its scope is cancelled."""

    catalog: Catalog
    tasks: TaskGroup
    application: Application
    scope: anyio.CancelScope
    stop: anyio.Event
    closed: anyio.Event


async def _live(catalog: Catalog, tasks: TaskGroup, *, task_status: TaskStatus[_Process]) -> None:
    stop, closed = anyio.Event(), anyio.Event()
    try:
        with anyio.CancelScope() as scope:
            async with open_application(catalog) as application:
                task_status.started(_Process(catalog, tasks, application, scope, stop, closed))
                await stop.wait()
    finally:
        closed.set()


class _Beside(Grafana):
    """Another server of the same Grafana: its settings are those of the first."""

    def __init__(self, first: Grafana, tasks: TaskGroup) -> None:
        super().__init__(first.plugin, tasks, {}, {}, first.uid)
        self._first = first

    def context(self, user: User | None) -> pb.PluginContext:
        """As the first server has it."""
        return self._first.context(user)


@asynccontextmanager
async def open_beside(first: Grafana, *, reading_delay: float = 0.0) -> AsyncGenerator[Grafana]:
    """A second server of the same Grafana, with a connection and RunStreams of its own.

    With a `reading_delay` it is slow: so many seconds over each packet, while the other is not.
    """
    async with AsyncExitStack() as last:
        async with background_tasks() as tasks:
            second = _Beside(first, tasks)
            second.reading_delay = reading_delay
            last.push_async_callback(second._close)
            yield second


@asynccontextmanager
async def serve_in_memory(
    target: Target,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    by: str | None = None,
    uid: str = "test",
) -> AsyncGenerator[Grafana]:
    """A plugin with this DataSource class, and a Grafana before it.

    `settings` is the data source's jsonData (camelCase), `secrets` its secureJsonData. On leaving,
    Grafana goes first, then the plugin, which ends every stream and lifespan.
    """
    async with background_tasks() as lives:
        first = await lives.start(_live, Catalog(target, by), lives)
        async with open_grafana(
            first.application, settings=settings, secrets=secrets, uid=uid
        ) as grafana:
            grafana._process = first
            yield grafana
        last = grafana._process
        last.stop.set()
        await last.closed.wait()


async def _disconnect(server: Server, channel: Channel) -> None:
    """Ends a connection, and waits for the server's calls: they are cancelled by it."""
    channel.close()
    with anyio.CancelScope(shield=True):
        if server.tasks:
            await asyncio.wait(server.tasks)
