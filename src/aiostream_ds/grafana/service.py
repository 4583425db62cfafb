"""Everything that Grafana asks of a data source: Data, Stream, Resource, Diagnostics.

Each method is one RPC: decode, find the instance, let the author's code answer, encode. What an
author raises becomes the answer of that query or call, never the end of the process.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread
import betterproto2
import msgspec

from aiostream_ds.channels.registry import ChannelError, ChannelRegistry, StreamFailed
from aiostream_ds.errors import BadQuery, PermissionDenied, PluginError, unwrap
from aiostream_ds.frames import arrow, json
from aiostream_ds.frames.frame import Frame
from aiostream_ds.grafana import convert, queries, replies, resources, suggest
from aiostream_ds.grafana._pb import pluginv2 as pb
from aiostream_ds.grafana.access import admit, authorize, authorize_plain
from aiostream_ds.grafana.decode import Decoder, remembering
from aiostream_ds.grafana.exact import send_exact
from aiostream_ds.grafana.http2streams import StreamClosedError
from aiostream_ds.grafana.instance import Instance, Instances
from aiostream_ds.grafana.metrics import Gauges, exposition
from aiostream_ds.grafana.replies import Answer, Piece
from aiostream_ds.grafana.runs import join
from aiostream_ds.grafana.seam import INLINE_ROWS, Path, Seam
from aiostream_ds.grafana.sending import send_packets
from aiostream_ds.grafana.wire import (
    Call,
    GRPCError,
    Method,
    Status,
    server_stream,
    unary,
)
from aiostream_ds.plugin.guard import authors_code
from aiostream_ds.plugin.model import Health, User
from aiostream_ds.plugin.plan import split_view
from aiostream_ds.plugin.settings import convert as read
from aiostream_ds.telemetry import Counters, redact

__all__ = ["REFUSED_WAIT", "GrafanaService"]

log = logging.getLogger(__name__)


REFUSED_WAIT = 2.0
"""Seconds that RunStream waits before it says that the data source cannot be opened."""


class GrafanaService:
    """The handlers of all `pluginv2` services over one set of instances and one registry."""

    def __init__(self, instances: Instances, registry: ChannelRegistry, counters: Counters) -> None:
        self._instances = instances
        self._registry = registry
        self._counters = counters
        self._seam = Seam(registry, counters)
        self._arrow_ready = False

    def methods(self) -> Mapping[str, Method]:
        """The table that the server answers from."""
        kept: dict[type, Any] = {pb.PluginContext: remembering(pb.PluginContext)}

        def one(function: Any, request: type[betterproto2.Message], reply: type) -> Method:
            return unary(function, Decoder(request, kept), reply)

        def many(function: Any, request: type[betterproto2.Message], reply: type) -> Method:
            return server_stream(function, Decoder(request, kept), reply)

        return {
            "/pluginv2.Data/QueryData": one(
                self.query_data, pb.QueryDataRequest, pb.QueryDataResponse
            ),
            "/pluginv2.Data/QueryChunkedData": many(
                self.query_chunked_data, pb.QueryChunkedDataRequest, pb.QueryChunkedDataResponse
            ),
            "/pluginv2.Resource/CallResource": many(
                self.call_resource, pb.CallResourceRequest, pb.CallResourceResponse
            ),
            "/pluginv2.Diagnostics/CheckHealth": one(
                self.check_health, pb.CheckHealthRequest, pb.CheckHealthResponse
            ),
            "/pluginv2.Diagnostics/CollectMetrics": one(
                self.collect_metrics, pb.CollectMetricsRequest, pb.CollectMetricsResponse
            ),
            "/pluginv2.Stream/SubscribeStream": one(
                self.subscribe_stream, pb.SubscribeStreamRequest, pb.SubscribeStreamResponse
            ),
            "/pluginv2.Stream/RunStream": many(
                self.run_stream, pb.RunStreamRequest, pb.StreamPacket
            ),
            "/pluginv2.Stream/PublishStream": one(
                self.publish_stream, pb.PublishStreamRequest, pb.PublishStreamResponse
            ),
        }

    # -- queries -----------------------------------------------------------------------------

    async def query_data(self, request: pb.QueryDataRequest, call: Call) -> bytes:
        """All queries of a panel at once; one that fails leaves its neighbours alone."""
        answers: dict[str, Answer] = {}

        async def one(message: pb.DataQuery) -> None:
            answers[message.ref_id] = await self._query(request, message, "queryData")

        if len(request.queries) == 1:  # nearly always, and a task of its own costs more
            await one(request.queries[0])
        else:
            async with anyio.create_task_group() as tasks:
                for message in request.queries:
                    tasks.start_soon(one, message)
        return replies.query_data(answers)

    async def query_chunked_data(self, request: pb.QueryChunkedDataRequest, call: Call) -> None:
        """The same answers, each query's frames sent as soon as it is answered."""

        sending = anyio.Lock()  # a message that waits for the window is not to be cut by another

        async def one(message: pb.DataQuery) -> None:
            answer = await self._query(request, message, "queryChunkedData")
            for chunk in replies.chunks(message.ref_id, answer):
                async with sending:
                    await call.send(chunk)

        try:
            async with anyio.create_task_group() as tasks:
                for message in request.queries:
                    tasks.start_soon(one, message)
        except ExceptionGroup as group:
            raise unwrap(group) from None

    async def _query(
        self,
        request: pb.QueryDataRequest | pb.QueryChunkedDataRequest,
        message: pb.DataQuery,
        endpoint: str,
    ) -> Answer:
        try:
            with self._counted(endpoint):
                instance = await self._instances.get(request.plugin_context)
                context = convert.plugin_context(request.plugin_context)
                with authors_code():
                    frames = await queries.answer(self._seam, instance, context, message)
                encoded = [await self._encode(frame, request.format) for frame in frames]
            return Answer(200, encoded, form=request.format)
        except Exception as error:
            failed = self._outcome(error, "query", message.ref_id)
            return Answer(failed.status, error=failed.message, source=failed.source)

    async def _encode(self, frame: Frame, form: pb.DataFrameFormat) -> Sequence[Piece]:
        encode = _json_pieces if form == pb.DataFrameFormat.JSON else arrow.pieces
        if encode is arrow.pieces and not self._arrow_ready:
            # pyarrow's import alone would stall every stream for some 200 ms
            encoded = await anyio.to_thread.run_sync(encode, frame)
            self._arrow_ready = True
            return encoded
        if frame.rows > INLINE_ROWS:
            return await anyio.to_thread.run_sync(encode, frame)
        return encode(frame)

    # -- resources and diagnostics -------------------------------------------------------------

    async def call_resource(self, request: pb.CallResourceRequest, call: Call) -> None:
        """One HTTP request; the body may come in pieces."""
        try:
            with self._counted("callResource"):
                instance = await self._instances.get(request.plugin_context)
                context = convert.plugin_context(request.plugin_context)
                path = request.path.strip("/")
                if path == resources.SEAM_ROWS_PATH:
                    await call.send(await self._seam_rows(instance, context.user, request))
                else:
                    authorize_plain(instance, context.user, "resource", request.path)
                    if path == suggest.SUGGEST_PATH:
                        await call.send(await suggest.answer(instance, context.user, request))
                    else:
                        await resources.answer(instance, context, request, call)
        except StreamClosedError:
            raise  # nobody is there to be answered
        except Exception as error:
            failed = self._outcome(error, "resource", request.path)
            if call.sent:  # the status is out: all that is left is to end the call with an error
                raise convert.grpc_error(error) from None
            await call.send(resources.failure(failed.status, failed.message))

    async def _seam_rows(
        self, instance: Instance, user: User | None, request: pb.CallResourceRequest
    ) -> pb.CallResourceResponse:
        asked = resources.seam_request(request)
        _, at = _at(instance, asked.path)
        await authorize(at, user, "rows")
        return resources.json_body(await self._seam.rows_after(at, asked.after, asked.upto))

    async def check_health(
        self, request: pb.CheckHealthRequest, call: Call
    ) -> pb.CheckHealthResponse:
        """Save & test."""
        health = pb.CheckHealthResponseHealthStatus
        try:
            with self._counted("checkHealth"):
                instance = await self._instances.get(request.plugin_context)
                answer = await instance.source.health()
                if not isinstance(answer, Health) or not isinstance(answer.details, dict):
                    raise TypeError(f"health returned {answer!r}; allowed is a Health, with a dict")
                return pb.CheckHealthResponse(
                    status=health.OK if answer.ok else health.ERROR,
                    message=redact(answer.message),
                    json_details=_redacted_json(answer.details) if answer.details else b"",
                )
        except Exception as error:
            failed = self._outcome(error, "health", "")
            return pb.CheckHealthResponse(status=health.ERROR, message=failed.message)

    async def collect_metrics(
        self, request: pb.CollectMetricsRequest, call: Call
    ) -> pb.CollectMetricsResponse:
        """Prometheus text, of the streams that run now too."""
        gauges = Gauges.of(self._registry)
        text = await anyio.to_thread.run_sync(exposition, gauges, self._counters)
        return pb.CollectMetricsResponse(metrics=pb.CollectMetricsResponsePayload(prometheus=text))

    # -- streams -------------------------------------------------------------------------------

    async def subscribe_stream(self, request: pb.SubscribeStreamRequest, call: Call) -> bytes:
        """May this viewer follow this path? The answer never has rows: Grafana hands it out again
        at each reconnect, and they would appear twice."""
        answer = pb.SubscribeStreamResponseStatus
        try:
            with self._counted("subscribeStream"):
                exact, at = await self._path(request.plugin_context, request.path)
                user = convert.plugin_context(request.plugin_context).user
                await authorize(at, user)
                admit(at, user, self._counters)
                data = await self._seam.initial(at) if exact else self._initial(at)
        except Exception as error:
            return replies.subscribe_stream(answer[self._refusal(error, request.path)], b"")
        return replies.subscribe_stream(answer.OK, data)

    def _initial(self, at: Path) -> bytes:
        """Nothing: a packet without rows would let a panel's refresh draw its history twice. The
        schema comes with the rows instead, until this viewer has surely joined."""
        running = self._registry.peek(at.key)
        if running is not None:
            running.show_schema()
        return b""

    async def run_stream(self, request: pb.RunStreamRequest, call: Call) -> None:
        """Joins the path's one running stream and forwards its packets until either side ends."""
        try:
            instance = await self._opened(request.plugin_context)
            exact, at = _at(instance, request.path)
            subscription = join(self._registry, self._seam, at, self._counters, exact=exact)
        except Exception as error:
            if not isinstance(error, ChannelError):
                self._outcome(error, "stream", request.path)
            raise _stream_error(error) from None
        try:
            if exact:
                await send_exact(call, subscription, self._seam.feed(at, subscription))
            else:
                await send_packets(call, subscription)
        except ChannelError as error:
            raise _stream_error(error) from None
        finally:
            subscription.leave()

    async def _path(self, context: pb.PluginContext | None, path: str) -> tuple[bool, Path]:
        """Whether it is the exact view, and whose path it is. Raises NotFound for no stream's."""
        return _at(await self._instances.get(context), path)

    async def _opened(self, context: pb.PluginContext | None) -> Instance:
        """The instance; a failure is told late, since Grafana calls again at once for ever."""
        try:
            return await self._instances.get(context)
        except Exception:
            await anyio.sleep(REFUSED_WAIT)
            raise

    async def publish_stream(
        self, request: pb.PublishStreamRequest, call: Call
    ) -> pb.PublishStreamResponse:
        """A user sends data into a channel: denied unless the stream has a publish hook."""
        answer = pb.PublishStreamResponseStatus
        try:
            with self._counted("publishStream"):
                data = await self._publish(request)
        except Exception as error:
            return pb.PublishStreamResponse(status=answer[self._refusal(error, request.path)])
        return pb.PublishStreamResponse(status=answer.OK, data=data)

    async def _publish(self, request: pb.PublishStreamRequest) -> bytes:
        _, at = await self._path(request.plugin_context, request.path)
        hook = at.stream.publish
        if hook is None:
            raise PermissionDenied(f"nothing may be published to {request.path!r}")
        user = convert.plugin_context(request.plugin_context).user
        await authorize(at, user, "publish", "publish")
        try:
            value = read(convert.parse(request.data, "it"), hook.data)
        except (ValueError, BadQuery) as error:
            raise BadQuery(f"published data: {error}") from None
        given = (value, user) if hook.wants_user else (value,)
        result = await getattr(at.instance.source, hook.method)(*given, **at.arguments)
        return b"" if result is None else msgspec.json.encode(result)

    # -- common --------------------------------------------------------------------------------

    def _counted(self, endpoint: str) -> "_Counted":
        return _Counted(self._counters, endpoint)

    def _refusal(self, error: Exception, path: str) -> str:
        """The status that refuses a subscription or publication. Raises GRPCError for the rest."""
        self._outcome(error, "channel", path)
        inner = unwrap(error)
        if isinstance(inner, PluginError) and inner.subscribe_status:
            return inner.subscribe_status
        raise convert.grpc_error(inner) from None

    def _outcome(self, error: Exception, what: str, name: str) -> convert.Outcome:
        failed = convert.outcome(error)
        if failed.bug:
            log.error("%s %r failed", what, name, exc_info=error)
        else:
            cause = unwrap(error).__cause__
            log.info("%s %r: %s", what, name, failed.message, exc_info=cause)
        return failed


