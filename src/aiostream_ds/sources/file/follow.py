"""Follows a file by its path while it grows, is rotated, truncated or replaced.

    no file, or no row in it yet ──► reading ──► another file at the path has its first row
                ▲                       │                    │ the old one is read to its end
                └── another beginning ◄─┘◄───────────────────┘

All functions block: call them in a thread, one at a time.
"""

import os
from collections.abc import Callable, MutableMapping
from typing import NamedTuple

from aiostream_ds.rows import Cursor
from aiostream_ds.sources.file.log_file import ForwardReader, LogFile, Row, SkippedLine

__all__ = ["Batch", "FileFollower", "epoch_name"]


class Batch(NamedTuple):
    """The result of one read. `begins`: a new epoch starts before these rows; `more`: there is
    more to read now."""

    rows: list[Row]
    skipped: list[SkippedLine]
    begins: Cursor | None = None
    replaced: int = 0
    left_out: int = 0
    more: bool = False


_COMPARED = 1 << 16
"""Bytes that are compared: a copy of the file, or another one that begins with the same row."""

_NOTHING = Batch([], [])
_AGAIN = Batch([], [], more=True)


def epoch_name(epoch: str, truncations: int) -> str:
    """The name of an epoch: that of the file and the number of its truncations."""
    return f"{epoch}~{truncations}" if truncations else epoch


class FileFollower:
    """Reads the rows after a cursor, and those of the files that replace the file later.

    Args:
        path: the path, to detect that another file has replaced the file.
        open_log: opens the file at the path. Raises FileNotFoundError.
        after: the cursor to continue after. With None or another epoch, reading starts at the
            beginning of the file.
        truncations: by path, how often the file was truncated, or replaced, and then began as
            before. Offsets then restart although the file's hash is unchanged. Several followers of
            the path count each time once.
    """

    __slots__ = (
        "_after",
        "_counted",
        "_forward",
        "_next",
        "_open_log",
        "_path",
        "_reported",
        "_truncations",
    )

    def __init__(
        self,
        path: str,
        open_log: Callable[[], LogFile],
        after: Cursor | None,
        truncations: MutableMapping[str, int],
    ) -> None:
        self._path = path
        self._open_log = open_log
        self._after = after
        self._truncations = truncations
        self._counted = 0  # truncations of the path before the file that is read
        self._forward: ForwardReader | None = None
        self._next: LogFile | None = None
        self._reported = 0  # the offset up to which lines before the first row were reported

    def close(self) -> None:
        """Close the files."""
        if self._forward is not None:
            self._forward.log.close()
            self._forward = None
        if self._next is not None:
            self._next.close()
            self._next = None

    def read(self) -> Batch:
        """Read the lines written since the last call. Raises OSError and PluginError."""
        forward = self._forward
        if forward is None:
            return self._begin()
        reader = forward.start.reader
        reader.replaced = reader.left_out = 0
        before = forward.offset
        shrunk = forward.log.size() < before
        chunk = forward.read()
        # checked after reading: then the rows are known to be from the file with this beginning
        same_beginning = forward.log.still_begins(forward.start)
        if shrunk or not same_beginning:
            self._after = Cursor(self._epoch_name(forward), before)
            if same_beginning:
                self._count_truncation()
            self.close()
            return _AGAIN
        if chunk.rows or chunk.skipped or forward.offset > before:
            more = chunk.more or self._next is not None
            return Batch(
                chunk.rows,
                chunk.skipped,
                replaced=reader.replaced,
                left_out=reader.left_out,
                more=more,
            )
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
        """Continue in this file: after the cursor if it has the same epoch."""
        try:
            start = log.start()
        except BaseException:
            log.close()
            raise
        skipped = [line for line in log.skipped if line.offset > self._reported]
        self._reported = skipped[-1].offset if skipped else self._reported
        if start is None:
            log.close()
            return Batch([], skipped)
        self._reported = 0
        self._counted = self._truncations.get(self._path, 0)
        after, name = self._after, epoch_name(start.epoch, self._counted)
        same = after is not None and after.epoch == name
        if after is not None and same:
            if log.size() >= after.value and log.is_boundary(max(0, after.value)):
                self._forward = ForwardReader(log, start, after.value)
                return _AGAIN
            name = epoch_name(start.epoch, self._count_truncation())
        self._forward = ForwardReader(log, start, 0)
        return Batch([], skipped, begins=Cursor(name, 0), more=True)

    def _count_truncation(self) -> int:
        """Count a truncation after which the file began as before, unless another follower has done
        so. Returns the new count."""
        count = self._truncations.get(self._path, 0)
        if count == self._counted:
            count = self._truncations[self._path] = count + 1
        self._counted = count
        return count

    def _successor(self, log: LogFile) -> LogFile | None:
        """The file at the path if it is another one and has a row: then the old one is complete."""
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

    def _switch(self, forward: ForwardReader, other: LogFile) -> Batch:
        """Continue in the other file after the old one has been read to its end."""
        rest = forward.log.size() - forward.offset
        lost = [SkippedLine(forward.offset + rest, "no newline at the end")] if rest else []
        self._after = Cursor(self._epoch_name(forward), forward.offset)
        start = other.start()
        if start is not None and start.epoch == forward.start.epoch:
            if not _is_copy(forward.log, other, forward.offset):
                self._count_truncation()  # such as text whose first line has no time
        self._next = None
        self.close()
        batch = self._adopt(other)
        return batch._replace(skipped=[*lost, *batch.skipped], more=True)

    def _epoch_name(self, forward: ForwardReader) -> str:
        return epoch_name(forward.start.epoch, self._counted)


def _is_copy(old: LogFile, other: LogFile, offset: int) -> bool:
    """Whether another file has the same bytes before an offset, as far as they are compared."""
    begin = max(0, offset - _COMPARED)
    size = offset - begin
    return other.size() >= offset and other.read(size, begin) == old.read(size, begin)
