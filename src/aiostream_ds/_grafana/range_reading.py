"""Reads the rows of a time range for a panel, and thins those of a long one.

    samples ◀ … ◀── page before it ◀── newest page     each is thinned when it has been read

The cursor at which live rows join is that of the newest page.

The history hook returns the newest rows of a range, a limited number of them. It is asked for the
rows before these until it has no more: memory does not grow with the range.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar, TypeVarTuple, Unpack

import anyio
from msgspec.structs import replace

from aiostream_ds._encoding.cursor_kinds import BEGINNING, CursorKind
from aiostream_ds._frames import frame_rows
from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds._frames.thinning import Thinner, lines
from aiostream_ds._frames.times import EPOCH, MILLISECOND
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.rows import HistoryPage, HistoryRange

__all__ = [
    "HISTORY_LIMIT",
    "LIVE_FACTOR",
    "DrawnRows",
    "HistoryRead",
    "RangeRows",
    "draw_range",
    "read_range",
]

LIVE_FACTOR = 10
"""How many rows a panel draws for each of a thinned history: the live rows are not thinned."""

HISTORY_LIMIT = 100_000
"""Most rows that a panel gets, whatever its maxDataPoints is."""

PAGE_ROWS = 20_000
"""Rows of a long range that the history hook is asked for at once; fewer if they are large."""

PAGE_BYTES = 16 << 20
"""Bytes of texts and JSON in the rows of a page, as far as the newest rows show it."""

RANGE_ROWS = 1_000_000
"""Rows after which only samples of the rest of a range are read."""

RANGE_SECONDS = 10.0
"""Seconds after which only samples of the rest of a range are read."""

SAMPLES = 100
"""Samples of the rest of a range, at equal distances."""

SAMPLE_ROWS = 20
"""Rows of each sample."""

SAMPLE_SECONDS = 5.0
"""Seconds after which no further sample is read."""

_INLINE_VALUES = 5_000
"""Up to so many numbers are thinned in the event loop; more in a thread."""

_SAMPLE = 100
"""Rows of which the size is measured."""

_NOTICES = 5
"""Different notices of earlier pages that a panel shows."""

_MORE = 4
"""How many times as many rows are asked for if those of a page have one time."""

_NUMBER_BYTES = 16
_TEXTS = frozenset({FieldType.STRING, FieldType.JSON})

_THINNED = (
    "Thinned: {} of {} rows are drawn, with the lowest and the highest values of each interval."
)
_BY_AUTHOR = "Thinned by the data source: {} of {} rows are drawn."
_SAMPLED = " Before {:%Y-%m-%d %H:%M:%S} UTC only samples were read, which miss peaks."
_UNREAD = " Rows before {:%Y-%m-%d %H:%M:%S} UTC were not read."
_SEE_ALL = " To see all, raise Max data points in the query options, or choose a shorter range."
_SEE_MORE = " To see more, choose a shorter range."

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class HistoryRead(NamedTuple):
    """One read of the history hook: its page, the rows as a frame, and how many it has returned."""

    page: HistoryPage
    frame: Frame
    rows: int


class DrawnRows(NamedTuple):
    """The rows of a range that are drawn.

    `can_thin`: rows of this stream are thinned. `is_cut`: these are the newest ones of more.
    """

    frame: Frame
    can_thin: bool
    is_cut: bool


class RangeRows(NamedTuple):
    """The rows of a range; `page` and `last`, the greatest cursor, are of the newest read."""

    drawn: DrawnRows
    page: HistoryPage
    last: int


ReadPage = Callable[[HistoryRange], Awaitable[HistoryRead]]


async def read_range(
    read_page: ReadPage, wanted: HistoryRange, kind: CursorKind | None
) -> RangeRows:
    """The rows of a range: at most `wanted.points`, unless its limit is equal to them.

    `kind` is that of the stream's cursors, if it has any. Raises what `read_page` raises.
    """
    read = await read_page(wanted)
    frame, page = read.frame, read.page
    last = max(kind.of_block(frame)) if kind is not None and frame.rows else BEGINNING
    if wanted.limit == wanted.points:
        return RangeRows(DrawnRows(frame, False, frame.rows >= wanted.limit), page, last)
    if not lines(frame, () if kind is None else kind.columns):
        if frame.rows > wanted.limit:  # `check` reports it
            return RangeRows(DrawnRows(frame, False, False), page, last)
        return RangeRows(_newest(frame, wanted.points), page, last)
    if frame.rows > wanted.points or read.rows == wanted.limit:
        complete = last if page.last is None else max(last, page.last)
        frame = await _Reader(read_page, wanted, kind, complete).read(read)
    elif page.total is not None and page.total > frame.rows:
        _add_notice(frame, _text(_BY_AUTHOR, frame.rows, page.total))
    return RangeRows(DrawnRows(frame, True, False), page, last)


async def draw_range(frame: Frame, wanted: HistoryRange) -> DrawnRows:
    """The rows of a range that is in memory: thinned, or the newest ones."""
    if wanted.limit == wanted.points or not lines(frame):
        return _newest(frame, wanted.points)
    if frame.rows > wanted.points:
        thinner = Thinner(wanted.points, _span(wanted)).add(frame)
        total = frame.rows
        frame = await _run(thinner.values, thinner.frame)
        _add_notice(frame, _text(_THINNED, frame.rows, total))
    return DrawnRows(frame, True, False)


def _newest(frame: Frame, points: int) -> DrawnRows:
    found = frame_rows.slice_rows(frame, frame.rows - points, frame.rows)
    return DrawnRows(found, False, found is not frame)


class _Reader:
    """Reads the pages of a range that is longer than what is drawn, and thins them."""

    def __init__(
        self, read_page: ReadPage, wanted: HistoryRange, kind: CursorKind | None, last: int
    ) -> None:
        self._read_page = read_page
        self._wanted = wanted
        self._kind = kind
        self._last = last
        self._limit = wanted.limit  # of the pages before the newest one
        self._thinner = Thinner(wanted.points, _span(wanted), kind.columns if kind else ())
        self._has_all = True  # rows of the pages that were read
        self._sampled: HistoryRange | None = None
        self._notices: dict[Notice, None] = {}

    async def read(self, newest: HistoryRead) -> Frame:
        """The rows of the range, of which the newest page was read."""
        deadline = anyio.current_time() + RANGE_SECONDS
        self._limit = max(self._limit, min(PAGE_ROWS, PAGE_BYTES // _row_bytes(newest.frame)))
        before = await self._add(newest, self._wanted)
        while before is not None:
            if self._thinner.rows >= RANGE_ROWS or anyio.current_time() >= deadline:
                before = await self._sample(newest.page.epoch, before)
                break
            read = await self._read_page(before)
            if read.page.epoch != newest.page.epoch:  # the log was replaced meanwhile
                break
            self._add_notices_of(read)
            before = await self._add(read, before)
        if not self._thinner.rows:  # all rows are of series beyond the limit
            return newest.frame
        frame = await _run(self._thinner.values, self._thinner.frame)
        total = max(self._thinner.rows, newest.page.total or 0)
        self._add_notices(frame, total, before)
        return frame

    async def _sample(self, epoch: str, rest: HistoryRange) -> HistoryRange | None:
        """Add the newest rows of each part of a range. Returns the range that is left."""
        deadline = anyio.current_time() + SAMPLE_SECONDS
        self._sampled, self._has_all = rest, False
        width = max((rest.end - rest.start) / SAMPLES, MILLISECOND)
        while rest.end >= rest.start:
            if anyio.current_time() >= deadline:
                return rest
            start = max(rest.start, rest.end - width)
            part = replace(rest, start=start, limit=SAMPLE_ROWS)
            read = await self._read_page(part)
            if read.page.epoch != epoch:
                return rest
            self._add_notices_of(read)
            found = self._new_rows(read.frame, part)
            if found.rows:
                self._thinner.add(found)
            rest = replace(rest, end=start - timedelta.resolution)
        return None

    def _add_notices_of(self, read: HistoryRead) -> None:
        self._notices |= dict.fromkeys(read.frame.meta.notices if read.frame.meta else ())

    async def _add(self, read: HistoryRead, wanted: HistoryRange) -> HistoryRange | None:
        """Add a page that was read. Returns the range to read next; None if no row is left."""
        has_more = read.rows == wanted.limit
        values = read.frame.rows * len(read.frame.fields)
        return await _run(values, self._add_rows, read.frame, wanted, has_more)

    def _add_rows(self, frame: Frame, wanted: HistoryRange, has_more: bool) -> HistoryRange | None:
        if wanted is not self._wanted:
            frame = self._new_rows(frame, wanted)
        if not frame.rows:
            return None
        if not has_more:
            self._thinner.add(frame)
            return None
        # the limit may have cut off other rows of the earliest millisecond
        field = frame_rows.time_field(frame)
        times = [] if field is None else frame_rows.to_list(field.values)
        oldest = min((time for time in times if time is not None), default=0)
        later = [row for row, time in enumerate(times) if time is None or time > oldest]
        if later:
            frame = frame_rows.take_rows(frame, later)
        elif wanted.limit < HISTORY_LIMIT:
            return replace(wanted, limit=min(_MORE * wanted.limit, HISTORY_LIMIT))
        else:
            self._has_all = False
        self._thinner.add(frame)
        end = EPOCH + (oldest + bool(later)) * MILLISECOND - timedelta.resolution
        return replace(wanted, end=end, limit=self._limit) if end >= wanted.start else None

    def _new_rows(self, frame: Frame, wanted: HistoryRange) -> Frame:
        """The rows of an earlier page that the hook was asked for, without live ones: those that
        were written since the newest page was read."""
        frame = frame_rows.rows_between(frame, _ms(wanted.start), _ms(wanted.end))
        if self._kind is None or not frame.rows:
            return frame
        cursors = self._kind.of_block(frame)
        known = [row for row, cursor in enumerate(cursors) if cursor <= self._last]
        return frame if len(known) == frame.rows else frame_rows.take_rows(frame, known)

    def _add_notices(self, frame: Frame, total: int, unread: HistoryRange | None) -> None:
        has_all = self._has_all and unread is None
        if frame.rows < total or not has_all:
            sampled = self._sampled
            text = _THINNED if sampled is None else _THINNED + _SAMPLED.format(sampled.end)
            text = text if unread is None else text + _UNREAD.format(unread.end)
            _add_notice(frame, _text(text, frame.rows, total, has_all))
        known = frame.meta.notices if frame.meta is not None else ()
        others = [notice for notice in self._notices if notice not in known]
        frame_rows.add_notices(frame, others[:_NOTICES])
        if len(others) > _NOTICES:
            _add_notice(frame, f"Earlier rows have {len(others) - _NOTICES:,} more notices.")


def _text(text: str, rows: int, total: int, has_all: bool = True) -> str:
    shown = f"{total:,}" if has_all else f"more than {total:,}"
    advice = _SEE_ALL if has_all and total <= HISTORY_LIMIT else _SEE_MORE
    return text.format(f"{rows:,}", shown) + advice


def _add_notice(frame: Frame, text: str) -> None:
    frame_rows.add_notices(frame, (Notice(severity="info", text=text),))


def _span(wanted: HistoryRange) -> int:
    """The width of the panel's range in milliseconds."""
    return wanted.interval * wanted.points // MILLISECOND


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def _row_bytes(frame: Frame) -> int:
    """About how many bytes a row of the frame has in memory."""
    sample = frame_rows.slice_rows(frame, frame.rows - _SAMPLE, frame.rows)
    texts = (field.values for field in sample.fields if field.type in _TEXTS)
    size = sum(len(str(value)) for values in texts for value in values)
    return _NUMBER_BYTES * len(frame.fields) + size // max(sample.rows, 1)


async def _run(values: int, function: Callable[[Unpack[Arguments]], T], *args: *Arguments) -> T:
    """Call the function, in a thread if it reads many values."""
    if values <= _INLINE_VALUES:
        return function(*args)
    return await run_in_thread(function, *args)
