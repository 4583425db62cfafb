"""Frames as Grafana's frame JSON: the schema and the data each as bytes of their own, and back.

    {"schema":{"name"?,"refId"?,"meta"?,"fields":[…]},"data":{"values":[…],"entities"?,"nanos"?}}

JSON has no NaN and no infinity: they are written as null, and `entities` says in which rows.
Times are Unix milliseconds, and `nanos` has what is below. Imports its own room, msgspec, orjson.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import inf, isfinite, nan
from typing import Any, TypeVar

import msgspec
import orjson

from aiostream_ds._frames.arrays import is_arrow
from aiostream_ds._frames.columns import FLOATS, FieldType, FrameError, is_array
from aiostream_ds._frames.config import FieldConfig, FrameMeta
from aiostream_ds._frames.frame import Field, Frame, check_data, check_schema
from aiostream_ds._frames.packet import Packet, Schema, render

__all__ = [
    "FrameEncoder",
    "data",
    "decode",
    "decode_rows",
    "encode",
    "fingerprint",
    "packet",
    "schema",
]


class _TypeInfo(msgspec.Struct, omit_defaults=True):
    frame: FieldType
    nullable: bool = False


class _FieldSchema(msgspec.Struct, omit_defaults=True, rename="camel"):
    name: str = ""
    type: str = ""
    type_info: _TypeInfo | None = None
    labels: Mapping[str, str] | None = None
    config: FieldConfig | None = None


class _FrameSchema(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    name: str = ""
    ref_id: str = ""
    meta: FrameMeta | None = None
    fields: list[_FieldSchema]


class _Entities(msgspec.Struct, rename={"nan": "NaN", "inf": "Inf", "neg_inf": "NegInf"}):
    nan: tuple[int, ...] = ()
    inf: tuple[int, ...] = ()
    neg_inf: tuple[int, ...] = ()


class _Data(msgspec.Struct):
    values: list[list[Any]]
    entities: list[_Entities | None] | None = None
    nanos: list[list[int] | None] | None = None


class _Payload(msgspec.Struct):
    schema: _FrameSchema | None = None
    data: _Data | None = None


_T = TypeVar("_T")
_N = ord("n")

# Sorted dict keys: schemas that mean the same have the same bytes, and so one fingerprint.
_schema_encoder = msgspec.json.Encoder(order="deterministic")


@cache
def _decoder(kind: type[_T]) -> "msgspec.json.Decoder[_T]":
    return msgspec.json.Decoder(kind)  # when first needed: a plugin reads none of these


def schema(frame: Frame, *, checked: bool = False) -> bytes:
    """The JSON object of the frame without its values; `checked` if `check_schema` was called.

    Raises:
        FrameError: see `check_schema`.
    """
    if not checked:
        check_schema(frame)
    fields = [
        _FieldSchema(
            name=field.name,
            type=field.type.kind,
            type_info=_TypeInfo(field.type, field.nullable),
            labels=field.labels or None,
            config=field.config,
        )
        for field in frame.fields
    ]
    body = _FrameSchema(fields=fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)
    return _schema_encoder.encode(body)


def fingerprint(schema_bytes: bytes) -> str:
    """A short hash of a schema's bytes, the same in every process."""
    import hashlib  # only who streams needs it

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
    # NaN and infinities were written as null, so without a null there are none to look for; the
    # one letter is found many times faster than the word, and a number faster than a letter.
    if _N in values and b"null" in values:
        entities = [_entities(field) for field in fields]
        if any(entities):
            more = b',"entities":' + orjson.dumps(entities)
    for field in fields:
        if field.nanos is not None:
            nanos = [each.nanos for each in fields]
            more += b',"nanos":' + orjson.dumps(nanos, option=orjson.OPT_SERIALIZE_NUMPY)
            break
    # A result of orjson holds far more memory than its bytes need until it is copied, as here.
    return b'{"values":%b%b}' % (values, more)


def encode(frame: Frame, *, checked: bool = False) -> bytes:
    """Schema and data of a frame, as QueryData answers where JSON is asked for.

    Raises:
        FrameError: see `Frame.check`.
    """
    whole = packet(frame, checked=checked)
    return render(whole.schema, whole)


def packet(frame: Frame, *, checked: bool = False) -> Packet:
    """The frame as a packet for a channel; `checked` if `Frame.check` was called.

    Raises:
        FrameError: see `Frame.check`.
    """
    body = schema(frame, checked=checked)
    rows = data(frame.fields, checked=checked)
    return Packet(schema=Schema(body, fingerprint(body)), data=rows, rows=frame.rows)


