"""Follows a file by its name while it grows, is rotated, emptied or replaced.

    no file, or no row in it yet ──► reading ──► another file of the name has its first row
                ▲                       │                    │ the old one is read to its end
                └── begins otherwise ◄──┘◄───────────────────┘

Everything here blocks: call it in a thread, one call at a time.
"""

import os
from collections.abc import Callable, MutableMapping
from typing import NamedTuple

from aiostream_ds.rows import Cursor
from aiostream_ds.sources.file.log_file import Forward, LogFile, Row, Skipped

__all__ = ["Batch", "Follower", "numbering"]


class Batch(NamedTuple):
    """What one look at the file brought. `begins`: numbers start anew before these rows; `more`:
    look again at once."""

    rows: list[Row]
    skipped: list[Skipped]
    begins: Cursor | None = None
    replaced: int = 0
    more: bool = False


_NOTHING = Batch([], [])
_AGAIN = Batch([], [], more=True)


def numbering(epoch: str, cuts: int) -> str:
    """The name of a numbering: of the file, and of how often it was cut back since."""
    return f"{epoch}~{cuts}" if cuts else epoch


class Follower:
    """Reads the rows behind a position, and those of the files that take the name later.

    Args:
        path: the name, to see whether it stands for another file.
        open_log: opens what has the name now. Raises FileNotFoundError.
        after: where to go on; in another numbering, or None, at the file's beginning.
        cuts: how often the file, under its name, was seen shorter than it had been read and with
            the same beginning. Offsets then count anew, though nothing else tells.
    """

    __slots__ = ("_after", "_cuts", "_forward", "_next", "_open_log", "_path", "_told")

    def __init__(
        self,
        path: str,
        open_log: Callable[[], LogFile],
        after: Cursor | None,
        cuts: MutableMapping[str, int],
    ) -> None:
        self._path = path
        self._open_log = open_log
        self._after = after
        self._cuts = cuts
        self._forward: Forward | None = None
        self._next: LogFile | None = None
        self._told = 0  # up to where lines before a first row were reported

    def close(self) -> None:
        """Closes the files."""
        if self._forward is not None:
            self._forward.log.close()
            self._forward = None
        if self._next is not None:
            self._next.close()
            self._next = None

    def read(self) -> Batch:
        """What there is since the last call. Raises OSError and PluginError."""
        forward = self._forward
        if forward is None:
            return self._begin()
        reader = forward.start.reader
        reader.replaced = 0
        before = forward.position
        shrunk = forward.log.size() < before
        piece = forward.read()
        # asked after reading: what was read is then known to be of the file that began so
        begins_alike = forward.log.still_begins(forward.start)
        if shrunk or not begins_alike:
            self._after = Cursor(self._name(forward), before)
            if begins_alike:
                self._cut()
            self.close()
            return _AGAIN
        if piece.rows or piece.skipped or forward.position > before:
            more = piece.more or self._next is not None
            return Batch(piece.rows, piece.skipped, replaced=reader.replaced, more=more)
        if self._next is not None:
            return self._switch(forward, self._next)
        self._next = self._successor(forward.log)
        return _NOTHING if self._next is None else _AGAIN

    def _begin(self) -> Batch:
        try:
            log = self._open_log()
        except FileNotFoundError:
            return _NOTHING
        return self._adopt(log)

    def _adopt(self, log: LogFile) -> Batch:
        """Go on in this file: behind the position if it is of the same numbering."""
        try:
            start = log.start()
        except BaseException:
            log.close()
            raise
        unfit = [line for line in log.unfit if line.offset > self._told]
        self._told = unfit[-1].offset if unfit else self._told
        if start is None:
            log.close()
            return Batch([], unfit)
        self._told = 0
        after, name = self._after, numbering(start.epoch, self._cuts.get(self._path, 0))
        same = after is not None and after.epoch == name
        if after is not None and same:
            if log.size() >= after.value and log.is_boundary(max(0, after.value)):
                self._forward = Forward(log, start, after.value)
                return _AGAIN
            name = numbering(start.epoch, self._cut())
        self._forward = Forward(log, start, 0)
        return Batch([], unfit, begins=Cursor(name, 0), more=True)

    def _cut(self) -> int:
        """Offsets count anew though the file begins as it did; how often they have done so."""
        self._cuts[self._path] = cuts = self._cuts.get(self._path, 0) + 1
        return cuts

    def _successor(self, log: LogFile) -> LogFile | None:
        """The file that has the name now, when it is another one and has a row: only then does
        nobody write to the old one any more."""
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == log.key:
                return None
            other = self._open_log()
        except FileNotFoundError:
            return None
        try:
            if other.key != log.key and other.start() is not None:
                return other
        except BaseException:
            other.close()
            raise
        other.close()
        return None

    def _switch(self, forward: Forward, other: LogFile) -> Batch:
        """The old file is read to its end, after the other one had its first row."""
        rest = forward.log.size() - forward.position
        lost = [Skipped(forward.position + rest, "cut off by the file's end")] if rest else []
        self._after = Cursor(self._name(forward), forward.position)
        self._next = None
        self.close()
        batch = self._adopt(other)
        return batch._replace(skipped=[*lost, *batch.skipped], more=True)

    def _name(self, forward: Forward) -> str:
        return numbering(forward.start.epoch, self._cuts.get(self._path, 0))
