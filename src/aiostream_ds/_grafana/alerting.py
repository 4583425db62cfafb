"""The answers of a channel for alert rules, in a form that Grafana's expressions accept.

Grafana reads a frame as one series for each of its columns of numbers. It refuses a frame with a
column of text or of booleans, a column without rows, and two series with the same labels
(`pkg/expr/converter.go`, and `TimeSeriesSchema` of the Go SDK).
"""

from collections import Counter
from collections.abc import Collection, Sequence

from aiostream_ds._encoding.blocks import to_list
from aiostream_ds._encoding.field_names import full_name
from aiostream_ds._frames.columns import NUMBERS
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds.errors import BadQuery

__all__ = ["FROM_ALERT", "alert_frames", "is_series"]

FROM_ALERT = "fromalert"
"""The header of a query of an alert rule, in lower case; its value is "true"."""

_SERIES = NUMBERS | {FieldType.TIME}


def alert_frames(frame: Frame, cursor: Collection[str] = ()) -> list[Frame]:
    """A frame for each column of numbers of a history, with its time; booleans are 0 and 1.

    The columns `cursor` and columns of other types are left out. Columns that would have equal
    labels get the label `name`. A column with labels is without the rows of other series. Without
    rows the answer is one frame without fields: no data.

    Raises BadQuery when there are rows, but no time or no column of numbers.
    """
    if not frame.rows:
        return [Frame(name=frame.name, meta=frame.meta)]
    time = next((field for field in frame.fields if field.type is FieldType.TIME), None)
    numbers = [f for f in frame.fields if f.type in NUMBERS and f.name not in cursor]
    if time is None or not numbers:
        found = ", ".join(f"{field.name} ({field.type.value})" for field in frame.fields)
        raise BadQuery(
            f"rows for an alert rule must have a time and a column of numbers, got {found}; return"
            " them from a @query method"
        )
    times = to_list(time.values)
    seen = Counter(frozenset(field.labels.items()) for field in numbers)
    frames = [_series(time.name, times, field, named=max(seen.values()) > 1) for field in numbers]
    frames = [each for each in frames if each.rows]
    if not frames:
        return [Frame(name=frame.name, meta=frame.meta)]
    for each in frames:
        each.name = frame.name
    frames[0].meta = frame.meta
    return frames


def is_series(frame: Frame) -> bool:
    """Whether a frame is a time and numbers: a series for each number."""
    kinds = [field.type for field in frame.fields]
    return kinds.count(FieldType.TIME) == 1 and len(kinds) > 1 and _SERIES.issuperset(kinds)


def _series(time: str, times: list[int | None], field: Field, named: bool) -> Frame:
    values, kind, config = to_list(field.values), field.type, field.config
    if kind is FieldType.BOOL:
        values, kind = [None if value is None else int(value) for value in values], FieldType.UINT8
    elif kind is FieldType.ENUM:
        kind, config = FieldType.UINT16, None
    rows: Sequence[int] = range(len(times))
    if None in times or (field.labels and None in values):
        rows = [
            row
            for row in rows
            if times[row] is not None and not (field.labels and values[row] is None)
        ]
        times, values = [times[row] for row in rows], [values[row] for row in rows]
    labels = _named(field) if named else field.labels
    return Frame(
        Field(time, times, FieldType.TIME, nullable=False),
        Field(field.name, values, kind, labels=labels, config=config, nullable=True),
    )


def _named(field: Field) -> dict[str, str]:
    """The field's labels with its name, without the suffix that makes it unique in a frame."""
    key = "name"
    while key in field.labels:
        key += "_"
    return {**field.labels, key: field.name.removesuffix(full_name("", field.labels))}