class FrameEncoder:
    """Makes packets of frames that follow each other: the schema is made, checked and hashed once
    for all frames of one shape."""

    __slots__ = ("_schema", "_shape")

    def __init__(self) -> None:
        self._shape: list[Any] = []
        self._schema = Schema(b"", "")

    def packet(self, frame: Frame) -> Packet:
        """The frame as a packet.

        Raises:
            FrameError: see `Frame.check`; the encoder is as it was then.
        """
        fields = frame.fields
        shape: list[Any] = [frame.name, frame.ref_id, frame.meta]
        for field in fields:
            shape += field.name, field.type, field.nullable, field.labels, field.config
        if shape != self._shape:
            body = schema(frame)
            self._schema = Schema(body, fingerprint(body))
            # labels are the author's to change: keep what they were
            self._shape = [dict(part) if isinstance(part, Mapping) else part for part in shape]
        rows = len(fields[0].values) if fields else 0
        return Packet(self._schema, data(fields), rows)


def decode(payload: bytes | str, schema: Schema | None = None) -> Frame:
    """The frame in a payload. One that has data only is read by the `schema` of an earlier packet.

    Raises:
        FrameError: it is not frame JSON, there is no schema, or the data does not fit it.
    """
    try:
        content = _decoder(_Payload).decode(payload)
        head = content.schema
        if head is None and schema is not None:
            head = _decoder(_FrameSchema).decode(schema.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"no frame JSON: {error}") from None
    if head is None:
        raise FrameError("the payload has no schema; give the schema of an earlier packet")
    body = content.data or _Data([])
    # Grafana writes [] for the values of a frame that has fields and no rows, too.
    values = body.values or [[] for _ in head.fields]
    count = len(head.fields)
    for key, found in (("values", values), ("entities", body.entities), ("nanos", body.nanos)):
        if found is not None and len(found) != count:
            raise FrameError(f"{key} has {len(found)} columns; allowed is {count}, as the schema")
    nanos = body.nanos or [None] * count
    for column, entities in zip(values, body.entities or [None] * count, strict=True):
        if entities is not None:
            _put_back(column, entities)
    fields = [
        _field(each, column, below)
        for each, column, below in zip(head.fields, values, nanos, strict=True)
    ]
    frame = Frame(*fields, name=head.name, ref_id=head.ref_id, meta=head.meta)
    frame.check()
    return frame


def decode_rows(packets: Sequence[Packet], schema: Schema) -> Frame:
    """The frame of many packets' rows, all of one schema.

    Raises:
        FrameError: a packet does not fit it.
    """
    heads = _decoder(_FrameSchema).decode(schema.body).fields
    columns: list[list[Any]] = [[] for _ in heads]
    below: list[list[int]] = [[] for _ in heads]
    has_nanos = [False] * len(heads)
    for packet in packets:
        body = _decoder(_Data).decode(packet.data)
        if len(body.values) != len(heads):
            raise FrameError(f"values have {len(body.values)} columns; allowed is {len(heads)}")
        for place, values in enumerate(body.values):
            entities = body.entities[place] if body.entities else None
            if entities is not None:
                _put_back(values, entities)
            columns[place] += values
            nanos = body.nanos[place] if body.nanos else None
            has_nanos[place] = has_nanos[place] or nanos is not None
            below[place] += nanos or [0] * len(values)
    fields = [
        _field(head, values, nanos if own else None)
        for head, values, nanos, own in zip(heads, columns, below, has_nanos, strict=True)
    ]
    return Frame(*fields)


def _field(head: _FieldSchema, values: list[Any], nanos: list[int] | None) -> Field:
    if head.type_info is None:
        raise FrameError(f"field {head.name!r} has no typeInfo")
    return Field(
        head.name,
        values,
        head.type_info.frame,
        labels=head.labels,
        config=head.config,
        nullable=head.type_info.nullable,
        nanos=nanos,
    )


def _entities(field: Field) -> dict[str, list[int]] | None:
    values = field.values
    if field.type not in FLOATS or not len(values):
        return None
    if is_array(values):
        # Smallest and largest are finite only if all are: NaN comes through both.
        if isfinite(values.min()) and isfinite(values.max()):
            return None
        rows = {
            "NaN": (values != values).nonzero()[0].tolist(),
            "Inf": (values == inf).nonzero()[0].tolist(),
            "NegInf": (values == -inf).nonzero()[0].tolist(),
        }
    else:
        # One pass in C; only a sum that is not finite makes a search worth its time.
        if isfinite(sum(filter(None, values))):
            return None
        rows = {
            "NaN": [row for row, value in enumerate(values) if value != value],
            "Inf": [row for row, value in enumerate(values) if value == inf],
            "NegInf": [row for row, value in enumerate(values) if value == -inf],
        }
    return {key: found for key, found in rows.items() if found} or None


def _put_back(values: list[Any], entities: _Entities) -> None:
    for rows, value in ((entities.nan, nan), (entities.inf, inf), (entities.neg_inf, -inf)):
        for row in rows:
            if not 0 <= row < len(values):
                raise FrameError(f"entities name row {row}; allowed is 0 to {len(values) - 1}")
            values[row] = value
