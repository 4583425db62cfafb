"""The gRPC services that go-plugin requires of a plugin: health, controller, broker, stdio."""

from collections.abc import Callable, Mapping
from typing import Any

import anyio

from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, Services, bidi_stream, server_stream, unary
from aiostream_ds._pb import plugin as pb
from aiostream_ds._pb.google.protobuf import Empty

__all__ = ["host_services"]


def host_services(stop: Callable[[], None] | None) -> Services:
    """The services, for `Server`.

    `stop` is called once the response to Shutdown is written. With None, for a process that the
    host has not started, Shutdown has no effect.
    """

    async def shutdown(_: pb.Empty, call: Call) -> pb.Empty:
        if stop is not None:
            call.when_done(stop)
        return pb.Empty()

    return {
        "grpc.health.v1.Health": _health,
        "plugin.GRPCController": lambda: {
            "/plugin.GRPCController/Shutdown": unary(shutdown, pb.Empty, pb.Empty)
        },
        "plugin.GRPCBroker": lambda: {
            "/plugin.GRPCBroker/StartStream": bidi_stream(_broker, pb.ConnInfo, pb.ConnInfo)
        },
        "plugin.GRPCStdio": lambda: {
            "/plugin.GRPCStdio/StreamStdio": server_stream(_stdio, Empty, pb.StdioData)
        },
    }


def _health() -> Mapping[str, Method]:
    from aiostream_ds._grpc import health  # Grafana never calls it

    return health.methods()


async def _broker(_: None, call: Call) -> None:
    """The host opens this stream at once. The plugin opens no connections with it."""
    while await call.receive() is not None:
        pass


async def _stdio(_: Any, __: Call) -> None:
    """Stays open without data: output goes to the host's stderr as log lines instead."""
    await anyio.sleep_forever()
