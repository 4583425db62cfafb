"""Sorts rows by event time, by the rules of a `RowOrder`.

A `Sorter` belongs to one stream. It has no tasks and no timers: it receives rows and the current
time, and reports when it is due again. Rows that it cannot read, such as those with an invalid
time, are passed on unchanged: the encoder raises the error.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import islice
from operator import le
from typing import Any

from aiostream_ds._channels.policy import ORDER_SERIES, RowOrder
from aiostream_ds._encoding.row_accessors import (
    BlockRow,
    RowAccessors,
    check_order,
    join_block_rows,
    row_accessors,
    sort_keys,
)
from aiostream_ds._encoding.row_kinds import flatten
from aiostream_ds._frames.frame import Frame
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Columns

__all__ = ["Sorter", "check_order", "passes_all_rows"]


def passes_all_rows(order: RowOrder) -> bool:
    """Whether the order passes all rows on unchanged."""
    return order.late == "pass" and not order.key


class Sorter:
    """Sorts the rows of one stream. `rows` is the number of rows it has received.

    Rows of a list are single rows. `Columns` and a `Frame` are split into rows, and stay unchanged
    if all their rows may be sent. An object that is not a row keeps its place: all held rows are
    sent before it. When a series is evicted, its held rows are sent at once, and its next row is
    never late.
    """

    __slots__ = (
        "_accessors",
        "_counters",
        "_deadlines",
        "_held",
        "_hold",
        "_keys",
        "_late",
        "_number",
        "_only_series",
        "_order",
        "_series",
        "rows",
    )

    def __init__(self, order: RowOrder, counters: Counters) -> None:
        self.rows = 0
        self._order = order
        self._late = order.late
        self._hold = round(order.hold * 1e9)
        self._counters = counters
        self._accessors: dict[type, RowAccessors | None] = {}
        self._keys: OrderedDict[Any, None] = OrderedDict()
        self._series: OrderedDict[Any, _Series] = OrderedDict()
        self._only_series = None if order.by else _Series()
        self._held = 0
        self._number = 0  # counts held rows: rows of one time keep their order
        self._deadlines: deque[_Deadline] = deque()

    @property
    def due(self) -> float | None:
        """The time at which the next held row must be sent, by the clock of `feed`; None: no row is
        held."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1:3] <= deadlines[0][3].sent:
            deadlines.popleft()
        return deadlines[0][0] if deadlines else None

    @property
    def held(self) -> int:
        """The number of rows that wait for others."""
        return self._held

    def feed(self, yields: Sequence[Any], now: float, out: list[Any]) -> None:
        """Receive what the author yielded; append to `out` what may be sent now, in order.

        `now` is in seconds, of a monotonic clock. On an error, `out` has the rows before the
        invalid one.

        Raises:
            TypeError: a block or a class of rows does not have the columns that the `RowOrder`
                names, or their values are not hashable (a list or a dict).
            FrameError: a block has times without a time zone.
        """
        released: list[Any] = []
        try:
            if self._deadlines:
                self._release_due(now, released)
            for row in flatten(yields):
                self._add(row, now, released)
        finally:
            out += join_block_rows(released)

    def release(self, now: float) -> list[Any]:
        """Remove the rows whose deadline has passed, oldest first; at `math.inf` all rows."""
        released: list[Any] = []
        self._release_due(now, released)
        return join_block_rows(released)

    def _add(self, row: Any, now: float, released: list[Any]) -> None:
        kind = row.__class__
        try:
            accessors = self._accessors[kind]
        except KeyError:
            accessors = self._accessors[kind] = row_accessors(self._order, kind)
        if accessors is not None:
            time, series, key = accessors
            self.rows += 1
            self._add_row(
                row,
                time(row) if time is not None else None,
                series(row) if series is not None else None,
                key(row) if key is not None else None,
                now,
                released,
            )
        elif isinstance(row, Columns | Frame):
            self.rows += row.rows
            self._add_block(row, now, released)
        else:
            self._release_due(math.inf, released)
            released.append(row)

    def _add_block(self, block: Columns[Any] | Frame, now: float, released: list[Any]) -> None:
        if not block.rows or passes_all_rows(self._order):
            released.append(block)
            return
        times, series, keys = sort_keys(self._order, block)
        if self._late == "drop" and self._only_series is not None and times and not keys:
            # The common case, a sorted block: this check takes a tenth of the time.
            present = [time for time in times if time is not None]
            if len(present) == len(times) and _is_sorted([self._only_series.newest, *present]):
                self._only_series.newest = present[-1]
                released.append(block)
                return
        for row in range(block.rows):
            self._add_row(
                BlockRow(block, row),
                times[row] if times else None,
                series[row] if series else None,
                keys[row] if keys else None,
                now,
                released,
            )

    def _add_row(
        self, row: Any, time: int | None, name: Any, key: Any, now: float, released: list[Any]
    ) -> None:
        """Drop, hold or send one row; append rows that may be sent now to `released`."""
        if key is not None and self._is_known(key):
            self._counters.count_dropped("duplicate")
            return
        if time is None:
            released.append(row)
        else:
            series = self._only_series
            if series is None:
                series = self._get_or_add_series(name, released)
            if self._late == "hold":
                if not self._hold_row(row, time, series, now, released):
                    return
            elif time < series.newest:
                self._counters.count_dropped("late")
                return
            else:
                series.newest = time
                released.append(row)
        if key is not None:
            self._keys[key] = None
            if len(self._keys) > self._order.keys:
                self._keys.popitem(last=False)

    def _hold_row(
        self, row: Any, time: int, series: "_Series", now: float, released: list[Any]
    ) -> bool:
        """Hold a row; append the rows that may be sent now to `released`. False: it is too late."""
        if time < series.sent[0]:
            self._counters.count_dropped("late")
            return False
        self._number += 1
        heappush(series.held, (time, self._number, row))
        self._deadlines.append((now + self._order.hold, time, self._number, series))
        if time > series.newest:
            series.newest = time
        self._held += 1
        limit = series.newest - self._hold
        if series.held[0][0] <= limit:
            self._send(series.pop_until(limit, self._number), released)
        while self._held > self._order.rows:
            self._release_first(released)
        return True

    def _is_known(self, key: Any) -> bool:
        try:
            return key in self._keys
        except TypeError:
            raise _not_hashable("key", self._order.key, key) from None

    def _get_or_add_series(self, name: Any, released: list[Any]) -> "_Series":
        try:
            series = self._series.get(name)
        except TypeError:
            raise _not_hashable("by", self._order.by, name) from None
        if series is not None:
            self._series.move_to_end(name)
            return series
        series = self._series[name] = _Series()
        if len(self._series) > ORDER_SERIES:
            _, evicted = self._series.popitem(last=False)
            self._send(evicted.pop_until(math.inf, self._number), released)
        return series

    def _release_due(self, now: float, released: list[Any]) -> None:
        """Send rows that are due, and older rows of their series: they would be late after them."""
        deadlines = self._deadlines
        entries: list[_Entry] = []
        while deadlines and deadlines[0][0] <= now:
            _, time, number, series = deadlines.popleft()
            entries += series.pop_until(time, number)
        entries.sort()  # they may be of several series
        self._send(entries, released)

    def _release_first(self, released: list[Any]) -> None:
        """Too many rows are held: send the one that arrived first, and older rows of its series."""
        _, time, number, series = self._deadlines.popleft()
        self._send(series.pop_until(time, number), released)

    def _send(self, entries: "list[_Entry]", released: list[Any]) -> None:
        self._held -= len(entries)
        released += [row for _, _, row in entries]


_Entry = tuple[int, int, Any]
"""Time, number and row. Numbers are unique, so rows are never compared."""


class _Series:
    """The held rows of one series, the newest time, and time and number of the last row sent."""

    __slots__ = ("held", "newest", "sent")

    def __init__(self) -> None:
        self.held: list[_Entry] = []
        self.newest: float = -math.inf
        self.sent: tuple[float, int] = (-math.inf, 0)

    def pop_until(self, time: float, number: int) -> list[_Entry]:
        """Remove the held rows up to this time and number, oldest first."""
        held = self.held
        end = (time, number + 1)
        entries = []
        while held and held[0] < end:
            entries.append(heappop(held))
        if entries:
            self.sent = entries[-1][:2]
        return entries


_Deadline = tuple[float, int, int, _Series]
"""When a held row must be sent, and which row: its time, its number, its series."""


def _is_sorted(times: list[float]) -> bool:
    return all(map(le, times, islice(times, 1, None)))


def _not_hashable(option: str, names: tuple[str, ...], value: Any) -> TypeError:
    return TypeError(
        f"RowOrder.{option} must name columns of bool, int, float, str or datetime, got"
        f" {', '.join(names)} with {value!r}"
    )
