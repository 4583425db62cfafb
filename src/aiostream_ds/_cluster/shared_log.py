"""The log of a shared channel whose rows have no cursor: their numbers are the cluster's.

Each packet has the numbers of its rows, which the owner of the channel has given it. The log keeps
the newest packets in memory, within the same bounds on each node.
"""

from collections.abc import Sequence

from aiostream_ds._channels.log import LogSlice, MemoryLog
from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import CursorRange, Packet

__all__ = ["SharedLog"]


class SharedLog:
    """A `Log` of packets that have numbers already.

    Args:
        replay: the bounds.
        epoch: the name of the numbering until a packet has another one.
        generation: see `Log.generation`.
    """

    __slots__ = ("_kept", "_replay", "generation")

    def __init__(self, replay: Replay, epoch: str, generation: int) -> None:
        self.generation = generation
        self._replay = replay
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
        """See `Log.append`. Ignores packets without numbers, and those that are kept already."""
        for packet in packets:
            cursors = packet.cursors
            if cursors is None or not packet.rows:
                continue
            if cursors.epoch == self.epoch and cursors.last <= self.last:
                continue
            if cursors.epoch != self.epoch or cursors.prev != self.last:
                self.begin(CursorRange(cursors.epoch, cursors.prev, cursors.prev))
            self._kept.append((packet,), packet.rows, len(packet.data), now)

    def begin(self, cursors: CursorRange) -> None:
        """The next row follows the last one of these; rows between are lost, or the numbering is
        another one: nothing that is kept precedes it."""
        if cursors.epoch != self.epoch or cursors.last != self.last:
            self._kept = MemoryLog(self._replay, cursors.epoch, self.generation)
            self._kept.last = cursors.last

    async def refresh(self) -> None:
        """See `Log.refresh`."""

    async def after(self, cursor: int, now: float, upto: int | None = None) -> LogSlice:
        """See `Log.after`."""
        return await self._kept.after(cursor, now, upto)
