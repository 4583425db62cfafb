"""The log of a shared channel whose rows have no cursor: their numbers are the cluster's.

Each packet has the numbers of its rows, which the owner of the channel has given it. The log keeps
the newest packets in memory, within the same bounds on each node. On a node that does not follow
the channel it is read from the engine for each query.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from aiostream_ds._channels.log import LogSlice, MemoryLog
from aiostream_ds._channels.policy import Replay
from aiostream_ds._cluster.packet_codec import SharedMessage
from aiostream_ds._frames.packet import CursorRange, Packet, Schema

__all__ = ["SharedLog"]


class SharedLog:
    """A `Log` of packets that have numbers already.

    Args:
        replay: the bounds.
        epoch: the name of the numbering until a packet has another one.
        generation: see `Log.generation`.
        read: appends to this log what the engine has, as far as it can be reached.

    Attributes:
        is_live: whether this node follows the channel, so that all its packets are appended.
        schema: the newest that was read from the engine.
    """

    __slots__ = ("_kept", "_read", "_replay", "generation", "is_live", "schema")

    def __init__(
        self,
        replay: Replay,
        epoch: str,
        generation: int,
        read: "Callable[[SharedLog], Awaitable[None]]",
    ) -> None:
        self.generation = generation
        self.is_live = False
        self.schema: Schema | None = None
        self._replay = replay
        self._read = read
        self._kept = MemoryLog(replay, epoch, generation)

    @property
    def epoch(self) -> str:
        """See `Log.epoch`."""
        return self._kept.epoch

    @property
    def keep(self) -> float:
        """See `Log.keep`."""
        return self._replay.keep

    @property
    def first(self) -> int:
        """See `Log.first`."""
        return self._kept.first

    @property
    def last(self) -> int:
        """See `Log.last`."""
        return self._kept.last

    @property
    def cursors(self) -> CursorRange:
        """The number of the newest row."""
        return CursorRange(self.epoch, self.last, self.last)

    def append(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> None:
        """See `Log.append`. Ignores packets that are kept already. Those of a stream that is not
        shared, since the cluster cannot be used, get the next numbers."""
        for packet in packets:
            if not packet.rows:
                continue
            cursors = packet.cursors
            if cursors is None:
                cursors = CursorRange(self.epoch, self.last, self.last + packet.rows)
            if cursors.epoch == self.epoch and cursors.last <= self.last:
                continue
            self.begin(CursorRange(cursors.epoch, cursors.prev, cursors.prev))
            self._kept.append((packet,), packet.rows, len(packet.data), now)

    def append_message(self, message: SharedMessage, now: float) -> None:
        """Append the packets of a message that was sent earlier."""
        age = max(time.time() - message.sent_ms / 1000, 0.0)
        self.append(message.packets, 0, 0, now - age)
        if message.cursors is not None:
            self.begin(message.cursors)

    def begin(self, cursors: CursorRange) -> None:
        """The next row follows the last one of these, if that is not kept already: rows between are
        lost, or the numbering is another one. Nothing that is kept precedes it then."""
        if cursors.epoch != self.epoch or cursors.last > self.last:
            self._kept = MemoryLog(self._replay, cursors.epoch, self.generation)
            self._kept.last = cursors.last

    def restart(self) -> None:
        """The engine has lost rows that are kept here: their numbers may be given to other rows."""
        self._kept = MemoryLog(self._replay, self.epoch, self.generation)

    async def refresh(self) -> None:
        """See `Log.refresh`."""
        if not self.is_live:
            await self._read(self)

    async def after(self, cursor: int, now: float, upto: int | None = None) -> LogSlice:
        """See `Log.after`."""
        return await self._kept.after(cursor, now, upto)
