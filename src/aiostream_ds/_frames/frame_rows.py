"""Rows of frames: some rows of a frame, and packets joined to one frame."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from aiostream_ds._frames import json
from aiostream_ds._frames.columns import FLOATS, RANGES, FieldType
from aiostream_ds._frames.config import FrameMeta, Notice
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._frames.packet import Packet, Schema

__all__ = [
    "add_notices",
    "join_frames",
    "join_packets",
    "rows_between",
    "slice_rows",
    "take_rows",
    "take_values",
    "time_field",
    "to_list",
]


def add_notices(frame: Frame, notices: Sequence[Notice]) -> None:
    """Add messages for the corner of the panel."""
    if notices:
        meta = frame.meta or FrameMeta()
        frame.meta = msgspec.structs.replace(meta, notices=(*meta.notices, *notices))


def to_list(values: Any) -> list[Any]:
    """The values of a column as a list: of a list, a numpy array or a pyarrow array."""
    convert = getattr(values, "tolist", None)  # numpy and pyarrow
    found: list[Any] = convert() if convert is not None else list(values)
    return found


def time_field(frame: Frame) -> Field | None:
    """The first TIME field, which has the rows' time."""
    return next((field for field in frame.fields if field.type is FieldType.TIME), None)


def take_values(values: Any, rows: "slice | Sequence[int]") -> Any:
    """These rows of a column: a list, a numpy array or a pyarrow array, of the same type."""
    if isinstance(rows, slice):
        return values[rows]
    if not rows:
        return values[:0]  # numpy does not take an empty list
    take = getattr(values, "take", None)  # numpy and pyarrow
    return [values[row] for row in rows] if take is None else take(list(rows))


def take_rows(frame: Frame, rows: "slice | Sequence[int]") -> Frame:
    """A frame with these rows of `frame`."""
    fields = [
        Field(
            field.name,
            take_values(field.values, rows),
            field.type,
            labels=field.labels,
            config=field.config,
            nullable=field.nullable,
            nanos=None if field.nanos is None else take_values(field.nanos, rows),
        )
        for field in frame.fields
    ]
    return Frame(*fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


def slice_rows(frame: Frame, start: int, stop: int) -> Frame:
    """The rows from `start` up to, not including, `stop`; a negative `start` counts as 0."""
    if start <= 0 and stop >= frame.rows:
        return frame
    return take_rows(frame, slice(max(0, start), stop))


def rows_between(frame: Frame, start_ms: float, end_ms: float) -> Frame:
    """The rows whose time is in the range, ends included. Without a TIME field all rows match."""
    field = time_field(frame)
    if field is None:
        return frame
    rows = [
        row
        for row, time in enumerate(to_list(field.values))
        if time is not None and start_ms <= time <= end_ms
    ]
    return frame if len(rows) == frame.rows else take_rows(frame, rows)


def join_packets(packets: Sequence[Packet], schema: Schema | None) -> Frame:
    """The rows of packets in the columns of `schema`, or of the last packet's schema if it is None.

    Values of a column that a packet does not have are None; values of another type are converted to
    the schema's type.
    """
    schema = packets[-1].schema if schema is None and packets else schema
    if schema is None:
        return Frame()
    frames = []
    for _, group in groupby(packets, key=lambda packet: packet.schema.fingerprint):
        same_schema = list(group)
        frames.append(json.decode_rows(same_schema, same_schema[0].schema))
    if len(frames) == 1 and packets[0].schema.fingerprint == schema.fingerprint:
        return frames[0]
    wanted = json.decode_rows((), schema)
    return Frame(*(_join_field(field, frames) for field in wanted.fields))


def join_frames(frames: Sequence[Frame]) -> Frame:
    """The rows of frames, with the columns of the last one, and after them those that only others
    have. Name and metadata are those of the last one.

    Numbers of several types are floats. Other values that do not have the type of the last ones are
    None; a notice has their number.
    """
    if len(frames) == 1:
        return frames[0]
    columns: dict[str, list[Field]] = {}
    for frame in reversed(frames):
        for field in frame.fields:
            columns.setdefault(field.name, []).append(field)
    joined = [_join_field(f[0], frames, _common_type(f)) for f in columns.values()]
    last = frames[-1]
    found = Frame(*joined, name=last.name, ref_id=last.ref_id, meta=last.meta)
    lost = sum(
        len(each.values) - to_list(each.values).count(None)
        for field in joined
        for each in columns[field.name]
        if not _can_convert(each.type, field.type)
    )
    if lost:
        text = f"{lost:,} values of earlier rows do not have the type of their column."
        add_notices(found, [Notice(severity="warning", text=text)])
    return found


def _common_type(fields: Sequence[Field]) -> FieldType:
    types = {field.type for field in fields}
    return FieldType.FLOAT64 if len(types) > 1 and types <= _NUMBERS else fields[0].type


def _join_field(wanted: Field, frames: Sequence[Frame], type: FieldType | None = None) -> Field:
    type = wanted.type if type is None else type
    values: list[Any] = []
    nanos: list[int] = []
    for frame in frames:
        found = next((field for field in frame.fields if field.name == wanted.name), None)
        if found is None:
            values += [None] * frame.rows
            nanos += [0] * frame.rows
        else:
            values += _convert(found, type)
            nanos += [0] * frame.rows if found.nanos is None else to_list(found.nanos)
    return Field(
        wanted.name,
        values,
        type,
        labels=wanted.labels,
        config=wanted.config,
        nullable=wanted.nullable or None in values,
        nanos=nanos if any(nanos) and type is FieldType.TIME else None,
    )


def _convert(field: Field, wanted: FieldType) -> list[Any]:
    """The values as another type, None for those that it cannot represent."""
    if field.type is wanted:
        return to_list(field.values)
    if not _can_convert(field.type, wanted):
        return [None] * len(field.values)
    convert = _CONVERSIONS.get((field.type, wanted), float)
    return [None if value is None else convert(value) for value in to_list(field.values)]


def _can_convert(type: FieldType, wanted: FieldType) -> bool:
    is_float = wanted is FieldType.FLOAT64 and type in _NUMBERS
    return type is wanted or is_float or (type, wanted) in _CONVERSIONS


_NUMBERS = frozenset({*FLOATS, *RANGES}) - {FieldType.TIME, FieldType.ENUM}


_CONVERSIONS: dict[tuple[FieldType, FieldType], Callable[[Any], Any]] = {
    (FieldType.INT64, FieldType.STRING): str,
    (FieldType.FLOAT64, FieldType.STRING): str,
    (FieldType.BOOL, FieldType.STRING): lambda value: "true" if value else "false",
}
