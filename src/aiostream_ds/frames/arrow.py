"""Frames as Arrow IPC files, the form in which QueryData answers, and back.

The only module that imports pyarrow, and only inside its functions: the import takes long enough
to hold up every stream, so whoever serves queries does it in a thread, with `load`. What is
written is what Grafana's Go SDK writes: one file with a footer, no compression, no dictionaries.
"""

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from aiostream_ds.frames.columns import FieldType, FrameError, is_array
from aiostream_ds.frames.config import FieldConfig, FrameMeta
from aiostream_ds.frames.frame import Field, Frame

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decode", "encode", "load"]

# Grafana's type by the name of the Arrow type.
_TYPES = {
    "int8": FieldType.INT8,
    "int16": FieldType.INT16,
    "int32": FieldType.INT32,
    "int64": FieldType.INT64,
    "uint8": FieldType.UINT8,
    "uint16": FieldType.UINT16,
    "uint32": FieldType.UINT32,
    "uint64": FieldType.UINT64,
    "float": FieldType.FLOAT32,
    "double": FieldType.FLOAT64,
    "string": FieldType.STRING,
    "bool": FieldType.BOOL,
    "timestamp[ns]": FieldType.TIME,
    "binary": FieldType.JSON,
}
_NAMES = {field_type: name for name, field_type in _TYPES.items()} | {FieldType.ENUM: "uint16"}

_meta_encoder = msgspec.json.Encoder(order="deterministic")
_labels_decoder = msgspec.json.Decoder(dict[str, str])
_config_decoder = msgspec.json.Decoder(FieldConfig)
_meta_decoder = msgspec.json.Decoder(FrameMeta)


def load() -> None:
    """Import pyarrow now; meant to be called in a thread before the first query is answered."""
    import pyarrow.ipc  # noqa: F401


def encode(frame: Frame, *, checked: bool = False) -> bytes:
    """The frame as an Arrow file of one record batch; `checked` if `Frame.check` was called.

    Raises:
        FrameError: see `Frame.check`.
    """
    import pyarrow as pa

    if not checked:
        frame.check()
    metadata: dict[str, str | bytes] = {"name": frame.name, "refId": frame.ref_id}
    if frame.meta is not None:
        metadata["meta"] = _meta_encoder.encode(frame.meta)
    heads = [_head(field) for field in frame.fields]
    arrays = [_array(field, head.type) for field, head in zip(frame.fields, heads, strict=True)]
    schema = pa.schema(heads, metadata=metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode(content: bytes) -> Frame:
    """The frame in an Arrow file, as Grafana reads it: a timestamp counts ns whatever its unit.

    Raises:
        FrameError: it is no Arrow file, or has a type or metadata that Grafana does not read.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(content).read_all()
    except (pa.ArrowException, OSError) as error:
        raise FrameError(f"no Arrow file: {error}") from None
    metadata = table.schema.metadata or {}
    fields = [
        _field(head, column) for head, column in zip(table.schema, table.columns, strict=True)
    ]
    frame = Frame(
        *fields,
        name=metadata.get(b"name", b"").decode(),
        ref_id=metadata.get(b"refId", b"").decode(),
        meta=_metadata(metadata, b"meta", _meta_decoder, "frame"),
    )
    frame.check()
    return frame


def _head(field: Field) -> "pa.Field":
    import pyarrow as pa

    metadata: dict[str, str | bytes] = {"tstype": field.type.kind}
    if field.labels:
        metadata["labels"] = _meta_encoder.encode(field.labels)
    if field.config is not None:
        metadata["config"] = _meta_encoder.encode(field.config)
    name = _NAMES[field.type]
    arrow_type = pa.timestamp("ns") if field.type is FieldType.TIME else pa.type_for_alias(name)
    return pa.field(field.name, arrow_type, nullable=field.nullable, metadata=metadata)


def _array(field: Field, arrow_type: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    values = field.values
    if field.type is FieldType.TIME:
        return pa.array(_nanoseconds(field), pa.int64()).view(arrow_type)
    if field.type is FieldType.JSON:
        values = [
            None if value is None and field.nullable else _json(value) for value in field.values
        ]
    return pa.array(values, arrow_type)


def _nanoseconds(field: Field) -> Any:
    values, nanos = field.values, field.nanos
    if is_array(values):
        whole = values * 1_000_000
        return whole if nanos is None else whole + nanos
    if nanos is None:
        return [None if value is None else value * 1_000_000 for value in values]
    rows = zip(values, nanos, strict=True)
    return [None if value is None else value * 1_000_000 + nano for value, nano in rows]


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _field(head: "pa.Field", column: "pa.ChunkedArray") -> Field:
    import pyarrow as pa

    metadata = head.metadata or {}
    where = f"field {head.name!r}"
    if pa.types.is_timestamp(head.type):
        field_type = FieldType.TIME
    elif str(head.type) == "uint16" and metadata.get(b"tstype") == b"enum":
        field_type = FieldType.ENUM
    elif str(head.type) in _TYPES:
        field_type = _TYPES[str(head.type)]
    else:
        raise FrameError(f"{where} is of Arrow type {head.type}; allowed are {', '.join(_TYPES)}")
    nanos = None
    if field_type is FieldType.TIME:
        counts = [count for chunk in column.chunks for count in chunk.view(pa.int64()).to_pylist()]
        values = [None if count is None else count // 1_000_000 for count in counts]
        below = [0 if count is None else count % 1_000_000 for count in counts]
        nanos = below if any(below) else None
    else:
        values = column.to_pylist()
    if field_type is FieldType.JSON:
        try:
            # Go writes a raw message that was never set as no bytes at all.
            values = [orjson.loads(value) if value else None for value in values]
        except orjson.JSONDecodeError as error:
            raise FrameError(f"{where} has a value that is no JSON: {error}") from None
    return Field(
        head.name,
        values,
        field_type,
        labels=_metadata(metadata, b"labels", _labels_decoder, where),
        config=_metadata(metadata, b"config", _config_decoder, where),
        nullable=head.nullable,
        nanos=nanos,
    )


def _metadata(metadata: dict[bytes, bytes], key: bytes, decoder: Any, where: str) -> Any:
    text = metadata.get(key)
    if text is None:
        return None
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise FrameError(f"{where}: {key.decode()} cannot be read: {error}") from None
