"""Frames as Arrow IPC files, the form in which QueryData answers, and back.

The only module that imports pyarrow, and only inside its functions: the import takes long enough
to hold up every stream, so whoever serves queries encodes the first frame in a thread. What is
written is what Grafana's Go SDK writes: one file with a footer, no compression, no dictionaries.
Everything but the record batch is the same for frames of one shape: it is made once and kept.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from aiostream_ds._frames.arrays import is_arrow
from aiostream_ds._frames.arrow.record_batch import learn
from aiostream_ds._frames.columns import FieldType, FrameError, is_array
from aiostream_ds._frames.config import FieldConfig, FrameMeta
from aiostream_ds._frames.frame import Field, Frame, check_data, check_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decode", "encode", "pieces"]

_MANY = 10_000
"""Texts from which on the way over pyarrow.compute pays, and its import of some 50 ms."""

_KEPT, _KEPT_BYTES = 256, 16 * 1024
"""How many layouts are kept, and up to which size each."""

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

# In the footer, where the record batch lies: its offset, its head's and its body's length.
_BLOCK = Struct("<qi4xq")
_END_OF_BATCHES = b"\xff\xff\xff\xff\0\0\0\0"

_meta_encoder = msgspec.json.Encoder(order="deterministic")
_labels_decoder = msgspec.json.Decoder(dict[str, str])
_config_decoder = msgspec.json.Decoder(FieldConfig)
_meta_decoder = msgspec.json.Decoder(FrameMeta)


def encode(frame: Frame, *, checked: bool = False) -> bytes:
    """The frame as an Arrow file of one record batch; `checked` if `Frame.check` was called.

    Raises:
        FrameError: see `Frame.check`.
    """
    return b"".join(pieces(frame, checked=checked))


def pieces(frame: Frame, *, checked: bool = False) -> "tuple[bytes | memoryview, ...]":
    """What `encode` returns, in pieces: so the rows of a large frame are not copied once more.

    Raises:
        FrameError: see `Frame.check`.
    """
    shape = _shape(frame)
    layout = _layouts.get(shape)
    if layout is None:
        if not checked:
            check_schema(frame)
        layout = _Layout(frame)
        if shape is not None and not checked and layout.size <= _KEPT_BYTES:
            if len(_layouts) >= _KEPT:
                _layouts.clear()
            _layouts[shape] = layout
    texts = [_texts(field) for field in frame.fields]
    if not checked:
        _check_rows(frame, texts)
    if not layout.known:
        return (_written(_batch(frame, layout, texts)),)
    message = _usual_message(frame, layout, texts)
    if message is None:
        message = [memoryview(_batch(frame, layout, texts).serialize())]
    return layout.file(message)


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


class _Layout:
    """What the files of frames of one shape have in common: the schema, and the bytes around the
    record batch. They are taken from a file that pyarrow writes, and compared with it."""

    __slots__ = ("_after", "_before", "known", "schema", "size", "types", "usual")

    def __init__(self, frame: Frame) -> None:
        import pyarrow as pa

        metadata: dict[str, str | bytes] = {"name": frame.name, "refId": frame.ref_id}
        if frame.meta is not None:
            metadata["meta"] = _meta_encoder.encode(frame.meta)
        heads = [_head(field) for field in frame.fields]
        self.types = [head.type for head in heads]
        self.schema = pa.schema(heads, metadata=metadata)
        empty = pa.RecordBatch.from_arrays(
            [pa.array([], t) for t in self.types], schema=self.schema
        )
        sample, message = _written(empty), empty.serialize().to_pybytes()
        before, _, after = sample.partition(message + _END_OF_BATCHES)
        block = _block(before, [message])
        start, _, end = after.partition(block)
        self._before = before
        self._after = _END_OF_BATCHES + start, end
        self.known = after.count(block) == 1 and b"".join(self.file([message])) == sample
        self.usual = learn(tuple(field.type for field in frame.fields)) if self.known else None
        self.size = len(sample)

    def file(self, message: Sequence[bytes | memoryview]) -> tuple[bytes | memoryview, ...]:
        """The file of the batch whose message this is, in pieces."""
        start, end = self._after
        return self._before, *message, b"%b%b%b" % (start, _block(self._before, message), end)


_layouts: dict[Any, _Layout] = {}


def _shape(frame: Frame) -> Any:
    """A key that is equal for frames whose files have one layout; None where there is none.

    Config and meta are in it as they are written: True equals 1, but is another text.
    """
    try:
        shape = (
            frame.name,
            frame.ref_id,
            _spelled(frame.meta),
            *[
                (
                    field.name,
                    field.type,
                    field.nullable,
                    frozenset(field.labels.items()),
                    _spelled(field.config),
                )
                for field in frame.fields
            ],
        )
        hash(shape)
        return shape
    except Exception:  # something in it is what `check_schema` refuses, in its own words
        return None


def _spelled(value: Any) -> Any:
    return None if value is None else (type(value), _meta_encoder.encode(value))


def _block(before: bytes, message: Sequence[bytes | memoryview]) -> bytes:
    head = 8 + int.from_bytes(message[0][4:8], "little")
    return _BLOCK.pack(len(before), head, sum(map(len, message)) - head)


def _usual_message(
    frame: Frame, layout: _Layout, texts: "list[pa.Array | None]"
) -> list[bytes | memoryview] | None:
    if layout.usual is None:
        return None
    values = []
    for field, text in zip(frame.fields, texts, strict=True):
        if field.nanos is not None:
            return None
        values.append(field.values if text is None else text)
    return layout.usual.write(values)


def _batch(frame: Frame, layout: _Layout, texts: "list[pa.Array | None]") -> "pa.RecordBatch":
    import pyarrow as pa

    arrays = [
        _array(field, arrow_type) if text is None else text
        for field, arrow_type, text in zip(frame.fields, layout.types, texts, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=layout.schema)


def _written(batch: "pa.RecordBatch") -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _check_rows(frame: Frame, texts: "list[pa.Array | None]") -> None:
    """`check_data`, without a second look at what became an array of texts."""
    fields: Sequence[Field] = frame.fields
    if texts.count(None) < len(texts):
        if len({len(field.values) for field in fields}) > 1:
            check_data(fields)
        fields = [field for field, text in zip(fields, texts, strict=True) if text is None]
    check_data(fields)


def _texts(field: Field) -> "pa.Array | None":
    """Many texts as an array, joined and split again: faster than one by one, and what is no text
    or no UTF-8 does not pass. None: they are few, or take the usual way, which says what is wrong.
    """
    values = field.values
    if field.type is not FieldType.STRING or len(values) < _MANY or type(values) is not list:
        return None
    import pyarrow as pa
    import pyarrow.compute

    try:
        joined = "\0".join(values)
        if len(joined) >= 1 << 29:  # an array holds 2 GiB, and a character may take 4 bytes
            return None
        array = pa.compute.split_pattern(pa.array([joined], pa.string()), "\0").values
    except (TypeError, UnicodeEncodeError):
        return None
    return array if len(array) == len(values) else None  # else there are zeros in the texts


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
    if is_arrow(values):
        return values
    if field.type is FieldType.TIME:
        values = _nanoseconds(field)
        if is_array(values):
            return pa.array(values).view(arrow_type)
    elif field.type is FieldType.JSON:
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
