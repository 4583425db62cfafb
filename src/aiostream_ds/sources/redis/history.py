"""Rows of old entries: those of a time range, or those after an id."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple

from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.times import EPOCH, MILLISECOND
from aiostream_ds._redis.servers import Call
from aiostream_ds.rows import HistoryRange
from aiostream_ds.sources.event_lag import NO_LAG, Lag
from aiostream_ds.sources.redis.entry_reader import Entry, PageSize, last_id
from aiostream_ds.sources.redis.positions import Id, before, format_id, next_id, parse_id

__all__ = ["HISTORY_BYTES", "PastRows", "newest_rows", "rows_after"]

HISTORY_BYTES = 64 << 20
"""Bytes of values after which the history of a time range ends with the newest entries."""

Row = dict[str, Any]
Decode = Callable[[list[Entry]], list[Row]]


class PastRows(NamedTuple):
    """Rows, oldest first. `last` is the id of the last entry that was read; None without one."""

    rows: list[Row]
    last: Id | None
    notices: tuple[Notice, ...] = ()


async def newest_rows(
    call: Call, key: bytes, span: HistoryRange[Any], decode: Decode, lag: Lag = NO_LAG
) -> PastRows:
    """The newest `span.limit` rows of a time range. Raises PluginError.

    Redis selects by the times of ids. Rows with times of their own are found if their entries are
    within `lag`.
    """
    start, end = _ms(span.start), _ms(span.end)
    pages: list[list[Row]] = []
    count = size = 0
    last: Id | None = None
    notices: tuple[Notice, ...] = ()
    async with aclosing(_pages_back(call, key, start + lag.low, end + lag.high)) as found:
        async for entries in found:
            last = last or last_id(entries[::-1])
            rows = decode(entries[::-1])
            if lag != NO_LAG:
                rows = [row for row in rows if start <= row["time"] <= end]
            pages.append(rows)
            count += len(rows)
            size += sum(sum(map(len, values)) for _, values in entries)
            if count >= span.limit:
                break
            if size > HISTORY_BYTES:
                text = f"the newest {count:,} rows: all have more than {HISTORY_BYTES >> 20} MiB"
                notices = (Notice(severity="warning", text=text),)
                break
    rows = [row for page in reversed(pages) for row in page]
    return PastRows(rows[-span.limit :], last, notices)


async def rows_after(
    call: Call, key: bytes, after: Id, span: HistoryRange[Any], decode: Decode
) -> PastRows:
    """The oldest `span.limit` rows of the entries after an id, up to `span.upto`, each entry with
    the columns of its id. Raises PluginError."""
    rows: list[Row] = []
    last: Id | None = None
    async with aclosing(_pages_forth(call, key, after, span.upto)) as found:
        async for entries in found:
            rows += decode(entries)
            last = last_id(entries)
            if len(rows) >= span.limit:
                rows = rows[: span.limit]
                last = rows[-1]["id_ms"], rows[-1]["id_seq"]
                break
    return PastRows(rows, last)


async def _pages_back(call: Call, key: bytes, start: int, end: int) -> AsyncGenerator[list[Entry]]:
    """The entries from `start` to `end` (Unix ms, inclusive), page by page, newest first."""
    page, last = PageSize(), str(max(0, end))
    while True:
        count = page.count
        entries = await call("XREVRANGE", key, last, str(max(0, start)), "COUNT", count)
        if entries:
            yield entries
        if len(entries) < count:
            return
        page.adapt(entries)
        last = format_id(before(parse_id(entries[-1][0])))


async def _pages_forth(
    call: Call, key: bytes, after: Id, upto: Id | None
) -> AsyncGenerator[list[Entry]]:
    """The entries after an id, up to another one, page by page, oldest first."""
    page, first = PageSize(), format_id(next_id(after))
    end = "+" if upto is None else format_id(upto)
    while True:
        count = page.count
        entries = await call("XRANGE", key, first, end, "COUNT", count)
        if entries:
            yield entries
        if len(entries) < count:
            return
        page.adapt(entries)
        first = format_id(next_id(parse_id(entries[-1][0])))


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND
