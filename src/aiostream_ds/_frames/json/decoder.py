"""Frames from JSON: whole payloads, and the rows of many packets."""

import reprlib
from collections.abc import Sequence
from functools import cache
from math import inf, nan
from typing import Any, TypeVar

import msgspec

from aiostream_ds._frames.columns import FrameError
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._frames.json.structs import (
    DataObject,
    Entities,
    FieldSchema,
    FrameSchema,
    Payload,
)
from aiostream_ds._frames.packet import Packet, Schema

__all__ = ["decode", "decode_rows"]

_T = TypeVar("_T")


@cache
def _decoder(kind: type[_T]) -> "msgspec.json.Decoder[_T]":
    return msgspec.json.Decoder(kind)  # made on first use: most plugins decode nothing


def decode(payload: bytes | str, schema: Schema | None = None) -> Frame:
    """The frame of a payload; `schema` is an earlier packet's, for a payload with data only.

    Raises:
        FrameError: the payload is not frame JSON, it has no schema, or the data does not fit it.
    """
    try:
        content = _decoder(Payload).decode(payload)
        head = content.schema
        if head is None and schema is not None:
            head = _decoder(FrameSchema).decode(schema.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown = reprlib.repr(payload)
        raise FrameError(f"expected frame JSON, got {shown}: {error}") from None
    if head is None:
        shown = reprlib.repr(payload)
        raise FrameError(
            f"expected a payload with a schema, got {shown}; pass the schema of an earlier packet"
        )
    body = content.data or DataObject([])
    # Grafana writes [] for the values of a frame that has fields and no rows, too.
    values = body.values or [[] for _ in head.fields]
    count = len(head.fields)
    for key, found in (("values", values), ("entities", body.entities), ("nanos", body.nanos)):
        if found is not None and len(found) != count:
            raise FrameError(f"{key} must have {count} columns, as the schema, got {len(found)}")
    nanos = body.nanos or [None] * count
    for column, entities in zip(values, body.entities or [None] * count, strict=True):
        if entities is not None:
            _restore(column, entities)
    fields = [
        _field(each, column, below)
        for each, column, below in zip(head.fields, values, nanos, strict=True)
    ]
    frame = Frame(*fields, name=head.name, ref_id=head.ref_id, meta=head.meta)
    frame.check()
    return frame


def decode_rows(packets: Sequence[Packet], schema: Schema) -> Frame:
    """One frame with the rows of all packets; all have this schema.

    Raises:
        FrameError: a packet does not fit the schema.
    """
    heads = _decoder(FrameSchema).decode(schema.body).fields
    columns: list[list[Any]] = [[] for _ in heads]
    below: list[list[int]] = [[] for _ in heads]
    has_nanos = [False] * len(heads)
    for packet in packets:
        body = _decoder(DataObject).decode(packet.data)
        if len(body.values) != len(heads):
            raise FrameError(
                f"values must have {len(heads)} columns, as the schema, got {len(body.values)}"
            )
        for index, values in enumerate(body.values):
            entities = body.entities[index] if body.entities else None
            if entities is not None:
                _restore(values, entities)
            columns[index] += values
            nanos = body.nanos[index] if body.nanos else None
            has_nanos[index] = has_nanos[index] or nanos is not None
            below[index] += nanos or [0] * len(values)
    fields = [
        _field(head, values, nanos if is_set else None)
        for head, values, nanos, is_set in zip(heads, columns, below, has_nanos, strict=True)
    ]
    return Frame(*fields)


def _field(head: FieldSchema, values: list[Any], nanos: list[int] | None) -> Field:
    if head.type_info is None:
        raise FrameError(f"field {head.name!r}: expected a typeInfo, got none")
    return Field(
        head.name,
        values,
        head.type_info.frame,
        labels=head.labels,
        config=head.config,
        nullable=head.type_info.nullable,
        nanos=nanos,
    )


def _restore(values: list[Any], entities: Entities) -> None:
    """Put NaN and infinities back into their rows."""
    for rows, value in ((entities.nan, nan), (entities.inf, inf), (entities.neg_inf, -inf)):
        for row in rows:
            if not 0 <= row < len(values):
                raise FrameError(f"entities must name rows 0 to {len(values) - 1}, got row {row}")
            values[row] = value
