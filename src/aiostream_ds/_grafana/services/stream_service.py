"""Stream: who may follow a channel, its rows, and what users publish into it."""

from collections.abc import Mapping

import anyio
import msgspec

from aiostream_ds._channels.registry import ChannelError, StreamFailed
from aiostream_ds._grafana import conversion as convert
from aiostream_ds._grafana import replies
from aiostream_ds._grafana.authorization import admit, authorize
from aiostream_ds._grafana.exact_delivery import send_exact
from aiostream_ds._grafana.instances import Instance
from aiostream_ds._grafana.packet_delivery import send_packets
from aiostream_ds._grafana.replay import ChannelRequest, resolve_channel
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grafana.stream_runs import join
from aiostream_ds._grpc.call import Call, GRPCError, Status
from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.errors import BadQuery, PermissionDenied
from aiostream_ds.settings import convert as read

__all__ = ["REFUSED_WAIT", "StreamService"]

REFUSED_WAIT = 2.0
"""Seconds that RunStream waits before it says that the data source cannot be opened."""


class StreamService(Service):
    """Answers `pluginv2.Stream`."""

    def methods(self) -> Mapping[str, Method]:
        """All three of the service's."""
        return {
            "/pluginv2.Stream/SubscribeStream": unary(
                self.subscribe_stream,
                self.decoder(pb.SubscribeStreamRequest),
                pb.SubscribeStreamResponse,
            ),
            "/pluginv2.Stream/RunStream": server_stream(
                self.run_stream, self.decoder(pb.RunStreamRequest), pb.StreamPacket
            ),
            "/pluginv2.Stream/PublishStream": unary(
                self.publish_stream,
                self.decoder(pb.PublishStreamRequest),
                pb.PublishStreamResponse,
            ),
        }

    async def subscribe_stream(self, request: pb.SubscribeStreamRequest, call: Call) -> bytes:
        """May this viewer follow this path? The answer never has rows: Grafana hands it out again
        at each reconnect, and they would appear twice."""
        answer = pb.SubscribeStreamResponseStatus
        try:
            with self.counted("subscribeStream"):
                exact, at = await self._path(request.plugin_context, request.path)
                user = convert.plugin_context(request.plugin_context).user
                await authorize(at, user)
                admit(at, user, self.counters)
                data = await self.replay.initial(at) if exact else self._initial(at)
        except Exception as error:
            return replies.subscribe_stream(answer[self.refusal(error, request.path)], b"")
        return replies.subscribe_stream(answer.OK, data)

    def _initial(self, at: ChannelRequest) -> bytes:
        """Nothing: a packet without rows would let a panel's refresh draw its history twice. The
        schema comes with the rows instead, until this viewer has surely joined."""
        running = self.registry.peek(at.key)
        if running is not None:
            running.show_schema()
        return b""

    async def run_stream(self, request: pb.RunStreamRequest, call: Call) -> None:
        """Joins the path's one running stream and forwards its packets until either side ends."""
        try:
            instance = await self._opened(request.plugin_context)
            exact, at = resolve_channel(instance, request.path)
            subscription = join(self.registry, self.replay, at, self.counters, exact=exact)
        except Exception as error:
            if not isinstance(error, ChannelError):
                self.outcome(error, "stream", request.path)
            raise _stream_error(error) from None
        try:
            if exact:
                await send_exact(call, subscription, self.replay.feed(at, subscription))
            else:
                await send_packets(call, subscription)
        except ChannelError as error:
            raise _stream_error(error) from None
        finally:
            subscription.leave()

    async def _path(
        self, context: pb.PluginContext | None, path: str
    ) -> tuple[bool, ChannelRequest]:
        """Whether it is the exact view, and whose path it is. Raises NotFound for no stream's."""
        return resolve_channel(await self.instances.get(context), path)

    async def _opened(self, context: pb.PluginContext | None) -> Instance:
        """The instance; a failure is told late, since Grafana calls again at once for ever."""
        try:
            return await self.instances.get(context)
        except Exception:
            await anyio.sleep(REFUSED_WAIT)
            raise

    async def publish_stream(
        self, request: pb.PublishStreamRequest, call: Call
    ) -> pb.PublishStreamResponse:
        """A user sends data into a channel: denied unless the stream has a publish hook."""
        answer = pb.PublishStreamResponseStatus
        try:
            with self.counted("publishStream"):
                data = await self._publish(request)
        except Exception as error:
            return pb.PublishStreamResponse(status=answer[self.refusal(error, request.path)])
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


def _stream_error(error: Exception) -> GRPCError:
    """A failed run as the gRPC error that makes Grafana start it again."""
    if isinstance(error, StreamFailed):
        cause = error.__cause__ or error
        return convert.grpc_error(cause)
    if isinstance(error, ChannelError):
        return GRPCError(Status.UNAVAILABLE, str(error) or type(error).__name__)
    return convert.grpc_error(error)
