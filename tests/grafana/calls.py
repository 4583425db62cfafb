"""Calls that the in-memory Grafana does not make: many queries in one request, many RunStreams on
one path, invalid messages."""

from contextlib import asynccontextmanager, suppress

import msgspec
from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
from h2.exceptions import StreamClosedError

from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.models import User

ANN = User(login="ann", role="Viewer")
BEN = User(login="ben", role="Editor")


async def unary(grafana, method, request, reply):
    rpc = UnaryUnaryMethod(grafana._channel, f"/pluginv2.{method}", type(request), reply)
    return await rpc(request)


def a_query(ref_id="A", kind="", fields=None, *, json=None, start=0, end=60_000, points=1000):
    return pb.DataQuery(
        ref_id=ref_id,
        query_type=kind,
        max_data_points=points,
        interval_ms=1000,
        time_range=pb.TimeRange(from_epoch_ms=start, to_epoch_ms=end),
        json=msgspec.json.encode(fields or {}) if json is None else json,
    )


async def query_data(grafana, *queries, form=pb.DataFrameFormat.JSON, user=ANN, uid=""):
    context = grafana.context(user)
    if uid:  # another data source of the same class and settings
        context.data_source_instance_settings.uid = uid
    request = pb.QueryDataRequest(plugin_context=context, queries=list(queries), format=form)
    return (await unary(grafana, "Data/QueryData", request, pb.QueryDataResponse)).responses


async def chunks(grafana, *queries, form=pb.DataFrameFormat.JSON):
    request = pb.QueryChunkedDataRequest(
        plugin_context=grafana.context(ANN), queries=list(queries), format=form
    )
    rpc = UnaryStreamMethod(
        grafana._channel,
        "/pluginv2.Data/QueryChunkedData",
        pb.QueryChunkedDataRequest,
        pb.QueryChunkedDataResponse,
    )
    return await rpc(request)


async def subscribe(grafana, path, user=ANN):
    request = pb.SubscribeStreamRequest(plugin_context=grafana.context(user), path=path)
    return await unary(grafana, "Stream/SubscribeStream", request, pb.SubscribeStreamResponse)


async def publish(grafana, path, data, user=ANN):
    request = pb.PublishStreamRequest(plugin_context=grafana.context(user), path=path, data=data)
    return await unary(grafana, "Stream/PublishStream", request, pb.PublishStreamResponse)


@asynccontextmanager
async def run_stream(grafana, path, user=ANN, context=None):
    """One RunStream; it is reset if the block ends before the stream."""
    rpc = UnaryStreamMethod(
        grafana._channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
    )
    async with rpc.open() as call:
        context = context or grafana.context(user)
        await call.send_message(pb.RunStreamRequest(plugin_context=context, path=path), end=True)
        try:
            yield call
        finally:
            await leave(call)


@asynccontextmanager
async def resource_call(grafana, path, method="GET"):
    """One CallResource, read message by message."""
    rpc = UnaryStreamMethod(
        grafana._channel,
        "/pluginv2.Resource/CallResource",
        pb.CallResourceRequest,
        pb.CallResourceResponse,
    )
    async with rpc.open() as call:
        request = pb.CallResourceRequest(
            plugin_context=grafana.context(ANN), path=path, method=method, url=path
        )
        await call.send_message(request, end=True)
        try:
            yield call
        finally:
            await leave(call)


async def leave(call):
    """Reset a call that has not ended; grpclib would wait for its end."""
    if not call._cancel_done:
        with suppress(StreamClosedError):
            await call.cancel()
