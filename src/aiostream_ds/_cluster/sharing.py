"""What a channel of a cluster gives and takes: messages of its upstream, and where they go to.

The caller of `ClusterNode.run_channel` implements `Source` and `Sink`.
"""

import enum
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple, Protocol

from aiostream_ds._frames.packet import CursorRange

__all__ = ["Incoming", "Outgoing", "Role", "Sink", "UpstreamSource"]


class Role(enum.Enum):
    """What this node is for a channel.

    JOINING: it is not known yet who owns the channel. LOCAL: the engine is away, so this node runs
    an upstream of its own.
    """

    JOINING = "joining"
    OWNER = "owner"
    FOLLOWER = "follower"
    LOCAL = "local"


class Outgoing(NamedTuple):
    """A message of the upstream, for every node.

    Attributes:
        payload: bytes for the sinks; not empty.
        schema: what sinks need in order to read the payload. None: as before; the first message of
            a run of the source sets it, unless the channel has no schema.
        cursors: the cursors of the payload's rows, if the upstream can be read again from a cursor.
            With these, nothing is lost or repeated when ownership moves, or when the engine is away
            or loses writes. Without these, rows are lost while no node reads the upstream.
    """

    payload: bytes
    schema: bytes | None = None
    cursors: CursorRange | None = None


class Incoming(NamedTuple):
    """A message for the subscribers of this node, in the order of the log.

    Attributes:
        payload: as given by the source of the owner.
        schema: of this payload. The same object as before if it has not changed.
        cursors: as given by the source of the owner.
        after: skip the rows of this payload whose cursor is not greater: they were received in an
            earlier message. None: all rows are new.
    """

    payload: bytes
    schema: bytes | None
    cursors: CursorRange | None
    after: int | None = None


UpstreamSource = Callable[[Incoming | None], AsyncGenerator[Outgoing, None]]
"""Opens the upstream: called each time that this node becomes the owner of the channel, runs an
upstream of its own, or needs rows that the log does not have any more. The argument is the last
message that is in the log, or was received: the upstream is read again from there if possible.
None: from now.

The generator is asked for the next message when the previous one is in the log: what arrives
meanwhile belongs in one message. It is closed in the task that has called `run_channel`, or in one
that this has started; an error that it raises ends `run_channel` on this node, and another node
takes the channel. When it ends without one, `run_channel` returns on all nodes."""


class Sink(Protocol):
    """Where the messages of a channel go to, on each node. The methods must not wait or raise. They
    are called in the event loop, `joined` first, and not after `run_channel` has returned."""

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None:
        """The channel was joined. `tail`: the newest messages of its log, oldest first; subscribers
        that were there before have received these. Called once."""

    def receive(self, message: Incoming) -> None:
        """A message, each one once and in order, also on the owner: it is in the log."""

    def reset(self, reason: str) -> None:
        """Between the previous message and the next one, some are missing or repeated. With cursors
        never repeated."""

    def role(self, role: Role, owner: str) -> None:
        """The role of this node has changed, or the owner. `owner`: name of a node; empty: none."""

    def degraded(self, reason: str | None) -> None:
        """The engine cannot be reached: this node runs an upstream of its own, and its subscribers
        do not get what those of other nodes get. None: this is over."""
