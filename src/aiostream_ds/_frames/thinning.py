"""Thins the rows of a long time range to as many as a panel can draw.

    rows       · ·· ··· ·· · ·· ··· ·· · ·· ··· ·· · ·· ··· ·· ·
    buckets   |           |           |           |           |    lowest and highest value of each
    slots     |       |       |       |       |       |       |    column of numbers; the first row

Rows are left out, and no value is changed: a peak stays at its time. Of each slot the first row
stays, so that the rest is spread over the range, and the first and the last row of all.
"""

from collections import deque
from collections.abc import Collection, Sequence
from itertools import compress, pairwise
from operator import ne
from typing import Any, Self

from aiostream_ds._frames.columns import NUMBERS
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.frame_rows import join_frames, take_rows, time_field, to_list

__all__ = ["Thinner", "lines"]

_BUCKETS = 2
"""Buckets for each row that may stay, while rows are added; the final ones are wider."""

_SLOT = 8
"""Buckets of a slot: a quarter of the rows that stay are the first ones of a slot."""

_SPARE = 8
"""Rows for each that may stay, above which buckets are doubled while rows are added."""

_ALL_TIME = 1 << 62
"""The width of a bucket for any time, in milliseconds."""


def lines(frame: Frame, ignored: Collection[str] = ()) -> list[str]:
    """The names of the columns of numbers, except for `ignored`; none if the rows have no time."""
    if time_field(frame) is None:
        return []
    return [
        field.name for field in frame.fields if field.type in NUMBERS and field.name not in ignored
    ]


class Thinner:
    """The rows of a time range, thinned while they are added from the newest page to the oldest.

    It holds a bounded number of rows, however many are added. Not thread-safe.

    Args:
        points: the number of rows that may stay; at least 1.
        span: the width of the time range in milliseconds.
        ignored: columns of numbers that are not drawn, such as a cursor.
    """

    def __init__(self, points: int, span: int, ignored: Collection[str] = ()) -> None:
        self._points = points
        self._span = span
        self._ignored = ignored
        self._width = 0  # all rows have stayed so far
        self._slot = 0
        self._pages: deque[Frame] = deque()
        self.rows = 0
        """The number of rows that were added."""

    def add(self, page: Frame) -> Self:
        """Add the rows before those that were added so far."""
        self.rows += page.rows
        self._pages.appendleft(self._thinned(page) if self._width else page)
        while self._kept > _SPARE * self._points and self._width < _ALL_TIME:
            if self._width:
                self._width *= 2
            else:
                self._set_width(self._span)
            self._pages = deque([self._thinned(join_frames(self._pages))])
        return self

    def frame(self) -> Frame:
        """The rows that stay, in the order of the range; all of them if they are few enough."""
        frame = join_frames(self._pages)
        if frame.rows <= self._points:
            return frame
        rows = _Rows(frame, self._ignored)
        if not self._width:
            self._set_width(self._occupied(rows))
        # the narrowest buckets with which not too many rows stay
        low, high = 1, _BUCKETS * self._points + 1
        while low < high:
            factor = (low + high) // 2
            if len(rows.kept(factor * self._width, self._slot)) <= self._points:
                high = factor
            else:
                low = factor + 1
        kept = rows.kept(low * self._width, self._slot)
        if len(kept) > self._points:
            kept = _spread(rows.kept(_ALL_TIME, self._slot), self._points)
        return take_rows(frame, kept)

    @property
    def values(self) -> int:
        """The number of values in memory."""
        return sum(page.rows * len(page.fields) for page in self._pages)

    @property
    def _kept(self) -> int:
        return sum(page.rows for page in self._pages)

    def _set_width(self, span: int) -> None:
        # edges are multiples of the width, so that they stay when the range moves
        self._width = max(1, span // (_BUCKETS * self._points))
        self._slot = _SLOT * self._width

    def _occupied(self, rows: "_Rows") -> int:
        """The part of the range that the rows occupy: the whole, a half, a quarter …"""
        span = self._span
        while span > 2 * max(rows.span, 1):
            span //= 2
        return span

    def _thinned(self, frame: Frame) -> Frame:
        kept = _Rows(frame, self._ignored).kept(self._width, self._slot)
        return frame if len(kept) == frame.rows else take_rows(frame, kept)


class _Rows:
    """The rows of a frame as lists of times and numbers."""

    def __init__(self, frame: Frame, ignored: Collection[str]) -> None:
        names = frozenset(lines(frame, ignored))
        times = time_field(frame)
        self._count = frame.rows
        self._times: list[int | None] = (
            [None] * frame.rows if times is None else to_list(times.values)
        )
        self._columns = [to_list(field.values) for field in frame.fields if field.name in names]

    @property
    def span(self) -> int:
        """Milliseconds between the earliest and the latest row."""
        times = [time for time in self._times if time is not None]
        return max(times) - min(times) if times else 0

    def kept(self, width: int, slot: int) -> list[int]:
        """The indexes of the rows that stay with buckets and slots of these widths."""
        if not self._count:
            return []
        kept = {0, self._count - 1}
        starts = self._starts(slot)
        seen: set[int | None] = set()
        for row in starts[:-1]:
            time = self._times[row]
            number = None if time is None else time // slot
            if number not in seen:  # rows may be out of order
                seen.add(number)
                kept.add(row)
        for start, end in pairwise(self._starts(width)):
            if end - start == 1:
                kept.add(start)
            else:
                for column in self._columns:
                    kept.update(_extremes(column, start, end))
        return sorted(kept)

    def _starts(self, width: int) -> list[int]:
        """The first row of each run of rows of one bucket, and the number of rows."""
        numbers = [None if time is None else time // width for time in self._times]
        later = compress(range(1, self._count), map(ne, numbers[1:], numbers))
        return [0, *later, self._count]


def _extremes(column: list[Any], start: int, end: int) -> Sequence[int]:
    """The rows with the lowest and the highest value; none if there is no value."""
    values = column[start:end]
    try:
        low, high = min(values), max(values)
    except TypeError:  # None
        low = high = None
    if low is None or low != low or high != high:  # NaN
        found = [value for value in values if value is not None and value == value]
        if not found:
            return ()
        low, high = min(found), max(found)
    return start + values.index(low), start + values.index(high)


def _spread(rows: list[int], count: int) -> list[int]:
    """At most so many of these rows, at equal distances, with the last one and the first one."""
    if count == 1 or len(rows) <= count:
        return rows[-count:]
    last = len(rows) - 1
    return [rows[step * last // (count - 1)] for step in range(count)]
