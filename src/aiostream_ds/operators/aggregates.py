"""One row for each window and series: aggregates of its values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, get_args

from aiostream_ds.operators.accumulators import (
    ACCUMULATORS,
    Accumulator,
    Aggregate,
    Sum,
    WeightedMean,
)
from aiostream_ds.operators.reading import Operator, Source
from aiostream_ds.operators.row_values import value_of
from aiostream_ds.operators.windows import RowTimes, Windows, to_datetime

__all__ = ["ohlc", "resample"]


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
        LookupError: from the iterator; a row does not have one of the columns.
    """
    return _series_windows(rows, RowTimes(seconds, time, lateness, idle), _plan(columns), by)


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
            _Output("volume", (volume,), Sum),
            _Output("vwap", (value, volume), WeightedMean),
        ]
    return _series_windows(rows, RowTimes(seconds, time, lateness, idle), plan, by)


class _Output(NamedTuple):
    """A column of the result: the columns that it needs, and what makes it of their values."""

    name: str
    columns: tuple[str, ...]
    accumulator: "type[Accumulator]"


def _plan(columns: "Mapping[str, Any]") -> list[_Output]:
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns must be a dict of aggregates, got {columns!r}")
    plan = []
    for name, given in columns.items():
        column, aggregate = given if isinstance(given, tuple) and len(given) == 2 else (name, given)
        if not isinstance(column, str) or aggregate not in get_args(Aggregate):
            expected = ", ".join(get_args(Aggregate))
            raise ValueError(f"the aggregate of {name!r} must be one of {expected}, got {given!r}")
        plan.append(_Output(name, (column,), ACCUMULATORS[aggregate]))
    return plan


def _series_windows(
    rows: "Source[Any]", times: RowTimes, plan: list[_Output], by: str | Sequence[str]
) -> "Operator[dict[str, Any]]":
    keys = (by,) if isinstance(by, str) else by
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"by must be the name of a column or a list of names, got {by!r}")
    columns = list(dict.fromkeys(column for output in plan for column in output.columns))
    places = [[columns.index(column) for column in output.columns] for output in plan]

    def add(window: dict[tuple[Any, ...], list[Accumulator]], time: int, row: Any) -> None:
        series = tuple([value_of(row, key) for key in keys])
        accumulators = window.get(series)
        if accumulators is None:
            accumulators = window[series] = [each.accumulator() for each in plan]
        values = [value_of(row, column) for column in columns]
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
                "time": to_datetime(start),
                **dict(zip(keys, series, strict=True)),
                **{o.name: a.result for o, a in zip(plan, accumulators, strict=True)},
            }

    return Windows(rows, times, dict, add, results)


def _unfit(output: _Output, values: list[Any]) -> TypeError:
    shown = ", ".join(f"{c}={v!r}" for c, v in zip(output.columns, values, strict=True))
    takes = output.accumulator.takes
    return TypeError(f"the values of {output.name!r} must be {takes}, got {shown}")
