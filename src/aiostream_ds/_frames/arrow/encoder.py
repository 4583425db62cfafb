"""Frames to Arrow IPC files.

Frames with equal schemas have equal files except for the record batch: the bytes around it are
built once and cached.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from aiostream_ds._frames.arrow.record_batch import make_writer
from aiostream_ds._frames.columns import FieldType, is_arrow, is_numpy
from aiostream_ds._frames.config import redacted_meta
from aiostream_ds._frames.frame import Field, Frame, check_data, check_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ARROW_TYPES", "encode", "encode_chunks", "load"]

_MANY_STRINGS = 10_000
"""From this number of strings on, pyarrow.compute and its import of some 50 ms are worth it."""

_MAX_LAYOUTS, _MAX_LAYOUT_BYTES = 256, 16 * 1024
"""The number of cached layouts, and the size of the largest."""

_SMALL = 16 * 1024
"""Bytes of record batches below which a file is joined: each chunk takes time in what follows."""

ARROW_TYPES = {
    FieldType.INT8: "int8",
    FieldType.INT16: "int16",
    FieldType.INT32: "int32",
    FieldType.INT64: "int64",
    FieldType.UINT8: "uint8",
    FieldType.UINT16: "uint16",
    FieldType.UINT32: "uint32",
    FieldType.UINT64: "uint64",
    FieldType.FLOAT32: "float",
    FieldType.FLOAT64: "double",
    FieldType.STRING: "string",
    FieldType.BOOL: "bool",
    FieldType.TIME: "timestamp[ns]",
    FieldType.JSON: "binary",
    FieldType.ENUM: "uint16",
}
"""The names of the Arrow types."""

# A block of the footer: the record batch's offset, its head's length, its body's length.
_BLOCK = Struct("<qi4xq")
_length = Struct("<i").unpack_from  # of the head, at byte 4 of a message
_END_OF_BATCHES = b"\xff\xff\xff\xff\0\0\0\0"

_json_encoder = msgspec.json.Encoder(order="deterministic")


def encode(frame: Frame, *, checked: bool = False) -> bytes:
    """The frame as an Arrow file of one record batch; `checked` if `Frame.check` was called.

    Raises:
        FrameError: see `Frame.check`.
    """
    return b"".join(encode_chunks(frame, checked=checked))


def load() -> None:
    """Import pyarrow. It imports pandas, where that is installed, with its first array."""
    import pyarrow as pa

    pa.array([])


def encode_chunks(frame: Frame, *, checked: bool = False) -> "tuple[bytes | memoryview, ...]":
    """The bytes of `encode` in chunks: saves a copy of a large frame.

    Raises:
        FrameError: see `Frame.check`.
    """
    layout = _layout(frame, checked=checked)
    strings: list[pa.Array | None] | None = None
    if frame.rows >= _MANY_STRINGS:
        strings = [_many_strings(field) for field in frame.fields]
    if not checked:
        _check_rows(frame, strings)
    if not layout.is_known:
        return (_write_file(_record_batch(frame, layout, strings)),)
    message = _common_case_message(frame, layout, strings)
    if message is None:
        message = [memoryview(_record_batch(frame, layout, strings).serialize())]
    return layout.file(message)


class _FileLayout:
    """The common part of the files of frames with equal schemas: the schema, and the bytes before
    and after the record batch.

    The bytes are taken from a file that pyarrow writes. `is_known` is false if another file that is
    put together from them differs from pyarrow's: then pyarrow writes all files.
    """

    __slots__ = ("_after", "_before", "is_known", "schema", "size", "types", "writer")

    def __init__(self, frame: Frame) -> None:
        import pyarrow as pa

        metadata: dict[str, str | bytes] = {"name": frame.name, "refId": frame.ref_id}
        if frame.meta is not None:
            metadata["meta"] = _json_encoder.encode(redacted_meta(frame.meta))
        heads = [_head(field) for field in frame.fields]
        self.types = [head.type for head in heads]
        self.schema = pa.schema(heads, metadata=metadata)
        empty = pa.RecordBatch.from_arrays(
            [pa.array([], t) for t in self.types], schema=self.schema
        )
        sample, message = _write_file(empty), empty.serialize().to_pybytes()
        before, _, after = sample.partition(message + _END_OF_BATCHES)
        head = 8 + _length(message, 4)[0]
        block = _BLOCK.pack(len(before), head, len(message) - head)
        start, _, end = after.partition(block)
        self._before = before
        self._after = _END_OF_BATCHES + start, end
        self.is_known = after.count(block) == 1 and b"".join(self.file([message])) == sample
        types = tuple(field.type for field in frame.fields)
        self.writer = make_writer(types) if self.is_known else None
        self.size = len(sample)

    def file(self, message: Sequence[bytes | memoryview]) -> tuple[bytes | memoryview, ...]:
        """The file with this record batch, in chunks; a small one in a single chunk."""
        before, (start, end) = self._before, self._after
        size = sum(map(len, message))
        head = 8 + _length(message[0], 4)[0]
        parts = before, *message, start, _BLOCK.pack(len(before), head, size - head), end
        if size < _SMALL:
            return (b"".join(parts),)
        return parts


_layouts: dict[Any, _FileLayout] = {}


def _layout(frame: Frame, *, checked: bool) -> _FileLayout:
    key: tuple[Any, ...] | None = None
    found = None
    try:
        key = _layout_key(frame)
        found = _layouts.get(key)
    except Exception:  # `check_schema` raises the error for it
        key = None
    if found is not None:
        return found
    if not checked:
        check_schema(frame)
    layout = _FileLayout(frame)
    if key is not None and not checked and layout.size <= _MAX_LAYOUT_BYTES:
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        _layouts[key] = layout
    return layout


def _layout_key(frame: Frame) -> tuple[Any, ...]:
    """A key that is equal for frames whose files have one layout.

    Config and meta are in it in their JSON form: True equals 1, but their JSON differs.
    """
    key = [frame.name, frame.ref_id, _json_key(frame.meta)]
    for field in frame.fields:  # five items each
        labels, config = field.labels, field.config
        key += (
            field.name,
            field.type,
            field.nullable,
            frozenset(labels.items()) if labels else None,
            None if config is None else _json_key(config),
        )
    return tuple(key)


def _json_key(value: Any) -> Any:
    return None if value is None else (type(value), _json_encoder.encode(value))


def _common_case_message(
    frame: Frame, layout: _FileLayout, strings: "list[pa.Array | None] | None"
) -> list[bytes | memoryview] | None:
    if layout.writer is None:
        return None
    fields = frame.fields
    for field in fields:
        if field.nanos is not None:
            return None
    if strings is None:
        return layout.writer.write([field.values for field in fields])
    columns = zip(fields, strings, strict=True)
    return layout.writer.write([f.values if array is None else array for f, array in columns])


def _record_batch(
    frame: Frame, layout: _FileLayout, strings: "list[pa.Array | None] | None"
) -> "pa.RecordBatch":
    import pyarrow as pa

    strings = strings or [None] * len(frame.fields)
    arrays = [
        _array(field, arrow_type) if array is None else array
        for field, arrow_type, array in zip(frame.fields, layout.types, strings, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=layout.schema)


def _write_file(batch: "pa.RecordBatch") -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _check_rows(frame: Frame, strings: "list[pa.Array | None] | None") -> None:
    """`check_data`, except for fields that became an array of strings, which are valid."""
    fields: Sequence[Field] = frame.fields
    if strings is not None and strings.count(None) < len(strings):
        if len({len(field.values) for field in fields}) > 1:
            check_data(fields)
        fields = [field for field, array in zip(fields, strings, strict=True) if array is None]
    check_data(fields)


def _many_strings(field: Field) -> "pa.Array | None":
    """A long list of strings as an array, joined and split again: faster than one by one.

    None: the list is short, or some value is not a string or not valid UTF-8; `check_data` raises
    the error.
    """
    values = field.values
    if (
        field.type is not FieldType.STRING
        or len(values) < _MANY_STRINGS
        or type(values) is not list
    ):
        return None
    import pyarrow as pa

    try:
        import pyarrow.compute  # packages do not have it

        joined = "\0".join(values)
        if len(joined) >= 1 << 29:  # an array holds 2 GiB, and a character takes up to 4 bytes
            return None
        array = pa.compute.split_pattern(pa.array([joined], pa.string()), "\0").values
    except (ImportError, TypeError, UnicodeEncodeError):
        return None
    return array if len(array) == len(values) else None  # else a string contains a zero


def _head(field: Field) -> "pa.Field":
    import pyarrow as pa

    metadata: dict[str, str | bytes] = {"tstype": field.type.kind}
    if field.labels:
        metadata["labels"] = _json_encoder.encode(field.labels)
    if field.config is not None:
        metadata["config"] = _json_encoder.encode(field.config)
    name = ARROW_TYPES[field.type]
    arrow_type = pa.timestamp("ns") if field.type is FieldType.TIME else pa.type_for_alias(name)
    return pa.field(field.name, arrow_type, nullable=field.nullable, metadata=metadata)


def _array(field: Field, arrow_type: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    values = field.values
    if is_arrow(values):
        return values
    if field.type is FieldType.TIME:
        values = _nanoseconds(field)
        if is_numpy(values):
            return pa.array(values).view(arrow_type)
    elif field.type is FieldType.JSON:
        values = [
            None if value is None and field.nullable else _to_json(value) for value in field.values
        ]
    return pa.array(values, arrow_type)


def _nanoseconds(field: Field) -> Any:
    values, nanos = field.values, field.nanos
    if is_numpy(values):
        times = values * 1_000_000
        return times if nanos is None else times + nanos
    if nanos is None:
        return [None if value is None else value * 1_000_000 for value in values]
    rows = zip(values, nanos, strict=True)
    return [None if value is None else value * 1_000_000 + nano for value, nano in rows]


def _to_json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
