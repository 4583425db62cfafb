"""Whether the buffers of an Arrow message are compressed, which pyarrow does not state.

The metadata is a Flatbuffer (Message.fbs): a table of fields by their number, where an absent field
has the offset 0.
"""

from struct import error as StructError
from struct import unpack_from

from aiostream_ds.sources.decoding.bad_record import BadRecord

__all__ = ["is_compressed"]

_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_DATA = 1  # of DictionaryBatch
_COMPRESSION = 3  # of RecordBatch
_DICTIONARY_BATCH = 2  # of the union MessageHeader


def is_compressed(metadata: memoryview) -> bool:
    """Whether a record batch or dictionary batch has compressed buffers. Raises BadRecord."""
    try:
        (message,) = unpack_from("<I", metadata, 0)
        batch = _table(metadata, message, _HEADER)
        kind = _field(metadata, message, _HEADER_TYPE)
        if kind and metadata[kind] == _DICTIONARY_BATCH:
            batch = _table(metadata, batch, _DATA)
        return bool(_field(metadata, batch, _COMPRESSION))
    except (StructError, IndexError):
        raise BadRecord("expected an Arrow IPC stream: invalid metadata") from None


def _field(data: memoryview, table: int, number: int) -> int:
    """The position of a field's value; 0 if it is absent."""
    (distance,) = unpack_from("<i", data, table)
    fields = table - distance
    (size,) = unpack_from("<H", data, fields)
    at = 4 + 2 * number
    if at + 2 > size:
        return 0
    (offset,) = unpack_from("<H", data, fields + at)
    return table + offset if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    at = _field(data, table, number)
    (offset,) = unpack_from("<I", data, at)
    return at + int(offset)
