"""gRPC's own health service, which go-plugin's hosts may ask."""

from collections.abc import Mapping

import anyio

from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._grpc.server import Call, GRPCError, Status
from aiostream_ds._pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)

__all__ = ["methods"]

_SERVED = ("", "plugin")  # what the health service knows: the process, and go-plugin's name for it


def methods() -> Mapping[str, Method]:
    """`grpc.health.v1.Health`."""
    return {
        "/grpc.health.v1.Health/Check": unary(_check, HealthCheckRequest, HealthCheckResponse),
        "/grpc.health.v1.Health/Watch": server_stream(
            _watch, HealthCheckRequest, HealthCheckResponse
        ),
    }


async def _check(request: HealthCheckRequest, _: Call) -> HealthCheckResponse:
    if request.service not in _SERVED:
        raise GRPCError(Status.NOT_FOUND, f"there is no service {request.service!r}; ask 'plugin'")
    return HealthCheckResponse(status=HealthCheckResponseServingStatus.SERVING)


async def _watch(request: HealthCheckRequest, call: Call) -> None:
    known = request.service in _SERVED
    statuses = HealthCheckResponseServingStatus
    status = statuses.SERVING if known else statuses.SERVICE_UNKNOWN
    await call.send(HealthCheckResponse(status=status))
    await anyio.sleep_forever()
