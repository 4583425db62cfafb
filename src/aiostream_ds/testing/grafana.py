"""An in-memory Grafana: a real gRPC client connected to the plugin's real server, with the rules
of Grafana's stream manager (one RunStream per channel, presence checks, retries).

Times are those of the event loop: in virtual time, waiting costs nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

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
from aiostream_ds._process.runtime import Servable
from aiostream_ds.datasource import DataSource
from aiostream_ds.models import Response, User
from aiostream_ds.testing.memory import connect
from aiostream_ds.testing.stream_manager import (
    CHECK_INTERVAL,
    EMPTY_CHECKS,
    PacketSink,
    StreamManager,
    uncancel_on_disconnect,
)
from aiostream_ds.testing.viewer import Refused, Viewer

if TYPE_CHECKING:
    from aiostream_ds._cluster.cluster_access import ClusterAccess

__all__ = [
    "CHECK_INTERVAL",
    "EMPTY_CHECKS",
    "Grafana",
    "QueryFailed",
    "open_second_server",
    "open_grafana",
    "serve_in_memory",
]

D = TypeVar("D", bound=DataSource[Any])

ADMIN = User(login="admin", name="Admin", email="admin@localhost", role="Admin")


class QueryFailed(Exception):
    """A query failed. `status` is its HTTP status, `source` is "plugin" or "downstream"."""

    def __init__(self, status: int, source: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.source = source


class Grafana(StreamManager):
    """One Grafana server with one configured data source, created by `serve_in_memory`.

    Not thread-safe: call it from the event loop's thread.
    """

    def __init__(
        self,
        application: Servable,
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

    # -- calls of a dashboard ------------------------------------------------------------------

    async def query(
        self,
        query: Mapping[str, Any],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        max_data_points: int = 1000,
        user: User | None = ADMIN,
        as_json: bool = False,
        headers: Mapping[str, str] = {},
    ) -> list[Frame]:
        """Run a query and decode its frames. The default time range is the last five minutes.

        An alert rule has no user, and the header `FromAlert: true`. Raises QueryFailed.
        """
        frames = await self.query_bytes(
            query,
            start=start,
            end=end,
            max_data_points=max_data_points,
            user=user,
            as_json=as_json,
            headers=headers,
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
        headers: Mapping[str, str] = {},
    ) -> list[bytes]:
        """Run a query and return its frames as the plugin encoded them, in JSON or in Arrow.

        Raises QueryFailed.
        """
        end = end or datetime.now(UTC)
        start = start or end - timedelta(minutes=5)
        request = pb.QueryDataRequest(
            plugin_context=self.context(user),
            headers=dict(headers),
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
        """Subscribe to a path as a browser does.

        For an exact channel pass the `frame` of its query: its columns are those of the rows.

        Raises:
            Refused: the plugin refused the subscription.
            GRPCError: the call failed.
        """
        viewer = Viewer(path, lambda viewer: self._leave(path, viewer), frame)
        await self.attach(path, viewer, user)
        return viewer

    async def attach(
        self, path: str, sink: PacketSink, user: User | None = ADMIN
    ) -> Callable[[], None]:
        """Subscribe another kind of subscriber to a path. Returns a function that unsubscribes it.

        Raises as `follow`.
        """
        data = await self.initial_data(path, user)
        self._join(path, sink, user)
        if data:
            sink.push(data)
        return lambda: self._leave(path, sink)

    async def initial_data(self, path: str, user: User | None = ADMIN) -> bytes:
        """The plugin's answer to a subscription, which starts no run: `attach` does.

        Raises as `follow`.
        """
        request = pb.SubscribeStreamRequest(plugin_context=self.context(user), path=path)
        reply = await self._call("Stream/SubscribeStream", request, pb.SubscribeStreamResponse)
        if reply.status != pb.SubscribeStreamResponseStatus.OK:
            raise Refused(reply.status.name or "", path)
        return bytes(reply.data)

    async def reconnect(
        self, viewer: Viewer, *, after: float = 0.0, user: User | None = ADMIN
    ) -> None:
        """Disconnect a browser and subscribe it again `after` seconds later.

        It does not get the packets in between. Raises as `follow`.
        """
        viewer.leave()
        await anyio.sleep(after)
        await self.attach(viewer.path, viewer, user)

    async def publish(self, path: str, data: Any, user: User | None = ADMIN) -> bytes:
        """Publish JSON as a user. Returns the plugin's response; raises Refused."""
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
        """Send an HTTP request to the data source's resources; a streamed body is joined."""
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
        with uncancel_on_disconnect():
            messages = await rpc(request)
        if not messages:
            raise ValueError("expected a resource response of at least one message, got none")
        response_headers = {name: list(v.values) for name, v in messages[0].headers.items()}
        response_body = b"".join(m.body for m in messages)
        return Response(status=messages[0].code, headers=response_headers, body=response_body)

    async def health(self) -> tuple[bool, str]:
        """Run "Save & test": whether it succeeded, and its message."""
        request = pb.CheckHealthRequest(plugin_context=self.context(ADMIN))
        reply = await self._call("Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        return reply.status == pb.CheckHealthResponseHealthStatus.OK, reply.message

    async def data_source(self, kind: type[D]) -> D:
        """The object of the author's class that serves this data source, opened if needed: to
        publish to its `Broadcast`, for example. After `change_settings` it is another one.

        Raises:
            TypeError: it is not a `kind`.
            PluginError: it cannot be opened.
        """
        instance = await cast("Application", self.plugin).instances.get(self.context(ADMIN))
        if not isinstance(instance.source, kind):
            found = type(instance.source).__qualname__
            raise TypeError(f"expected a data source of the class {kind.__qualname__}, got {found}")
        return instance.source

    async def metrics(self) -> dict[str, float]:
        """The plugin's metrics by name; the name includes the labels."""
        request = pb.CollectMetricsRequest(plugin_context=pb.PluginContext())
        reply = await self._call("Diagnostics/CollectMetrics", request, pb.CollectMetricsResponse)
        lines = (reply.metrics.prometheus if reply.metrics else b"").decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    async def change_settings(
        self, settings: Mapping[str, Any], secrets: Mapping[str, str] | None = None
    ) -> None:
        """Save the data source as an admin does: its streams are cancelled and started again."""
        self._settings = dict(settings)
        self._secrets = dict(secrets) if secrets is not None else self._secrets
        self._updated_ms += 1
        runs = tuple(self._runs.values())
        for run in runs:
            run.scope.cancel()
        for run in runs:
            await run.ended.wait()
            if run.path not in self._runs:  # else a new subscription has started it
                self._start(run.path, run.user)

    async def replace_plugin(self, application: Servable) -> None:
        """Replace the plugin as after a crash: calls in progress fail and streams run again.

        As in Grafana, subscribers are not notified.
        """
        server, channel = self._server, self._channel
        self._connect(application)
        await _disconnect(server, channel)

    async def kill(self) -> None:
        """Kill the plugin and start a new one. As in Grafana, subscribers are not notified.

        The new plugin has no instances, logs or schemas of the old one. Unlike after SIGKILL, the
        author's `finally` blocks run.

        Raises RuntimeError for a Grafana that `serve_in_memory` did not create.
        """
        old = self._process
        if old is None:
            raise RuntimeError("kill() needs a Grafana that serve_in_memory created")
        self._process = await old.tasks.start(_run_plugin, old.catalog, old.tasks, old.cluster)
        await self.replace_plugin(self._process.application)
        old.scope.cancel()

    # -- implementation ------------------------------------------------------------------------

    def context(self, user: User | None) -> pb.PluginContext:
        """The plugin context of a call by `user`, or by background work (None)."""
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

    def _connect(self, application: Servable) -> None:
        self.plugin = application
        self._server = Server(application.services())
        self._server.on_rate_limited = application.counters.count_rate_limited
        self._channel = connect(self._server)

    async def _close(self) -> None:
        await _disconnect(self._server, self._channel)

    async def _call(self, method: str, request: Any, reply: Any) -> Any:
        rpc = UnaryUnaryMethod(self._channel, f"/pluginv2.{method}", type(request), reply)
        with uncancel_on_disconnect():
            return await rpc(request)


@asynccontextmanager
async def open_grafana(
    application: Servable,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    uid: str = "test",
) -> AsyncGenerator[Grafana]:
    """Connect a Grafana to an open plugin; disconnect it when the block ends."""
    async with AsyncExitStack() as last:
        async with background_tasks() as tasks:
            grafana = Grafana(application, tasks, settings or {}, secrets or {}, uid)
            last.push_async_callback(grafana._close)
            yield grafana


class _Process(NamedTuple):
    """A plugin that runs in its own task until its scope is cancelled."""

    catalog: Catalog
    tasks: TaskGroup
    cluster: "Callable[[], ClusterAccess] | None"
    application: Application
    scope: anyio.CancelScope
    stop: anyio.Event
    closed: anyio.Event


async def _run_plugin(
    catalog: Catalog,
    tasks: TaskGroup,
    cluster: "Callable[[], ClusterAccess] | None" = None,
    *,
    task_status: TaskStatus[_Process],
) -> None:
    stop, closed = anyio.Event(), anyio.Event()
    try:
        with anyio.CancelScope() as scope:
            access = cluster() if cluster is not None else None
            async with open_application(catalog, cluster=access) as application:
                task_status.started(
                    _Process(catalog, tasks, cluster, application, scope, stop, closed)
                )
                await stop.wait()
    finally:
        closed.set()


class _SecondServer(Grafana):
    """Another server of the same Grafana, with the settings of the first."""

    def __init__(self, first: Grafana, tasks: TaskGroup) -> None:
        super().__init__(first.plugin, tasks, {}, {}, first.uid)
        self._first = first

    def context(self, user: User | None) -> pb.PluginContext:
        """The plugin context of the first server."""
        return self._first.context(user)


@asynccontextmanager
async def open_second_server(
    first: Grafana, *, reading_delay: float = 0.0
) -> AsyncGenerator[Grafana]:
    """A second server of the same Grafana, with its own connection and RunStreams.

    `reading_delay` makes it slow: it waits that many seconds after each packet.
    """
    async with AsyncExitStack() as last:
        async with background_tasks() as tasks:
            second = _SecondServer(first, tasks)
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
    cluster: "Callable[[], ClusterAccess] | None" = None,
) -> AsyncGenerator[Grafana]:
    """Run a plugin of this DataSource class with an in-memory Grafana.

    `settings` is the data source's jsonData (camelCase), `secrets` its secureJsonData. `cluster`
    is called for each start of the plugin. When the
    block ends, Grafana disconnects, then the plugin ends all streams and lifespans.

    Raises TypeError for an invalid target.
    """
    async with background_tasks() as plugins:
        first = await plugins.start(_run_plugin, Catalog(target, by), plugins, cluster)
        async with open_grafana(
            first.application, settings=settings, secrets=secrets, uid=uid
        ) as grafana:
            grafana._process = first
            yield grafana
        last = grafana._process
        last.stop.set()
        await last.closed.wait()


async def _disconnect(server: Server, channel: Channel) -> None:
    """Close a connection and wait for the server's calls, which it cancels."""
    channel.close()
    with anyio.CancelScope(shield=True):
        # most RunStream calls have no task: they end with their connection
        ends = [*server.tasks, *(connection.lost for connection in server.connections)]
        if ends:
            await asyncio.wait(ends)
