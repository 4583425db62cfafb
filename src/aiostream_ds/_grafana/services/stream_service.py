"""Stream: subscriptions to channels, their packets, and publishing."""

from collections.abc import Mapping

import anyio

from aiostream_ds._author_code import message_of
from aiostream_ds._channels.exceptions import ChannelError, StreamFailed
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._grafana import conversion, replies
from aiostream_ds._grafana.authorization import admit, authorize, has_rules
from aiostream_ds._grafana.channel_request import ChannelRequest, resolve_channel
from aiostream_ds._grafana.exact_delivery import send_exact
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.packet_delivery import PacketWriter, send_packets
from aiostream_ds._grafana.publishing import publish
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grafana.stream_runs import join
from aiostream_ds._grpc.call import Call, GRPCError, Status, Unattended
from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import split_exact
from aiostream_ds.errors import BadQuery, PermissionDenied

__all__ = ["PUBLISH_LIMIT", "REFUSED_WAIT", "StreamService"]

PUBLISH_LIMIT = 1 << 20
"""Bytes of one publication."""

REFUSED_WAIT = 2.0
"""Seconds that RunStream waits before it fails when the data source cannot be opened."""


_SUBSCRIBED = replies.subscribe_stream(pb.SubscribeStreamResponseStatus.OK, b"")