def _json_pieces(frame: Frame) -> Sequence[Piece]:
    return (json.encode(frame),)


def _redacted_json(details: dict[str, Any]) -> bytes:
    return redact(msgspec.json.encode(details).decode()).encode()


class _Counted:
    """Counts one call and how long it took, as `ok` or by the class of what it raised."""

    __slots__ = ("_counters", "_endpoint", "_started")

    def __init__(self, counters: Counters, endpoint: str) -> None:
        self._counters = counters
        self._endpoint = endpoint

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        if kind is None:
            status = "ok"
        elif not issubclass(kind, Exception):
            status = "cancelled"
        else:
            inner = unwrap(error)
            status = inner.source if isinstance(inner, PluginError) else "plugin"
        self._counters.count_request(self._endpoint, status, time.perf_counter() - self._started)


def _at(instance: Instance, channel_path: str) -> tuple[bool, Path]:
    exact, path = split_view(channel_path)
    stream, arguments = instance.source.plan.match(path)
    return exact, Path(instance, stream, path, arguments)


def _stream_error(error: Exception) -> GRPCError:
    """A failed run as the gRPC error that makes Grafana start it again."""
    if isinstance(error, StreamFailed):
        cause = error.__cause__ or error
        return convert.grpc_error(cause)
    if isinstance(error, ChannelError):
        return GRPCError(Status.UNAVAILABLE, str(error) or type(error).__name__)
    return convert.grpc_error(error)
