"""Resource: HTTP requests to an author's `@resource` methods and the runtime's two resources."""

from collections.abc import Mapping

from aiostream_ds._grafana import conversion, suggestions
from aiostream_ds._grafana import http_resources as resources
from aiostream_ds._grafana.authorization import authorize
from aiostream_ds._grafana.channel_request import resolve_channel
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, server_stream
from aiostream_ds._http2.protocol_errors import StreamClosedError
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.errors import ConfigError
from aiostream_ds.models import User

__all__ = ["ResourceService"]


class NotOpen(ConfigError):
    """The data source of a request cannot be opened: not the request must be changed, and the same
    one may succeed when an admin has changed the settings."""

    status = 503


class ResourceService(Service):
    """Answers `pluginv2.Resource`."""

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        return {
            "/pluginv2.Resource/CallResource": server_stream(
                self.call_resource, self.decoder(pb.CallResourceRequest), pb.CallResourceResponse
            ),
        }

    async def call_resource(self, request: pb.CallResourceRequest, call: Call) -> None:
        """Answer one HTTP request; the response body may be streamed."""
        try:
            with self.counted("callResource"):
                instance = await self._open_instance(request.plugin_context)
                context = conversion.plugin_context(request.plugin_context)
                path = request.path.strip("/")
                if path == resources.REPLAY_ROWS_PATH:
                    await call.send(await self._replay_rows(instance, context.user, request))
                else:
                    await authorize(instance, context.user, "resource", request.path)
                    if path == suggestions.SUGGEST_PATH:
                        await call.send(await suggestions.answer(instance, context.user, request))
                    else:
                        with instance.in_use():  # it may stream for longer than an idle hour
                            await resources.answer(instance, context, request, call)
        except StreamClosedError:
            raise  # the caller has gone
        except Exception as error:
            response = self.log_error(error, "resource", request.path)
            if call.sent:  # the status has been sent: only the call itself can fail now
                raise conversion.grpc_error(error) from None
            await call.send(resources.failure(response.status, response.message))

    async def _open_instance(self, context: pb.PluginContext | None) -> Instance:
        """The data source of a call. Raises NotOpen if an admin must change its settings."""
        try:
            return await self.instances.get(context)
        except ConfigError as error:
            if context is None or context.data_source_instance_settings is None:
                raise
            raise NotOpen(error.message) from error.__cause__

    async def _replay_rows(
        self, instance: Instance, user: User | None, request: pb.CallResourceRequest
    ) -> pb.CallResourceResponse:
        wanted = resources.replay_request(request)
        channel = resolve_channel(instance, wanted.path)
        await authorize(instance, user, "rows", channel.path, channel=channel)
        return resources.json_body(await self.replay.rows_after(channel, wanted.after, wanted.upto))
