"""Frames from Arrow IPC files."""

import reprlib
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from aiostream_ds._frames.arrow.encoder import ARROW_TYPES
from aiostream_ds._frames.columns import FieldType, FrameError
from aiostream_ds._frames.config import FieldConfig, FrameMeta
from aiostream_ds._frames.frame import Field, Frame

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decode"]

_FIELD_TYPES = {
    name: field_type
    for field_type, name in ARROW_TYPES.items()
    if field_type is not FieldType.ENUM  # has the Arrow type of UINT16; its metadata differ
}

_labels_decoder = msgspec.json.Decoder(dict[str, str])
_config_decoder = msgspec.json.Decoder(FieldConfig)
_meta_decoder = msgspec.json.Decoder(FrameMeta)


def decode(content: bytes) -> Frame:
    """The frame of an Arrow file. As in Grafana, timestamps count nanoseconds in any unit.

    Raises:
        FrameError: the content is not an Arrow file, or Grafana does not read one of its types or
            its metadata.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(content).read_all()
    except (pa.ArrowException, OSError) as error:
        shown = reprlib.repr(content)
        raise FrameError(f"expected an Arrow file, got {shown}: {error}") from None
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


def _field(head: "pa.Field", column: "pa.ChunkedArray") -> Field:
    import pyarrow as pa

    metadata = head.metadata or {}
    where = f"field {head.name!r}"
    if pa.types.is_timestamp(head.type):
        field_type = FieldType.TIME
    elif str(head.type) == "uint16" and metadata.get(b"tstype") == b"enum":
        field_type = FieldType.ENUM
    elif str(head.type) in _FIELD_TYPES:
        field_type = _FIELD_TYPES[str(head.type)]
    else:
        types = ", ".join(_FIELD_TYPES)
        raise FrameError(f"{where}: Arrow type must be one of {types}, got {head.type}")
    nanos = None
    if field_type is FieldType.TIME:
        counts = [count for chunk in column.chunks for count in chunk.view(pa.int64()).to_pylist()]
        values = [None if count is None else count // 1_000_000 for count in counts]
        below = [0 if count is None else count % 1_000_000 for count in counts]
        nanos = below if any(below) else None
    else:
        values = column.to_pylist()
    if field_type is FieldType.JSON:
        values = [_from_json(where, row, value) for row, value in enumerate(values)]
    return Field(
        head.name,
        values,
        field_type,
        labels=_metadata(metadata, b"labels", _labels_decoder, where),
        config=_metadata(metadata, b"config", _config_decoder, where),
        nullable=head.nullable,
        nanos=nanos,
    )


def _from_json(where: str, row: int, value: bytes | None) -> Any:
    if not value:  # Go writes a raw message that was never set as no bytes
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        shown = reprlib.repr(value)
        raise FrameError(f"{where}, row {row}: expected JSON, got {shown}: {error}") from None


def _metadata(metadata: dict[bytes, bytes], key: bytes, decoder: Any, where: str) -> Any:
    content = metadata.get(key)
    if content is None:
        return None
    try:
        return decoder.decode(content)
    except msgspec.MsgspecError as error:
        shown = reprlib.repr(content)
        raise FrameError(f"{where}: {key.decode()} must be valid, got {shown}: {error}") from None
