"""Operators: what reads their sources, joins, windows and aggregates."""

import asyncio
import math
import time as clock
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, get_args, overload

from aiostream_ds._author_code import contained
from aiostream_ds._frames.dataframes import is_table
from aiostream_ds._frames.times import EPOCH
from aiostream_ds._loggers import get_logger
from aiostream_ds._run_scope import close_with_run
from aiostream_ds._short_repr import short_repr
from aiostream_ds._telemetry import current_counters

__all__ = [
    "READ_AHEAD",
    "Aggregate",
    "Operator",
    "Window",
    "combine_latest",
    "merge",
    "ohlc",
    "resample",
    "tumbling",
    "with_timeout",
]

log = get_logger(__name__)

READ_AHEAD = 1_000
"""Rows that an operator reads ahead of the stream that it is for."""

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Out = TypeVar("Out")

Source = AsyncIterable[T] | Iterable[T]

Aggregate = Literal["first", "last", "min", "max", "sum", "mean", "count"]
"""How the values of a window become one. `first` and `last` are by event time."""

_MICROSECOND = timedelta(microseconds=1)


class Window(NamedTuple, Generic[T]):
    """The rows of one window, in the order in which they came: `start` <= time < `end`."""

    start: datetime
    end: datetime
    rows: list[T]


# The operators


def with_timeout(rows: "Source[T]", seconds: float, default: Any = None) -> "Operator[T | Any]":
    """The same rows, and `default` whenever `seconds` have passed without one.

    For what a timeout around `anext` of an async generator would destroy:

        async for row in with_timeout(client.messages(), 5):
            yield Status("warning", "silent") if row is None else row

    Raises:
        ValueError: `seconds` is not a finite number above 0.
        TypeError: `rows` is not a source.
    """
    return _WithTimeout(rows, _positive("seconds", seconds), default)


def merge(*sources: "Source[T]") -> "Operator[T]":
    """The rows of all sources as they arrive. It ends when all have ended.

    Raises:
        TypeError: one is not a source.
    """
    return _Merge(sources)


@overload
def combine_latest(one: "Source[A]", two: "Source[B]", /) -> "Operator[tuple[A, B]]": ...
@overload
def combine_latest(
    one: "Source[A]", two: "Source[B]", three: "Source[C]", /
) -> "Operator[tuple[A, B, C]]": ...
@overload
def combine_latest(
    one: "Source[Any]",
    two: "Source[Any]",
    three: "Source[Any]",
    four: "Source[Any]",
    /,
    *more: "Source[Any]",
) -> "Operator[tuple[Any, ...]]": ...
def combine_latest(*sources: "Source[Any]") -> "Operator[Any]":
    """The newest row of each source as a tuple, whenever one of them has a new row; from the time
    on at which each has had one. It ends when all have ended.

    Raises:
        TypeError: one is not a source.
    """
    return _CombineLatest(sources)


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
    return _Windows(rows, _Times(seconds, time, lateness, idle), list, _append, _window)


def resample(
    rows: "Source[Any]",
    seconds: float,
    columns: "Mapping[str, Aggregate | tuple[str, Aggregate]]",
    *,
    by: str | Sequence[str] = (),
    time: str | Callable[[Any], datetime | int] = "time",
    lateness: float = 0.0,
    idle: float | None = None,
) -> "Operator[dict[str, Any]]":
    """One row for each window and series: its start as `time`, and aggregates of its values.

        resample(rows, 60, {"load": "mean", "peak": ("load", "max")}, by="host")

    Values that are None or NaN are left out; a column without any value in a window is None.
    Memory: one value for each aggregate, of the open windows.

    Args:
        rows: a source.
        seconds: the length of a window.
        columns: for each column of the result an aggregate, of the column with the same name or of
            the one named in the tuple.
        by: the columns that identify a series.
        time, lateness, idle: see `tumbling`. Rows of one series do not wait for those of others:
            the newest time of all series counts.

    Raises:
        ValueError: a number is out of range, or there is no such aggregate.
        TypeError: `rows` is not a source; from the iterator: a value that is not a number in "sum"
            or "mean".
        KeyError, AttributeError: from the iterator; a row does not have one of the columns.
    """
    return _series_windows(rows, _Times(seconds, time, lateness, idle), _plan(columns), by)


