"""The interface of a cluster engine: what Redis or NATS does for the plugin processes of a cluster.

An engine has, for each channel, an owner with a term, a bounded log of entries, and the set of
nodes with subscribers. It decides nothing by itself: `take` and `append` are compare-and-set
operations of the server, so that two nodes cannot both succeed.

    node lease      one for each process, renewed; what a dead node owned can be taken
    term            grows with each take; the owner of a term is its only writer
    entry id        (term, number): orders the log, and refuses a writer whose term is over

Clocks of nodes are not compared. All times are of the server.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "LARGEST_NUMBER",
    "READ_BYTES",
    "START",
    "Appended",
    "Engine",
    "EngineError",
    "Entry",
    "EntryId",
    "EntryTooLarge",
    "Event",
    "Fenced",
    "LogLost",
    "LogPage",
    "Ownership",
    "Reconnected",
    "Resigned",
    "Sent",
    "Watched",
]


class EntryId(NamedTuple):
    """The place of an entry in its log. The first entry of a term has the number 0."""

    term: int
    number: int


START = EntryId(0, 0)
"""Before the first entry of a log."""

LARGEST_NUMBER = (1 << 63) - 1
"""An entry of this number is after all others of its term, and before the next one."""

READ_BYTES = 4 << 20
"""A page ends with the entry with which it has so many bytes: memory is bounded by this and the
largest entry, however long the log is."""


class Entry(NamedTuple):
    """An entry of a log. `previous` is the id of the entry before it, also if that is removed."""

    id: EntryId
    previous: EntryId
    payload: bytes


class LogPage(NamedTuple):
    """Consecutive entries, oldest first. `last` is that of the whole log, which is empty if it is
    START. `truncated`: entries after the requested id were removed."""

    entries: Sequence[Entry]
    last: EntryId
    truncated: bool

    @property
    def start(self) -> EntryId:
        """The entry before the first one; of a page without entries the last of the log."""
        return self.entries[0].previous if self.entries else self.last

    @property
    def is_end(self) -> bool:
        """Whether the log had no further entries."""
        return not self.entries or self.entries[-1].id >= self.last


class Ownership(NamedTuple):
    """The answer to `take`: the owner and its term. `taken`: this call has made it the owner, and
    its first entry is in the log. `last`: the entry before that, or if not taken, the last entry of
    the log; START when there is none."""

    node: str
    term: int
    taken: bool
    last: EntryId


class Watched(NamedTuple):
    """The answer to `watched`. `connection`: over which the server was asked. Another one may lead
    to another server, or to one that has started again."""

    connection: int
    is_watched: bool


class EngineError(Exception):
    """The engine cannot be reached or does not answer in time. The operation may have happened."""


class Fenced(Exception):
    """Another node has taken the channel: this term is over."""


class LogLost(Exception):
    """The log of the channel is gone, or ends before entries that were acknowledged: the engine has
    lost writes. The owner takes the channel again and appends what it still has."""


class EntryTooLarge(Exception):
    """The server does not take an entry of this size."""


class Appended(NamedTuple):
    """An entry was appended to a channel that this node watches. Some may be missing between two of
    these: compare `entry.previous`, and read the log."""

    channel: str
    entry: Entry


class Resigned(NamedTuple):
    """The owner of a watched channel has given it up: it can be taken at once."""

    channel: str
    term: int


class Sent(NamedTuple):
    """A message was sent to a watched channel. It is in no log."""

    channel: str
    payload: bytes


class Reconnected(NamedTuple):
    """The connection was lost and is back, and watches what it did. Entries may have been missed in
    every channel, and the server may have lost some."""


Event = Appended | Resigned | Sent | Reconnected


class Engine(Protocol):
    """A connection of one node to the engine. A channel is a text of letters, digits and `-_.`.

    Not thread-safe: use it in one event loop. All methods may be cancelled: the operation may have
    happened then. Unless stated otherwise they raise EngineError after a few seconds at most; a
    connection that was lost is opened again by itself, without end.
    """

    name: str
    """As in settings and metrics: `redis` or `nats`."""

    async def open(self) -> None:
        """Connect, and check that the server is fit for this: version, rights, eviction policy.

        Raises:
            ConfigError: what has to change in the settings or at the server.
        """

    async def aclose(self) -> None:
        """Close the connection. The node's lease is left to expire; see `release`."""

    # -- the node's lease ----------------------------------------------------------------------

    async def renew(self, node: str, seconds: float) -> None:
        """Make the lease of a node valid for `seconds` from now, of the server's time."""

    async def release(self, node: str) -> None:
        """End the lease: everything that the node owns can be taken."""

    # -- the leases of other nodes -------------------------------------------------------------

    async def nodes(self) -> Mapping[str, float]:
        """The nodes with a valid lease, and how many seconds ago each was renewed."""

    async def end_lease(self, node: str, age: float) -> None:
        """End the lease of another node, which has crashed. Without an effect if the lease was
        renewed less than `age` seconds ago."""

    # -- ownership -----------------------------------------------------------------------------

    async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        """Become the owner, if there is none, or its lease has ended, or it is this node itself.

        One operation of the server: it chooses a term above all terms and entries of the channel,
        and appends the payload as the first entry of that term. Without an effect when another
        node with a valid lease owns the channel. Idempotent for one payload: a call that is
        repeated because its answer was lost returns the term that it has made, and the same `last`.

        Several nodes may take a channel under one name that never has a lease: each call with
        another payload appends an entry then, in an order that the server decides. `last` is
        another entry than the caller knows if another node was faster.

        Followers call it now and then in order to compare the owner and the end of the log with
        what they know: without an effect it should cost no more than `read`.
        """

    async def resign(self, channel: str, node: str, term: int) -> None:
        """Give the channel up, if this node owns it in this term; the nodes that watch it get
        `Resigned`."""

    # -- the log -------------------------------------------------------------------------------

    async def append(
        self, channel: str, entry: Entry, schema: bytes | None = None, start: bytes | None = None
    ) -> None:
        """Append an entry in its term; the nodes that watch the channel get `Appended`.

        Idempotent: an entry that is in the log already, with the same payload, is not an error.
        One call at a time for a channel; calls for several channels are sent together.

        Args:
            channel: the channel.
            entry: `previous` is the entry that this node has appended before.
            schema: replaces the schema of the channel, which `schema` returns.
            start: the payload with which the term was taken. A server that has lost writes, and
                whose clock was set back, may give the number of a term out again: it refuses the
                writer of the lost one. None: not compared.

        Raises:
            Fenced: another term has begun, also one of this number; or an entry with another
                payload has this id.
            LogLost: the log ends before `previous`, or is gone: the server has lost entries.
            EntryTooLarge: the payload is too large.
        """

    async def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        """The oldest entries after an id: `limit` at most, and fewer if they are larger than
        `READ_BYTES` together. See `LogPage.is_end`."""

    async def schema(self, channel: str) -> bytes | None:
        """What the last `append` with a schema has set; also if that entry is removed."""

    # -- presence ------------------------------------------------------------------------------

    async def enter(self, channel: str, node: str) -> None:
        """This node has subscribers of the channel. Counts while its lease is valid."""

    async def leave(self, channel: str, node: str) -> None:
        """This node has none any more."""

    async def members(self, channel: str) -> frozenset[str]:
        """The nodes with subscribers whose leases are valid."""

    # -- notifications -------------------------------------------------------------------------

    async def watch(self, channel: str) -> None:
        """Get the events of a channel. When this returns, no later entry is missed, except over a
        lost connection."""

    async def unwatch(self, channel: str) -> None:
        """Get no further events of a channel."""

    async def send(self, channel: str, payload: bytes) -> None:
        """The nodes that watch the channel get `Sent`, this one too; at most once each, since
        nothing of it is kept.

        Raises:
            EntryTooLarge: the server does not take a payload of this size.
        """

    async def watched(self, channel: str) -> Watched:
        """Whether a connection watches the channel, of this process or another one: that of a
        process that has ended does not. Yes, if the server does not know it. Those that watch the
        channel may get `Sent` without a payload.

        Raises:
            EngineError: also if the user lacks the right to ask.
        """

    def events(self) -> AsyncIterator[Event]:
        """The events of all watched channels, in the order of each channel. One task reads them."""
