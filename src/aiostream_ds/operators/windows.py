"""Windows of a fixed length by the rows' own times."""

import math
import time as clock
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Generic, NamedTuple, TypeVar

from aiostream_ds._frames.times import EPOCH
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import current_counters
from aiostream_ds.operators.reading import Operator, Source, positive
from aiostream_ds.operators.row_values import optional_value, value_of

__all__ = ["RowTimes", "Window", "Windows", "to_datetime", "tumbling"]

log = get_logger(__name__)

T = TypeVar("T")
Out = TypeVar("Out")

_MICROSECOND = timedelta(microseconds=1)


class Window(NamedTuple, Generic[T]):
    """The rows of one window, in the order in which they came: `start` <= time < `end`."""

    start: datetime
    end: datetime
    rows: list[T]


def tumbling(
    rows: "Source[T]",
    seconds: float,
    *,
    time: str | Callable[[T], datetime | int] = "time",
    lateness: float = 0.0,
    idle: float | None = None,
) -> "Operator[Window[T]]":
    """Windows of a fixed length by the rows' own times, in the order of time. Windows without rows
    are left out.

    A window closes when a row arrives whose time is `lateness` seconds after its end; when no row
    has arrived for `idle` seconds; and at the end of the source. Rows of closed windows are left
    out, counted in `aiostream_ds_dropped_total{reason="late"}` and logged once.

    Args:
        rows: a source.
        seconds: the length of a window.
        time: the column with the time, an aware datetime or Unix milliseconds, or a function that
            returns it. A row without `time` has the time of its arrival.
        lateness: how much later than newer ones a row may arrive, in seconds of the rows' times.
        idle: seconds of silence after which open windows close; by default `seconds` and
            `lateness` together. `math.inf`: never.

    Raises:
        ValueError: a number is out of range; from the iterator: a time without a zone.
        TypeError: `rows` is not a source; from the iterator: a time of another type.
    """
    return Windows(rows, RowTimes(seconds, time, lateness, idle), list, _append, _window)


class RowTimes:
    """The times of rows, and the windows in which they lie, in microseconds since 1970."""

    def __init__(
        self,
        seconds: float,
        time: str | Callable[[Any], Any],
        lateness: float,
        idle: float | None,
    ) -> None:
        self.length = round(positive("seconds", seconds) * 1e6)
        if self.length < 1000:
            raise ValueError(f"seconds must be at least 0.001, got {seconds!r}")
        if not isinstance(time, str) and not callable(time):
            raise TypeError(f"time must be the name of a column or a function, got {time!r}")
        is_number = isinstance(lateness, int | float) and not isinstance(lateness, bool)
        if not is_number or not 0 <= lateness < math.inf:
            raise ValueError(f"lateness must be a number of at least 0, got {lateness!r}")
        self.lateness = round(lateness * 1e6)
        if idle is None:
            self.idle = seconds + lateness
        else:
            self.idle = math.inf if idle == math.inf else positive("idle", idle)
        self._time = time

    def of(self, row: Any) -> int:
        """The time of a row."""
        if callable(self._time):
            found = self._time(row)
        elif self._time == "time":
            found = optional_value(row, "time")
            if found is None:
                return clock.time_ns() // 1000
        else:
            found = value_of(row, self._time)
        if isinstance(found, datetime):
            if found.tzinfo is None:
                raise ValueError(f"a time must have a time zone, got {found!r}")
            return (found - EPOCH) // _MICROSECOND
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return int(found * 1000)
        raise TypeError(f"a time must be an aware datetime or Unix milliseconds, got {found!r}")


class Windows(Operator[Out]):
    """Rows in open windows. `make` makes what a window holds, `add` adds a row with its time, and
    `results` returns what a closed window becomes."""

    def __init__(
        self,
        rows: "Source[Any]",
        times: RowTimes,
        make: Callable[[], Any],
        add: Callable[[Any, int, Any], None],
        results: Callable[[int, int, Any], "Iterable[Out]"],
    ) -> None:
        super().__init__([rows])
        self._times = times
        self._make, self._add, self._results_of = make, add, results
        self._windows: dict[int, Any] = {}  # by start
        self._closed_until: float = -math.inf  # rows before this are late
        self._starts: list[int] = []  # of the open windows: a heap
        self._has_logged = False

    def _receive(self, index: int, row: Any) -> None:
        time, length = self._times.of(row), self._times.length
        if time < self._closed_until:
            self._late()
            return
        start = time - time % length
        window = self._windows.get(start)
        if window is None:
            window = self._windows[start] = self._make()
            heappush(self._starts, start)
            self._wait = self._times.idle
        self._add(window, time, row)
        # whether or not it is the newest row: after one with a wrong time, far in the future,
        # windows must not stay open, and grow, until that time
        if time - self._times.lateness >= self._starts[0] + length:
            self._close(time - self._times.lateness)

    def _late(self) -> None:
        current_counters().count_dropped("late")
        if not self._has_logged:
            self._has_logged = True
            log.warning(
                "rows of windows that have closed are left out; `lateness` lets windows wait"
            )

    def _close(self, until: float) -> None:
        """Close the windows that end until this time."""
        starts, length = self._starts, self._times.length
        while starts and starts[0] + length <= until:
            start = heappop(starts)
            self._results.extend(self._results_of(start, start + length, self._windows.pop(start)))
            self._closed_until = start + length
        if not self._windows:
            self._wait = math.inf

    def _timed_out(self) -> None:
        self._close(math.inf)

    def _finish(self) -> None:
        self._close(math.inf)


def _append(window: list[Any], time: int, row: Any) -> None:
    window.append(row)


def _window(start: int, end: int, rows: list[Any]) -> "Iterable[Window[Any]]":
    return (Window(to_datetime(start), to_datetime(end), rows),)


def to_datetime(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