def ohlc(
    rows: "Source[Any]",
    seconds: float,
    *,
    value: str = "price",
    volume: str | None = None,
    by: str | Sequence[str] = (),
    time: str | Callable[[Any], datetime | int] = "time",
    lateness: float = 0.0,
    idle: float | None = None,
) -> "Operator[dict[str, Any]]":
    """One bar for each window and series: `time`, `open`, `high`, `low`, `close`; with `volume`
    also `volume` and `vwap`, the average value weighted by volume.

    Args:
        rows: a source.
        seconds: the length of a bar.
        value: the column of the value.
        volume: the column of the volume.
        by, time, lateness, idle: see `resample`.

    Raises as `resample`.
    """
    plan = _plan(
        {
            "open": (value, "first"),
            "high": (value, "max"),
            "low": (value, "min"),
            "close": (value, "last"),
        }
    )
    if volume is not None:
        plan += [
            _Output("volume", (volume,), _Sum),
            _Output("vwap", (value, volume), _WeightedMean),
        ]
    return _series_windows(rows, _Times(seconds, time, lateness, idle), plan, by)


# Reading sources


class _Reader:
    """Reads several sources, each in a task of its own, into one bounded queue."""

    def __init__(self, sources: "Sequence[AsyncIterable[Any]]") -> None:
        self._sources = sources
        self._tasks: list[asyncio.Task[None]] = []
        self._rows: deque[tuple[int, Any]] = deque()
        self._open = len(sources)
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._space = asyncio.Event()
        self.is_closed = False

    def start(self) -> None:
        """Create the tasks."""
        for index, source in enumerate(self._sources):
            self._tasks.append(asyncio.create_task(self._read(index, source)))
        self._sources = ()

    async def _read(self, index: int, source: AsyncIterable[Any]) -> None:
        try:
            iterator = aiter(source)
            try:
                async for row in iterator:
                    self._rows.append((index, row))
                    self._wake()
                    while len(self._rows) >= READ_AHEAD:
                        self._space.clear()
                        await self._space.wait()
            finally:
                aclose = getattr(iterator, "aclose", None)
                if aclose is not None:
                    await aclose()
        except BaseException as error:  # a task that raises SystemExit ends the event loop
            failure = contained(error, requested=self.is_closed)
            if failure is None:
                raise
            if self.is_closed:
                log.error("a source of an operator failed while it closed", exc_info=failure)
            elif self._error is None:
                self._error = failure
        finally:
            self._open -= 1
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, seconds: float) -> tuple[int, Any]:
        """The next row and the number of its source.

        Raises:
            TimeoutError: there was none for so many seconds.
            StopAsyncIteration: all sources have ended.
            Exception: the error of a source.
        """
        if not self._rows and self._open and self._error is None:
            await self._wait(seconds)
        if self._rows:
            found = self._rows.popleft()
            if len(self._rows) <= READ_AHEAD // 2:
                self._space.set()
            return found
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        if not self._open:
            raise StopAsyncIteration
        raise TimeoutError

    async def _wait(self, seconds: float) -> None:
        if self._waiter is not None:
            raise RuntimeError("expected one task to read an operator, got a second one")
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None if seconds == math.inf else loop.call_later(seconds, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def cancel(self) -> None:
        """Cancel the tasks."""
        self.is_closed = True
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel the tasks and wait until the sources have ended.

        A cancellation meanwhile is passed on to them: none outlives the run of its stream.
        """
        self.cancel()
        cancelled: asyncio.CancelledError | None = None
        while tasks := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error
                self.cancel()
        if cancelled is not None:
            raise cancelled


class Operator(Generic[Out]):
    """The rows of an operator: an async iterator."""

    def __init__(self, sources: "Sequence[Source[Any]]") -> None:
        self._reader: _Reader | None = None  # first: `__del__` reads it
        self._sources = [_async_iterable(source) for source in sources]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._results: deque[Out] = deque()
        self._has_ended = False
        self._wait = math.inf  # seconds of silence after which `_timed_out` is called

    def __aiter__(self) -> "Operator[Out]":
        return self

    async def __anext__(self) -> Out:
        while not self._results:
            if self._has_ended:
                raise StopAsyncIteration
            reader = self._reader or self._start()
            try:
                index, row = await reader.next(self._wait)
            except TimeoutError:
                if reader.is_closed:
                    raise StopAsyncIteration from None
                self._timed_out()
            except StopAsyncIteration:
                self._has_ended = True
                self._finish()
                await self.aclose()
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._has_ended = True
                await self.aclose()
                raise
            else:
                self._receive(index, row)
        return self._results.popleft()

    def _start(self) -> _Reader:
        self._loop = asyncio.get_running_loop()
        self._reader = reader = _Reader(self._sources)
        self._sources = []
        reader.start()
        close_with_run(reader)  # not self: it may be gone while its sources still close
        return reader

    async def aclose(self) -> None:
        """Close the sources: their `finally` has run when it returns. A later call does nothing."""
        self._has_ended = True
        if self._reader is not None:
            await self._reader.aclose()

    def __del__(self) -> None:
        if self._reader is not None and not self._reader.is_closed and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._reader.cancel)
            except RuntimeError:
                pass  # the event loop is closed, and its tasks with it

    @abstractmethod
    def _receive(self, index: int, row: Any) -> None:
        """A row of the source with this number."""

    def _timed_out(self) -> None:
        """No row has arrived for `_wait` seconds."""

    def _finish(self) -> None:
        """All sources have ended."""


def _async_iterable(source: Any) -> AsyncIterable[Any]:
    if isinstance(source, AsyncIterable):
        return source
    is_rows = isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping)
    if is_rows and not is_table(type(source)):
        return _iterate(source)
    hint = ""
    if hasattr(source, "subscribe"):
        hint = "; call its subscribe()"
    elif is_table(type(source)):
        hint = "; pass its rows as a list of dicts"
    shown = short_repr(source)
    raise TypeError(f"a source must be an async iterable or a list of rows, got {shown}{hint}")


async def _iterate(rows: Iterable[T]) -> AsyncGenerator[T, None]:
    for row in rows:
        yield row


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return value


class _WithTimeout(Operator[Any]):
    def __init__(self, rows: "Source[Any]", seconds: float, default: Any) -> None:
        super().__init__([rows])
        self._wait = seconds
        self._default = default

    def _receive(self, index: int, row: Any) -> None:
        self._results.append(row)

    def _timed_out(self) -> None:
        self._results.append(self._default)


class _Merge(Operator[Any]):
    def _receive(self, index: int, row: Any) -> None:
        self._results.append(row)


class _CombineLatest(Operator[tuple[Any, ...]]):
    def __init__(self, sources: "Sequence[Source[Any]]") -> None:
        super().__init__(sources)
        self._count = len(sources)
        self._newest: dict[int, Any] = {}

    def _receive(self, index: int, row: Any) -> None:
        self._newest[index] = row
        if len(self._newest) == self._count:
            self._results.append(tuple(self._newest[number] for number in range(self._count)))


# Windows


class _Times:
    """The times of rows, and the windows in which they lie, in microseconds since 1970."""

    def __init__(
        self,
        seconds: float,
        time: str | Callable[[Any], Any],
        lateness: float,
        idle: float | None,
    ) -> None:
        self.length = round(_positive("seconds", seconds) * 1e6)
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
            self.idle = math.inf if idle == math.inf else _positive("idle", idle)
        self._time = time

    def of(self, row: Any) -> int:
        """The time of a row."""
        if callable(self._time):
            found = self._time(row)
        elif self._time == "time":
            found = _optional(row, "time")
            if found is None:
                return clock.time_ns() // 1000
        else:
            found = _value(row, self._time)
        if isinstance(found, datetime):
            if found.tzinfo is None:
                raise ValueError(f"a time must have a time zone, got {found!r}")
            return (found - EPOCH) // _MICROSECOND
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return int(found * 1000)
        raise TypeError(f"a time must be an aware datetime or Unix milliseconds, got {found!r}")


class _Windows(Operator[Out]):
    """Rows in open windows. `make` makes what a window holds, `add` adds a row with its time, and
    `results` returns what a closed window becomes."""

    def __init__(
        self,
        rows: "Source[Any]",
        times: _Times,
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
    return (Window(_datetime(start), _datetime(end), rows),)


def _datetime(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


# Aggregates


class _Output(NamedTuple):
    """A column of the result: the columns that it needs, and what makes it of their values."""

    name: str
    columns: tuple[str, ...]
    accumulator: "type[_Accumulator]"


class _Accumulator:
    """One aggregate of one series in one window."""

    __slots__ = ("count", "time", "value")

    takes: str
    """What its values must be, as an error names it."""

    def __init__(self) -> None:
        self.value: Any = None
        self.time = 0
        self.count: Any = 0

    @abstractmethod
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        """Add a value, which is not None. Raises TypeError for one that does not fit."""

    @property
    def result(self) -> Any:
        """The value of the window."""
        return self.value


class _First(_Accumulator):
    takes = "of any type"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or time < self.time:
            self.value, self.time = value, time


class _Last(_First):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or time >= self.time:
            self.value, self.time = value, time


class _Min(_Accumulator):
    takes = "of one type"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or value < self.value:
            self.value = value


class _Max(_Min):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or value > self.value:
            self.value = value


class _Sum(_Accumulator):
    takes = "numbers"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        # `0 +` refuses what can be added to its like but is not a number, such as texts
        self.value = 0 + value if self.value is None else self.value + value


class _Mean(_Sum):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        super().add(time, value)
        self.count += 1

    @property
    def result(self) -> Any:
        return self.value / self.count if self.count else None


class _Count(_First):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        self.count += 1

    @property
    def result(self) -> Any:
        return self.count


class _WeightedMean(_Mean):
    """`value` is the sum of value times weight, `count` that of the weights."""

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        total = (0 + value) * weight
        self.value = total if self.value is None else self.value + total
        self.count += weight


_ACCUMULATORS: Mapping[str, type[_Accumulator]] = {
    "first": _First,
    "last": _Last,
    "min": _Min,
    "max": _Max,
    "sum": _Sum,
    "mean": _Mean,
    "count": _Count,
}


def _plan(columns: "Mapping[str, Any]") -> list[_Output]:
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns must be a dict of aggregates, got {columns!r}")
    plan = []
    for name, given in columns.items():
        column, aggregate = given if isinstance(given, tuple) and len(given) == 2 else (name, given)
        if not isinstance(column, str) or aggregate not in get_args(Aggregate):
            expected = ", ".join(get_args(Aggregate))
            raise ValueError(f"the aggregate of {name!r} must be one of {expected}, got {given!r}")
        plan.append(_Output(name, (column,), _ACCUMULATORS[aggregate]))
    return plan


def _series_windows(
    rows: "Source[Any]", times: _Times, plan: list[_Output], by: str | Sequence[str]
) -> "Operator[dict[str, Any]]":
    keys = (by,) if isinstance(by, str) else by
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"by must be the name of a column or a list of names, got {by!r}")
    columns = list(dict.fromkeys(column for output in plan for column in output.columns))
    places = [[columns.index(column) for column in output.columns] for output in plan]

    def add(window: dict[tuple[Any, ...], list[_Accumulator]], time: int, row: Any) -> None:
        series = tuple([_value(row, key) for key in keys])
        accumulators = window.get(series)
        if accumulators is None:
            accumulators = window[series] = [each.accumulator() for each in plan]
        values = [_value(row, column) for column in columns]
        given = [value is not None and value == value for value in values]  # NaN differs from NaN
        for number, accumulator in enumerate(accumulators):
            place, *more = places[number]
            if not given[place] or (more and not given[more[0]]):
                continue
            try:
                accumulator.add(time, values[place], values[more[0]] if more else None)
            except TypeError:
                raise _unfit(plan[number], [values[i] for i in places[number]]) from None

    def results(start: int, end: int, window: Any) -> "Iterable[dict[str, Any]]":
        for series, accumulators in window.items():
            yield {
                "time": _datetime(start),
                **dict(zip(keys, series, strict=True)),
                **{o.name: a.result for o, a in zip(plan, accumulators, strict=True)},
            }

    return _Windows(rows, times, dict, add, results)


def _unfit(output: _Output, values: list[Any]) -> TypeError:
    shown = ", ".join(f"{c}={v!r}" for c, v in zip(output.columns, values, strict=True))
    takes = output.accumulator.takes
    return TypeError(f"the values of {output.name!r} must be {takes}, got {shown}")


def _value(row: Any, name: str) -> Any:
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError) as error:
        kind = KeyError if isinstance(error, KeyError) else AttributeError
        raise kind(f"a row has no column {name!r}: {short_repr(row)}") from None


def _optional(row: Any, name: str) -> Any:
    if isinstance(row, Mapping):
        return cast("Mapping[str, Any]", row).get(name)
    return getattr(row, name, None)
