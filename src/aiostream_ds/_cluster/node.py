"""A process of the cluster: its lease, its channels, and their events."""

from types import TracebackType
from typing import NamedTuple, Self

from aiostream_ds._cluster.engine import Engine
from aiostream_ds._cluster.sharing import Role, Sink, UpstreamSource

__all__ = ["ChannelState", "ClusterNode", "NodeState"]


class ChannelState(NamedTuple):
    """A channel of this node, for metrics. `lag`: entries of the log that are known to exist and
    were not received yet. `owner` is empty if unknown."""

    role: Role
    owner: str
    term: int
    lag: int


class NodeState(NamedTuple):
    """A node, for metrics. Counters grow from the start of the process.

    Attributes:
        engine: name of the engine.
        connected: whether the lease is valid.
        reason: why not; empty if it is.
        lease_age: seconds since the lease was last renewed; infinite before the first time.
        round_trip: seconds that the last renewal took.
        nodes: names of all nodes with a valid lease.
        takeovers: channels that this node has taken.
        fencings: channels that another node has taken while this node was their owner.
        losses: how often the engine had lost entries of a channel that this node owns.
        resets: how often subscribers of this node have missed messages.
        degraded: how often this node has lost the engine.
        too_large: messages that the engine did not take because of their size.
    """

    engine: str
    connected: bool
    reason: str
    lease_age: float
    round_trip: float
    nodes: frozenset[str]
    takeovers: int
    fencings: int
    losses: int
    resets: int
    degraded: int
    too_large: int


class ClusterNode:
    """One process of a cluster. An async context manager: its tasks run inside.

    Not thread-safe: use it in one event loop.

    Args:
        engine: opened when the context is entered, and closed when it is left.
        name: unique for each start of a process, as in `server-1-5f0c2a`.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    async def __aenter__(self) -> Self:
        """Open the engine, and get a lease.

        Raises:
            ConfigError: the server cannot be used; the message has what to change. A server that
                cannot be reached is not an error: the node is degraded until it can.
        """
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give all channels up, and the lease."""
        raise NotImplementedError

    async def run_channel(self, channel: str, source: UpstreamSource, sink: Sink) -> None:
        """Share a channel with the other nodes, as long as this node has subscribers.

        Returns when the source of the owner has ended, or as `set_subscribed` describes. Cancel it
        to leave at once: an owner closes its source first and then gives the channel up, so that
        another node with subscribers takes it within a round trip.

        Raises:
            RuntimeError: the channel runs on this node already.
            Exception: what the source has raised on this node.
        """
        raise NotImplementedError

    def set_subscribed(self, channel: str, subscribed: bool) -> None:
        """Whether this node has subscribers of the channel; at first it does.

        Without any, `run_channel` returns: on a follower at once; on the owner when no other node
        has had subscribers for the node's `grace`, so that the upstream goes on for these.
        """
        raise NotImplementedError

    @property
    def state(self) -> NodeState:
        """The lease and the counters of this node."""
        raise NotImplementedError

    def channels(self) -> dict[str, ChannelState]:
        """The state of each channel that runs on this node."""
        raise NotImplementedError
