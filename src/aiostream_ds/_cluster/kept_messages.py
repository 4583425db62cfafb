"""The newest messages of a log, in case the engine loses them."""

from aiostream_ds._cluster.entries import ChannelMessage, MessageId
from aiostream_ds._frames.packet import CursorRange

__all__ = ["KeptMessages"]

_MOST = 256
_MOST_BYTES = 64 * 1024
_FEWEST = 4  # of any size: a message of many rows has more bytes than that


class KeptMessages:
    """Messages in the order of the log, as it was last read.

    When a log is read again that has changed, those are lost that are not found in it. Later ones
    may be in it: an earlier owner, whose term the engine has again, goes on without them. With
    cursors these are not lost if the log has gone on with later rows: its readers would skip them.

    Attributes:
        lost: in the order of the log that had them.
    """

    __slots__ = ("_bytes", "_kept", "lost")

    def __init__(self) -> None:
        self._kept: list[ChannelMessage] = []
        self._bytes = 0  # of their payloads
        self.lost: list[ChannelMessage] = []

    def add(self, message: ChannelMessage) -> None:
        """The next message of the log."""
        if self.lost:
            self.drop(message.id)
            self._drop_before(message.cursors)
        self._kept.append(message)
        self._bytes += len(message.payload)
        while len(self._kept) > (_MOST if self._bytes <= _MOST_BYTES else _FEWEST):
            self._bytes -= len(self._kept.pop(0).payload)

    def doubt(self, first: MessageId | None) -> None:
        """A log that has changed is read from here on: it is not known what it has of these.

        Args:
            first: the first message in it that was received before. What was before that one is
                older than what is read. None: the log has no messages.
        """
        index = next((i for i, each in enumerate(self._kept) if each.id == first), 0)
        if not index and any(each.id == first for each in self.lost):
            return  # the others are older than what is read
        lost = self._kept[index:] + self.lost
        del self._kept[index:]
        self._bytes = sum(len(each.payload) for each in self._kept)
        self.lost = lost[-_MOST:]

    def found(self, message: ChannelMessage) -> None:
        """A message that was received before is the next one of the log."""
        if self.lost and self.drop(message.id):
            self.add(message)

    def drop(self, id: MessageId) -> bool:
        """Do not take a message for lost. Returns whether it was."""
        for index, each in enumerate(self.lost):
            if each.id == id:
                del self.lost[index]
                return True
        return False

    def _drop_before(self, cursors: CursorRange | None) -> None:
        """Do not take messages for lost whose rows are not later than these."""
        if cursors is not None:
            self.lost = [each for each in self.lost if not _is_before(each.cursors, cursors)]

    def forget(self) -> None:
        """The log has nothing of these, and its readers know: it is another one."""
        self._kept, self._bytes, self.lost = [], 0, []


def _is_before(one: CursorRange | None, other: CursorRange) -> bool:
    """Whether who has the rows of another message needs none of this one."""
    if one is None or one.epoch != other.epoch:
        return False
    return one.last <= other.last and one.prev < other.last
