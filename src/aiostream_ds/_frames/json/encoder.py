"""Frames to JSON: the schema and the data, each as bytes."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import msgspec
import orjson

from aiostream_ds._frames.columns import FLOATS, is_arrow, is_numpy
from aiostream_ds._frames.config import redacted_meta
from aiostream_ds._frames.frame import Field, Frame, check_data, check_schema
from aiostream_ds._frames.json.structs import FieldSchema, FrameSchema, TypeInfo
from aiostream_ds._frames.packet import Packet, Schema, render

__all__ = ["FrameEncoder", "data", "encode", "fingerprint", "make_schema", "packet", "schema"]

_N = ord("n")

# Sorted dict keys: equal schemas have equal bytes, and so equal fingerprints.
_schema_encoder = msgspec.json.Encoder(order="deterministic")


def schema(frame: Frame, *, checked: bool = False) -> bytes:
    """The JSON object of the frame without values; `checked` if `check_schema` was called.

    Raises:
        FrameError: see `check_schema`.
    """
    if not checked:
        check_schema(frame)
    fields = [
        FieldSchema(
            name=field.name,
            type=field.type.kind,
            type_info=TypeInfo(field.type, field.nullable),
            labels=field.labels or None,
            config=field.config,
        )
        for field in frame.fields
    ]
    body = FrameSchema(
        fields=fields, name=frame.name, ref_id=frame.ref_id, meta=redacted_meta(frame.meta)
    )
    return _schema_encoder.encode(body)


def make_schema(frame: Frame, *, checked: bool = False) -> Schema:
    """The frame's schema with its fingerprint; `checked` if `check_schema` was called.

    Raises:
        FrameError: see `check_schema`.
    """
    body = schema(frame, checked=checked)
    return Schema(body, fingerprint(body))


def fingerprint(schema_bytes: bytes) -> str:
    """A short hash of a schema's bytes, the same in every process."""
    import hashlib  # a plugin without streams does not need it

    return hashlib.blake2b(schema_bytes, digest_size=8).hexdigest()


def data(fields: Sequence[Field], *, checked: bool = False) -> bytes:
    """The JSON object of the values; `checked` if `check_data` was called.

    Raises:
        FrameError: see `check_data`.
    """
    if not checked:
        check_data(fields)
    columns = [
        field.values.to_pylist() if is_arrow(field.values) else field.values for field in fields
    ]
    values = orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)
    more = b""
    # NaN and infinities were written as null: without a null there are none. Searching for one
    # letter is many times faster than for the word, and for an int faster than for a letter.
    if _N in values and b"null" in values:
        entities = [_entities(field) for field in fields]
        if any(entities):
            more = b',"entities":' + orjson.dumps(entities)
    for field in fields:
        if field.nanos is not None:
            nanos = [each.nanos for each in fields]
            more += b',"nanos":' + orjson.dumps(nanos, option=orjson.OPT_SERIALIZE_NUMPY)
            break
    # A copy: orjson's result holds far more memory than its bytes need.
    return b"".join((b'{"values":', values, more, b"}"))


def encode(frame: Frame, *, checked: bool = False) -> bytes:
    """Schema and data of a frame: QueryData's answer if JSON is requested.

    Raises:
        FrameError: see `Frame.check`.
    """
    whole = packet(frame, checked=checked)
    return render(whole.schema, whole)


def packet(frame: Frame, *, checked: bool = False) -> Packet:
    """The frame as a packet of a channel; `checked` if `Frame.check` was called.

    Raises:
        FrameError: see `Frame.check`.
    """
    head = make_schema(frame, checked=checked)
    return Packet(head, data(frame.fields, checked=checked), frame.rows)


class FrameEncoder:
    """Makes packets of consecutive frames. The schema is made, checked and hashed once for frames
    that follow each other with the same name, metadata and fields."""

    __slots__ = ("_key", "_schema")

    def __init__(self) -> None:
        self._key: list[Any] = []
        self._schema = Schema(b"", "")

    def packet(self, frame: Frame) -> Packet:
        """The frame as a packet.

        Raises:
            FrameError: see `Frame.check`. The encoder has not changed.
        """
        fields = frame.fields
        key: list[Any] = [frame.name, frame.ref_id, frame.meta]
        for field in fields:
            key += field.name, field.type, field.nullable, field.labels, field.config
        if key != self._key:
            self._schema = make_schema(frame)
            # copies: the author may change labels later
            self._key = [dict(part) if isinstance(part, Mapping) else part for part in key]
        rows = len(fields[0].values) if fields else 0
        return Packet(self._schema, data(fields), rows)


def _entities(field: Field) -> dict[str, list[int]] | None:
    values = field.values
    if field.type not in FLOATS or not len(values):
        return None
    if is_numpy(values):
        # NaN is both minimum and maximum, so two checks find any value that is not finite.
        if isfinite(values.min()) and isfinite(values.max()):
            return None
        rows = {
            "NaN": (values != values).nonzero()[0].tolist(),
            "Inf": (values == inf).nonzero()[0].tolist(),
            "NegInf": (values == -inf).nonzero()[0].tolist(),
        }
    else:
        # One pass in C: only a sum that is not finite makes the search necessary.
        if isfinite(sum(filter(None, values))):
            return None
        rows = {
            "NaN": [row for row, value in enumerate(values) if value != value],
            "Inf": [row for row, value in enumerate(values) if value == inf],
            "NegInf": [row for row, value in enumerate(values) if value == -inf],
        }
    return {key: found for key, found in rows.items() if found} or None
