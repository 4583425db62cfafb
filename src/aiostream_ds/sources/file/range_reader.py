"""Reads a file's rows of a time range or after an offset.

All functions block: call them in a thread.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aiostream_ds.errors import UpstreamError
from aiostream_ds.rows import HistoryRange
from aiostream_ds.sources.file.log_file import (
    FileStart,
    LogFile,
    Row,
    SkippedLines,
    begins_before,
    newest_rows,
    oldest_rows,
)

__all__ = ["FoundRows", "find_rows"]

TRIES = 3
"""How often a file is read again that was truncated during the read."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FoundRows(NamedTuple):
    """The rows of one read of a file, which has `size` bytes, up to the offset `last`.

    `is_beyond_end`: it is shorter than the requested offset. `covers_start`: it has rows before
    the range, so older files have none in it.
    """

    key: tuple[int, int]
    epoch: str
    rows: list[Row]
    last: int | None
    size: int = 0
    is_beyond_end: bool = False
    covers_start: bool = False


def find_rows(
    open_log: Callable[[], LogFile], span: HistoryRange, skipped: SkippedLines
) -> FoundRows | None:
    """The file's rows of a range, or None for a file without any row.

    `skipped` counts the lines of a time range that are not rows.

    Raises:
        OSError: the file cannot be opened or read.
        UpstreamError: it is not a log file, or it was truncated during each of TRIES reads.
    """
    for _ in range(TRIES):
        with open_log() as log:
            start = log.start()
            if start is None:
                skipped.add(log.skipped)
                return None
            found = _read(log, start, span, skipped)
            if log.still_begins(start):  # then the rows are from the file with this beginning
                return found
    raise UpstreamError("the file was truncated while it was read")


def _read(log: LogFile, start: FileStart, span: HistoryRange, skipped: SkippedLines) -> FoundRows:
    if span.after is None:
        ms = timedelta(milliseconds=1)
        first, last = -((_EPOCH - span.start) // ms), (span.end - _EPOCH) // ms
        rows, end = newest_rows(log, start, first, last, span.limit, skipped)
        back = begins_before(log, start, first)
        if not rows:
            skipped.add(log.skipped)
        return FoundRows(log.key, start.epoch, rows, end, covers_start=back, size=log.size())
    size = log.size()
    if span.after > size:
        return FoundRows(log.key, start.epoch, [], None, size=size, is_beyond_end=True)
    rows, end = oldest_rows(log, start, span.after, span.upto, span.limit)
    return FoundRows(log.key, start.epoch, rows, end, size=size)
