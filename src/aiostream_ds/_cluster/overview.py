"""What an operator sees of a cluster: its nodes and channels, as the engine has them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["ChannelOverview", "ClusterOverview", "HasOverview"]


class ChannelOverview(NamedTuple):
    """A channel, or the log that is left of one.

    Attributes:
        channel: its name.
        owner: the node that owns it; empty: none, or one whose lease has ended.
        term: of the last owner.
        subscribed: the nodes with subscribers and a valid lease.
        entries: how many messages its log has.
        size: their bytes; None: unknown.
        left: seconds for which the log is kept, since nobody uses the channel; None: it is in use,
            or nodes have died without giving it up.
    """

    channel: str
    owner: str
    term: int
    subscribed: frozenset[str]
    entries: int
    size: int | None
    left: float | None


class ClusterOverview(NamedTuple):
    """All nodes with a valid lease, and all channels."""

    nodes: frozenset[str]
    channels: Sequence[ChannelOverview]


class HasOverview(Protocol):
    """An engine, as far as an overview needs it."""

    async def open_to_look(self) -> None:
        """Connect, and change nothing at the server. Raises ConfigError and EngineError."""

    async def aclose(self) -> None: ...

    async def overview(self) -> ClusterOverview:
        """Read all nodes and channels. Raises EngineError."""
