"""Rows of frames: packets joined to one frame, and parts of a frame.

Imports its own room only.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from aiostream_ds._frames import json
from aiostream_ds._frames.columns import FieldType
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._frames.packet import Packet, Schema

__all__ = ["between", "join", "part"]


def join(packets: Sequence[Packet], schema: Schema | None) -> Frame:
    """The rows of packets in the columns of `schema`; of the last packet's where it is None.

    A column that a packet has not is None there; one of another type is read as the schema's.
    """
    schema = packets[-1].schema if schema is None and packets else schema
    if schema is None:
        return Frame()
    groups = groupby(packets, key=lambda packet: packet.schema.fingerprint)
    frames = []
    for _, group in groups:
        alike = list(group)
        frames.append(json.decode_rows(alike, alike[0].schema))
    wanted = json.decode_rows((), schema)
    if len(frames) == 1 and packets[0].schema.fingerprint == schema.fingerprint:
        return frames[0]
    return Frame(*(_joined(field, frames) for field in wanted.fields))


def _joined(wanted: Field, frames: Sequence[Frame]) -> Field:
    values: list[Any] = []
    nanos: list[int] = []
    for frame in frames:
        found = next((field for field in frame.fields if field.name == wanted.name), None)
        if found is None:
            values += [None] * frame.rows
            nanos += [0] * frame.rows
        else:
            values += _as(wanted.type, found)
            nanos += found.nanos or [0] * frame.rows
    return Field(
        wanted.name,
        values,
        wanted.type,
        labels=wanted.labels,
        config=wanted.config,
        nullable=wanted.nullable or None in values,
        nanos=nanos if any(nanos) and wanted.type is FieldType.TIME else None,
    )


def _as(kind: FieldType, field: Field) -> list[Any]:
    """The values as another type has them; what it cannot have is None."""
    if field.type is kind:
        return list(field.values)
    make = _MADE.get((field.type, kind))
    if make is None:
        return [None] * len(field.values)
    return [None if value is None else make(value) for value in field.values]


_MADE: dict[tuple[FieldType, FieldType], Callable[[Any], Any]] = {
    (FieldType.INT64, FieldType.FLOAT64): float,
    (FieldType.INT64, FieldType.STRING): str,
    (FieldType.FLOAT64, FieldType.STRING): str,
    (FieldType.BOOL, FieldType.STRING): lambda value: "true" if value else "false",
}


def part(frame: Frame, start: int, stop: int) -> Frame:
    """The rows from `start` up to, not including, `stop`."""
    if start <= 0 and stop >= frame.rows:
        return frame
    return _picked(frame, lambda values: values[max(0, start) : stop])


def between(frame: Frame, start_ms: float, end_ms: float, limit: int) -> Frame:
    """The newest `limit` rows whose time, that of the first time field, is in the span; all rows of
    a frame without time count."""
    times = next((field.values for field in frame.fields if field.type is FieldType.TIME), None)
    if times is None:
        return part(frame, frame.rows - limit, frame.rows)
    places = [
        place for place, time in enumerate(times) if time is not None and start_ms <= time <= end_ms
    ][-limit:]
    if len(places) == frame.rows:
        return frame
    return _picked(frame, lambda values: [values[place] for place in places])


def _picked(frame: Frame, pick: Callable[[Any], Any]) -> Frame:
    fields = [
        Field(
            field.name,
            pick(field.values),
            field.type,
            labels=field.labels,
            config=field.config,
            nullable=field.nullable,
            nanos=None if field.nanos is None else pick(field.nanos),
        )
        for field in frame.fields
    ]
    return Frame(*fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)
