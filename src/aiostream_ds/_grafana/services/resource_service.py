"""Resource: HTTP requests to an author's routes, and the two of our own."""

from collections.abc import Mapping

from aiostream_ds._grafana import conversion as convert
from aiostream_ds._grafana import http_resources as resources
from aiostream_ds._grafana import suggestions as suggest
from aiostream_ds._grafana.authorization import authorize, authorize_plain
from aiostream_ds._grafana.instances import Instance
from aiostream_ds._grafana.replay import resolve_channel
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, server_stream
from aiostream_ds._http2.stream import StreamClosedError
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.models import User

__all__ = ["ResourceService"]


class ResourceService(Service):
    """Answers `pluginv2.Resource`."""

    def methods(self) -> Mapping[str, Method]:
        """The only one."""
        return {
            "/pluginv2.Resource/CallResource": server_stream(
                self.call_resource, self.decoder(pb.CallResourceRequest), pb.CallResourceResponse
            ),
        }

    async def call_resource(self, request: pb.CallResourceRequest, call: Call) -> None:
        """One HTTP request; the body may come in pieces."""
        try:
            with self.counted("callResource"):
                instance = await self.instances.get(request.plugin_context)
                context = convert.plugin_context(request.plugin_context)
                path = request.path.strip("/")
                if path == resources.REPLAY_ROWS_PATH:
                    await call.send(await self._replay_rows(instance, context.user, request))
                else:
                    authorize_plain(instance, context.user, "resource", request.path)
                    if path == suggest.SUGGEST_PATH:
                        await call.send(await suggest.answer(instance, context.user, request))
                    else:
                        await resources.answer(instance, context, request, call)
        except StreamClosedError:
            raise  # nobody is there to be answered
        except Exception as error:
            failed = self.outcome(error, "resource", request.path)
            if call.sent:  # the status is out: all that is left is to end the call with an error
                raise convert.grpc_error(error) from None
            await call.send(resources.failure(failed.status, failed.message))

    async def _replay_rows(
        self, instance: Instance, user: User | None, request: pb.CallResourceRequest
    ) -> pb.CallResourceResponse:
        asked = resources.replay_request(request)
        _, at = resolve_channel(instance, asked.path)
        await authorize(at, user, "rows")
        return resources.json_body(await self.replay.rows_after(at, asked.after, asked.upto))
