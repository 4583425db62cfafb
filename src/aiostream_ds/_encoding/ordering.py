"""Rows in the order of their own time, as an `RowOrder` asks: which go out, wait, or go never.

A `Sorter` belongs to one stream and knows nothing of tasks and timers: it is given rows and the
time, and says when it wants to be asked again. Of whatever it does not understand, a time that is
none among it, the encoder tells the author: it goes on as it came. Imports `channels`, its own room
and the ground.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import islice
from operator import le
from typing import Any

from aiostream_ds._channels.policy import ORDER_SERIES, RowOrder
from aiostream_ds._encoding.row_accessors import (
    Cell,
    RowTraits,
    block_traits,
    check_order,
    joined,
    of_kind,
)
from aiostream_ds._frames.frame import Frame
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Columns

__all__ = ["Sorter", "check_order", "is_idle"]


def is_idle(order: RowOrder) -> bool:
    """Whether these rules let every row through as it comes."""
    return order.late == "pass" and not order.key


class Sorter:
    """Puts the rows of one stream in order. `rows` counts those that it was ever given.

    Rows of a list are single rows. `Columns` and a `Frame` are cut into the rows that may go out,
    and stay whole where all may. What is no row waits for nothing and is overtaken by nothing: all
    held rows go out before it. Of a series that is forgotten the held rows go out at once, and its
    next row is never late.
    """

    __slots__ = (
        "_counters",
        "_due",
        "_held",
        "_hold",
        "_keys",
        "_late",
        "_number",
        "_only",
        "_order",
        "_series",
        "_traits",
        "rows",
    )

    def __init__(self, order: RowOrder, counters: Counters) -> None:
        self.rows = 0
        self._order = order
        self._late = order.late
        self._hold = round(order.hold * 1e9)
        self._counters = counters
        self._traits: dict[type, RowTraits | None] = {}
        self._keys: OrderedDict[Any, None] = OrderedDict()
        self._series: OrderedDict[Any, _Series] = OrderedDict()
        self._only = None if order.by else _Series()
        self._held = 0
        self._number = 0  # of the rows that were held: of two with one time the first goes first
        self._due: deque[_Due] = deque()

    @property
    def due(self) -> float | None:
        """When the next held row has to go, by the clock of `feed`; None: no row is held."""
        due = self._due
        while due and due[0][1:3] <= due[0][3].gone:
            due.popleft()
        return due[0][0] if due else None

    @property
    def held(self) -> int:
        """How many rows wait for others."""
        return self._held

    def feed(self, yields: Iterable[Any], now: float, out: list[Any]) -> None:
        """Take what the author yielded, and append to `out` what may go out now, in its order.

        `now` is in seconds, of a clock that never goes back. When this raises, `out` has got what
        was before the bad row.

        Raises:
            TypeError: a block or a class of rows has not the columns that the `RowOrder` names, or
                they hold what tells nothing apart, a list or a dict.
            FrameError: a block has times without a time zone.
        """
        found: list[Any] = []
        try:
            if self._due:
                self._let_go(now, found)
            for each in yields:
                if isinstance(each, list | tuple):
                    for row in each:
                        self._take(row, now, found)
                else:
                    self._take(each, now, found)
        finally:
            out += joined(found)

    def release(self, now: float) -> list[Any]:
        """The rows that have waited long enough, oldest first; at `math.inf` all of them."""
        found: list[Any] = []
        self._let_go(now, found)
        return joined(found)

    def _take(self, row: Any, now: float, found: list[Any]) -> None:
        kind = row.__class__
        try:
            traits = self._traits[kind]
        except KeyError:
            traits = self._traits[kind] = of_kind(self._order, kind)
        if traits is not None:
            time, series, key = traits
            self.rows += 1
            self._place(
                row,
                time(row) if time is not None else None,
                series(row) if series is not None else None,
                key(row) if key is not None else None,
                now, found,
            )  # fmt: skip
        elif isinstance(row, Columns | Frame):
            self.rows += row.rows
            self._take_block(row, now, found)
        else:
            self._let_go(math.inf, found)
            found.append(row)

    def _take_block(self, block: Columns[Any] | Frame, now: float, found: list[Any]) -> None:
        if not block.rows or is_idle(self._order):
            found.append(block)
            return
        times, series, keys = block_traits(self._order, block)
        if self._late == "drop" and self._only is not None and times and not keys:
            # A block that is in order, as usual: to see it takes a tenth of the time.
            whole = [time for time in times if time is not None]
            if len(whole) == len(times) and _are_rising([self._only.newest, *whole]):
                self._only.newest = whole[-1]
                found.append(block)
                return
        for row in range(block.rows):
            self._place(
                Cell(block, row),
                times[row] if times else None,
                series[row] if series else None,
                keys[row] if keys else None,
                now, found,
            )  # fmt: skip

    def _place(
        self, row: Any, when: int | None, name: Any, key: Any, now: float, found: list[Any]
    ) -> None:
        """Decide about one row. `found` gets what may go out now, this row or others."""
        if key is not None and self._is_known(key):
            self._counters.count_dropped("duplicate")
            return
        if when is None:
            found.append(row)
        else:
            series = self._only if self._only is not None else self._named(name, found)
            if self._late == "hold":
                if when < series.gone[0]:
                    self._counters.count_dropped("late")
                    return
                self._number += 1
                heappush(series.held, (when, self._number, row))
                self._due.append((now + self._order.hold, when, self._number, series))
                if when > series.newest:
                    series.newest = when
                self._held += 1
                passed = series.newest - self._hold
                if series.held[0][0] <= passed:
                    self._hand_out(series.take(passed, self._number), found)
                while self._held > self._order.rows:
                    self._let_first_go(found)
            elif when < series.newest:
                self._counters.count_dropped("late")
                return
            else:
                series.newest = when
                found.append(row)
        if key is not None:
            self._keys[key] = None
            if len(self._keys) > self._order.keys:
                self._keys.popitem(last=False)

    def _is_known(self, key: Any) -> bool:
        try:
            return key in self._keys
        except TypeError:
            raise _unfit("key", self._order.key, key) from None

    def _named(self, name: Any, found: list[Any]) -> "_Series":
        try:
            series = self._series.get(name)
        except TypeError:
            raise _unfit("by", self._order.by, name) from None
        if series is not None:
            self._series.move_to_end(name)
            return series
        series = self._series[name] = _Series()
        if len(self._series) > ORDER_SERIES:
            _, forgotten = self._series.popitem(last=False)
            self._hand_out(forgotten.take(math.inf, self._number), found)
        return series

    def _let_go(self, now: float, found: list[Any]) -> None:
        """What is due by now, and what is older in the same series: it would be late."""
        due = self._due
        entries: list[_Entry] = []
        while due and due[0][0] <= now:
            _, when, number, series = due.popleft()
            entries += series.take(when, number)
        entries.sort()  # they may be of several series
        self._hand_out(entries, found)

    def _let_first_go(self, found: list[Any]) -> None:
        """Too many rows are held: the one that came first goes, and what is older in its series."""
        _, when, number, series = self._due.popleft()
        self._hand_out(series.take(when, number), found)

    def _hand_out(self, entries: "list[_Entry]", found: list[Any]) -> None:
        self._held -= len(entries)
        found += [row for _, _, row in entries]


_Entry = tuple[int, int, Any]
"""Time, number and row: numbers differ, so no row is ever compared."""


class _Series:
    """The rows of one series that wait, the newest time that came, and what has gone out."""

    __slots__ = ("gone", "held", "newest")

    def __init__(self) -> None:
        self.held: list[_Entry] = []
        self.newest: float = -math.inf
        self.gone: tuple[float, int] = (-math.inf, 0)

    def take(self, when: float, number: int) -> list[_Entry]:
        """Remove what is not behind this place, oldest first."""
        held = self.held
        end = (when, number + 1)
        taken = []
        while held and held[0] < end:
            taken.append(heappop(held))
        if taken:
            self.gone = taken[-1][:2]
        return taken


_Due = tuple[float, int, int, _Series]
"""When a held row has to go, and which it is: its time, its number, its series."""


def _are_rising(times: list[float]) -> bool:
    return all(map(le, times, islice(times, 1, None)))


def _unfit(option: str, names: tuple[str, ...], value: Any) -> TypeError:
    return TypeError(
        f"RowOrder.{option} names {', '.join(names)}, which hold {value!r}; allowed are columns of "
        "bool, int, float, str and datetime"
    )