class StreamService(Service):
    """Answers `pluginv2.Stream`."""

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        return {
            "/pluginv2.Stream/SubscribeStream": unary(
                self.subscribe_stream,
                self.decoder(pb.SubscribeStreamRequest),
                pb.SubscribeStreamResponse,
                self.begin_subscription,
            ),
            "/pluginv2.Stream/RunStream": server_stream(
                self.run_stream,
                self.decoder(pb.RunStreamRequest, {"plugin_context", "path"}),
                pb.StreamPacket,
                self.begin_stream,
            ),
            "/pluginv2.Stream/PublishStream": unary(
                self.publish_stream,
                self.decoder(pb.PublishStreamRequest),
                pb.PublishStreamResponse,
            ),
        }

    def begin_subscription(self, request: pb.SubscribeStreamRequest, call: Call) -> bool:
        """`subscribe_stream` without a task, if nothing has to be checked or waited for."""
        instance = self.instances.find_open(request.plugin_context)
        if instance is None or instance.source.quota is not None:
            return False
        try:
            channel = resolve_channel(instance, request.path)
        except Exception:
            return False  # `subscribe_stream` reports it
        if channel.exact or has_rules(instance, channel.stream):
            return False
        if not call.respond_nowait(_SUBSCRIBED):
            return False
        with self.counted("subscribeStream"):
            self._repeat_schema(channel)
        return True

    async def subscribe_stream(self, request: pb.SubscribeStreamRequest, call: Call) -> bytes:
        """Decide whether a viewer may subscribe to a path.

        The response never has rows: Grafana sends it again at each reconnect, so they would appear
        twice.
        """
        statuses = pb.SubscribeStreamResponseStatus
        try:
            with self.counted("subscribeStream"):
                channel = await self._resolve(request.plugin_context, request.path)
                user = conversion.user_of(request.plugin_context)
                await authorize(channel.instance, user, "subscribe", channel.path, channel=channel)
                admit(channel, user, self.counters)
                data = await self._initial_data(channel)
        except Exception as error:
            status = statuses[self.refusal_status(error, request.path)]
            return replies.subscribe_stream(status, b"")
        return replies.subscribe_stream(statuses.OK, data)

    async def _initial_data(self, channel: ChannelRequest) -> bytes:
        """The cursor of an exact channel. Another one has no initial data: a packet without rows
        would make a refreshed panel draw its history twice. Its next packets have the schema
        instead, until this viewer must have joined.
        """
        if channel.exact:
            return await self.replay.initial_data(channel)
        self._repeat_schema(channel)
        return b""

    def _repeat_schema(self, channel: ChannelRequest) -> None:
        running = self.registry.peek(channel.key)
        if running is not None:
            running.repeat_schema()

    def begin_stream(self, request: pb.RunStreamRequest, call: Call) -> bool:
        """`run_stream` without a task, which takes as long as the rest of opening a channel: if the
        instance is open. Not for an exact channel, which is written by a task."""
        instance = self.instances.find_open(request.plugin_context)
        if instance is None or split_exact(request.path)[0]:
            return False
        subscription = self._join(self._channel(instance, request.path))
        PacketWriter(call, subscription, _stream_error).begin()
        return True

    async def run_stream(self, request: pb.RunStreamRequest, call: Call) -> Unattended | None:
        """Join the path's channel and send its packets until either side ends."""
        try:
            instance = await self._instance(request.plugin_context)
        except Exception as error:
            self.log_error(error, "stream", request.path)
            raise _stream_error(error) from None
        channel = self._channel(instance, request.path)
        if channel.exact:
            await self.replay.learn_columns(channel)
        subscription = self._join(channel)
        if not channel.exact:
            return await send_packets(call, subscription, _stream_error)
        try:
            encoder = self.replay.packet_encoder(channel, subscription)
            await send_exact(call, subscription, encoder)
        except ChannelError as error:
            raise _stream_error(error) from None
        finally:
            subscription.leave()
        return None

    def _channel(self, instance: Instance, path: str) -> ChannelRequest:
        """The channel of a path. Raises GRPCError."""
        try:
            return resolve_channel(instance, path)
        except Exception as error:
            self.log_error(error, "stream", path)
            raise _stream_error(error) from None

    def _join(self, channel: ChannelRequest) -> Subscription:
        """Join a channel. Raises GRPCError."""
        try:
            return join(self.registry, self.replay, channel, self.counters)
        except Exception as error:
            if not isinstance(error, ChannelError):
                self.log_error(error, "stream", channel.path)
            raise _stream_error(error) from None

    async def _resolve(self, context: pb.PluginContext | None, path: str) -> ChannelRequest:
        """The channel of a path. Raises NotFound for an unknown path."""
        return resolve_channel(await self.instances.get(context), path)

    async def _instance(self, context: pb.PluginContext | None) -> Instance:
        """The instance. A failure is delayed, since Grafana calls again at once without end."""
        try:
            return await self.instances.get(context)
        except Exception:
            await anyio.sleep(REFUSED_WAIT)
            raise

    async def publish_stream(
        self, request: pb.PublishStreamRequest, call: Call
    ) -> pb.PublishStreamResponse:
        """Pass a user's data to the stream's publish hook; denied for a stream without one."""
        statuses = pb.PublishStreamResponseStatus
        try:
            with self.counted("publishStream"):
                data = await self._publish(request)
        except Exception as error:
            status = statuses[self.refusal_status(error, request.path)]
            return pb.PublishStreamResponse(status=status)
        return pb.PublishStreamResponse(status=statuses.OK, data=data)

    async def _publish(self, request: pb.PublishStreamRequest) -> bytes:
        channel = await self._resolve(request.plugin_context, request.path)
        if channel.stream.publish is None:
            raise PermissionDenied(f"{request.path!r} does not accept published data")
        if len(request.data) > PUBLISH_LIMIT:
            raise BadQuery(
                f"published data must have at most {PUBLISH_LIMIT:,} bytes, got "
                f"{len(request.data):,}"
            )
        user = conversion.user_of(request.plugin_context)
        await authorize(
            channel.instance, user, "publish", channel.path, channel=channel, action="publish"
        )
        return await publish(channel, request.data, user)


def _stream_error(error: Exception) -> GRPCError:
    """The gRPC error of a failed run. Grafana answers every one by calling RunStream again."""
    if isinstance(error, StreamFailed):
        cause = error.__cause__ or error
        return conversion.grpc_error(cause)
    if isinstance(error, ChannelError):
        return GRPCError(Status.UNAVAILABLE, message_of(error))
    return conversion.grpc_error(error)
