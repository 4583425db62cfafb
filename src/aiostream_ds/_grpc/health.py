"""The standard gRPC health service, which a go-plugin host may call."""

from collections.abc import Mapping

import anyio

from aiostream_ds._grpc.call import Call, GRPCError, Status
from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)

__all__ = ["methods"]

_SERVICES = ("", "plugin")  # the whole process, and the service name that go-plugin registers


def methods() -> Mapping[str, Method]:
    """The methods of `grpc.health.v1.Health`."""
    return {
        "/grpc.health.v1.Health/Check": unary(_check, HealthCheckRequest, HealthCheckResponse),
        "/grpc.health.v1.Health/Watch": server_stream(
            _watch, HealthCheckRequest, HealthCheckResponse
        ),
    }


async def _check(request: HealthCheckRequest, _: Call) -> HealthCheckResponse:
    if request.service not in _SERVICES:
        raise GRPCError(
            Status.NOT_FOUND, f"service must be '' or 'plugin', got {request.service!r}"
        )
    return HealthCheckResponse(status=HealthCheckResponseServingStatus.SERVING)


async def _watch(request: HealthCheckRequest, call: Call) -> None:
    statuses = HealthCheckResponseServingStatus
    known = request.service in _SERVICES
    await call.send(
        HealthCheckResponse(status=statuses.SERVING if known else statuses.SERVICE_UNKNOWN)
    )
    await anyio.sleep_forever()
