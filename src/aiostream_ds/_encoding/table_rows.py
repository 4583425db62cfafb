"""Tables of other libraries as rows of a channel, and as rows of a history."""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from aiostream_ds._encoding.blocks import to_list
from aiostream_ds._encoding.row_columns import TIME
from aiostream_ds._frames.dataframes import is_table
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.times import EPOCH

__all__ = ["frame_rows", "history_rows", "is_table", "live_rows", "python_values"]


def live_rows(table: Any) -> "Frame | Sequence[Any]":
    """The rows of a table that a stream has yielded; those without a time have that of this call.

    Raises:
        FrameError: see `Frame.from_table`.
        TypeError: the column `time` is not of times, and no other column is.
    """
    frame = _rows(table)
    if frame is None:
        return []
    times = _time_field(frame)
    stamp = time.time_ns() // 1_000_000
    if times is None:
        stamps = Field(TIME, [stamp] * frame.rows, FieldType.TIME, nullable=False)
        return Frame(stamps, *frame.fields)
    if times.name == TIME and times.values.__class__ is list and None in times.values:
        times.values = [stamp if value is None else value for value in times.values]
    return frame


def history_rows(table: Any) -> "Frame | Sequence[Any]":
    """The rows of a table that a history hook has returned.

    Raises:
        FrameError: see `Frame.from_table`.
        TypeError: no column is of times.
    """
    frame = _rows(table)
    if frame is None:
        return []
    if _time_field(frame) is None:
        names = ", ".join(field.name for field in frame.fields[:10])
        raise TypeError(f"a table of a history must have a column {TIME!r}, got {names}")
    return frame


def frame_rows(frame: Frame) -> Iterator[dict[str, Any]]:
    """The rows of a frame as dicts; times as datetimes, in microseconds."""
    columns = [python_values(field) for field in frame.fields]
    names = [field.name for field in frame.fields]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def python_values(field: Field) -> list[Any]:
    """The values of a field as Python objects; times as datetimes in UTC, in microseconds."""
    values = to_list(field.values)
    if field.type is not FieldType.TIME:
        return values
    nanos = [0] * len(values) if field.nanos is None else to_list(field.nanos)
    return [
        None if ms is None else EPOCH + timedelta(milliseconds=ms, microseconds=below // 1000)
        for ms, below in zip(values, nanos, strict=True)
    ]


def _rows(table: Any) -> Frame | None:
    """None: the table is empty. Its columns may not have their types yet."""
    frame = Frame.from_table(table)
    return frame if frame.rows else None


def _time_field(frame: Frame) -> Field | None:
    times = [field for field in frame.fields if field.type is FieldType.TIME]
    named = next((field for field in frame.fields if field.name == TIME), None)
    if not times and named is not None:
        raise TypeError(
            f"column {TIME!r} must be times, or integers of Unix milliseconds, got"
            f" {named.type.value}; convert it, or leave it out to have the time of the yield"
        )
    return next((field for field in times if field.name == TIME), next(iter(times), None))
