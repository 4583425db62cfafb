"""Why a subscription ended, or could not begin. Imports the standard library only."""

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
    """Why a subscription ended, or could not begin. Grafana may call again: `grpc_status`."""

    grpc_status: ClassVar[str] = "UNAVAILABLE"


class ChannelClosed(ChannelError):
    """A packet was emitted into a channel that is told to close."""


class SlowSubscriber(ChannelError):
    """This reader was behind, and the policy is `full="fail"`."""


class StalledSubscriber(ChannelError):
    """This reader's mailbox was full, and it took nothing for the policy's `stall_timeout`."""


class Superseded(ChannelError):
    """The settings changed: the stream of the older settings has ended."""


class StreamStuck(ChannelError):
    """The former stream of this path has been cancelled and does not end."""


class ShuttingDown(ChannelError):
    """The plugin is stopping."""


class StreamFailed(ChannelError):
    """The stream raised: `__cause__` is what it raised. Each reader gets an error of its own."""

    grpc_status = "INTERNAL"
