"""What a file has of a span: for histories, and for the rows behind an offset.

Everything here blocks: call it in a thread.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aiostream_ds.errors import UpstreamError
from aiostream_ds.rows import HistoryRange
from aiostream_ds.sources.file.log_file import LogFile, Row, Start, begins_before, newest, oldest

__all__ = ["Found", "look"]

TRIES = 3
"""Times that a file is read which is emptied meanwhile."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Found(NamedTuple):
    """Rows of one read: `epoch` is the file's numbering, `last` up to where it was read.

    `gone`: the file is shorter than the offset that was asked for. `reaches_back`: it has rows from
    before the span, so that no older file has any of it.
    """

    key: tuple[int, int]
    epoch: str
    rows: list[Row]
    last: int | None
    gone: bool = False
    reaches_back: bool = False


def look(open_log: Callable[[], LogFile], span: HistoryRange) -> Found | None:
    """The rows of a span that the file has; None while it has no row at all.

    Raises OSError, and UpstreamError for a file that cannot be read.
    """
    for _ in range(TRIES):
        with open_log() as log:
            start = log.start()
            if start is None:
                return None
            found = _read(log, start, span)
            if log.still_begins(start):  # what was read before is then of the file that began so
                return found
    raise UpstreamError("it is emptied while it is read")


def _read(log: LogFile, start: Start, span: HistoryRange) -> Found:
    if span.after is None:
        ms = timedelta(milliseconds=1)
        first, last = -((_EPOCH - span.start) // ms), (span.end - _EPOCH) // ms
        rows, end = newest(log, start, first, last, span.limit)
        back = begins_before(log, start, first)
        return Found(log.key, start.epoch, rows, end, reaches_back=back)
    if span.after > log.size():
        return Found(log.key, start.epoch, [], None, gone=True)
    rows, end = oldest(log, start, span.after, span.upto, span.limit)
    return Found(log.key, start.epoch, rows, end)
