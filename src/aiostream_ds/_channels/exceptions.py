"""Why a subscription ended, or could not begin."""

from typing import ClassVar

__all__ = [
    "ChannelClosed",
    "ChannelError",
    "ShuttingDown",
    "SlowSubscriber",
    "StalledSubscriber",
    "StreamFailed",
    "StreamStuck",
    "Superseded",
]


class ChannelError(Exception):
    """Base class. Grafana calls RunStream again after an error with the status `grpc_status`."""

    grpc_status: ClassVar[str] = "UNAVAILABLE"


class ChannelClosed(ChannelError):
    """A packet was emitted into a channel that is closing or closed."""


class SlowSubscriber(ChannelError):
    """The subscription's queue was full, and the policy is `full="fail"`."""


class StalledSubscriber(ChannelError):
    """The queue overflowed, and its subscriber took nothing for `Buffer.stall_timeout` seconds."""


class Superseded(ChannelError):
    """The settings changed: the stream of the older settings has ended."""


class StreamStuck(ChannelError):
    """The previous stream of this path has been cancelled and does not end."""


class ShuttingDown(ChannelError):
    """The plugin is stopping."""


class StreamFailed(ChannelError):
    """The stream raised; `__cause__` is its exception. Each subscriber gets its own object."""

    grpc_status = "INTERNAL"
