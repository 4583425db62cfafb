"""Record batches in the common case without pyarrow: non-null numbers and strings.

A message's head is a flatbuffer in which only lengths and offsets change. Its constant bytes are
taken from a message that pyarrow writes, and the result is compared with a second one. Nulls,
bools, JSON and everything else are left to pyarrow.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct, pack
from typing import TYPE_CHECKING, Any

from aiostream_ds._frames.columns import FieldType, array_kind, is_arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchWriter", "make_writer"]

Buffer = bytes | memoryview

_SAMPLE_ROWS = 77, 1_025
"""Rows of the two messages by pyarrow: the template, and the one to compare with."""

# The type code of array.array, and the kind of numpy's dtype.
_NUMBERS = {
    FieldType.INT8: ("b", "i"),
    FieldType.INT16: ("h", "i"),
    FieldType.INT32: ("i", "i"),
    FieldType.INT64: ("q", "i"),
    FieldType.UINT8: ("B", "u"),
    FieldType.UINT16: ("H", "u"),
    FieldType.UINT32: ("I", "u"),
    FieldType.UINT64: ("Q", "u"),
    FieldType.FLOAT32: ("f", "f"),
    FieldType.FLOAT64: ("d", "f"),
    FieldType.TIME: ("q", "i"),
}
_PADDING = [bytes(-size % 8) for size in range(8)]
_FEW = 512  # values, below which a copy is cheaper than a view


class _NumberColumn:
    """A column of numbers of one width; milliseconds of times become nanoseconds."""

    __slots__ = ("_code", "_factor", "_kind")

    def __init__(self, field_type: FieldType) -> None:
        self._code, kind = _NUMBERS[field_type]
        self._kind = f"{kind}{array(self._code).itemsize}"
        self._factor = 1_000_000 if field_type is FieldType.TIME else 1

    def buffers(self, values: Any) -> tuple[Buffer, ...] | None:
        factor = self._factor
        found: Any
        if values.__class__ is list:
            try:
                found = array(self._code, values if factor == 1 else [v * factor for v in values])
            except (TypeError, OverflowError):  # None, or a value of another type
                return None
        elif array_kind(values) == self._kind:
            found = values if factor == 1 else values * factor
        else:
            return None
        return (found.tobytes() if len(values) < _FEW else memoryview(found).cast("B"),)


class _StringColumn:
    """A column of strings."""

    __slots__ = ()

    def buffers(self, values: Any) -> tuple[Buffer, ...] | None:
        if values.__class__ is not list:
            return self._arrow_buffers(values) if is_arrow(values) else None
        try:
            data = "".join(values).encode()
            sizes = map(len, values if data.isascii() else map(str.encode, values))
            ends = array("i", accumulate(sizes, initial=0))
        except (TypeError, OverflowError):  # None, or more bytes than a column holds
            return None
        return ends.tobytes() if len(values) < _FEW else memoryview(ends).cast("B"), data

    def _arrow_buffers(self, values: "pa.Array") -> tuple[Buffer, ...] | None:
        if values.null_count or values.offset or str(values.type) != "string":
            return None
        _, ends, data = values.buffers()
        ends = memoryview(ends)[: 4 * len(values) + 4]
        if any(ends[:4]):  # the strings do not begin at the start of the data buffer
            return None
        size = int.from_bytes(ends[-4:], "little")
        return ends, memoryview(data)[:size] if size else b""


class _Body:
    """The buffers of columns, padded, with the offset and length of each in the message's body.
    `parts` begins with a place for the message's head."""

    __slots__ = ("buffers", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[Buffer] = [b""]
        self.buffers: list[int] = []
        self.size = 0

    def add(self, columns: Sequence[Any], values: Sequence[Any]) -> bool:
        """Add columns. False: one of them is not the common case."""
        places, parts, size = self.buffers, self.parts, self.size
        for column, each in zip(columns, values, strict=True):
            found = column.buffers(each)
            if found is None:
                return False
            places += size, 0  # the validity bitmap is empty: nothing is null
            for buffer in found:
                length = len(buffer)
                places += size, length
                parts.append(buffer)
                size += length
                if length & 7:
                    padding = _PADDING[length & 7]
                    parts.append(padding)
                    size += len(padding)
        self.size = size
        return True


class BatchWriter:
    """Writes the record batches of one schema."""

    __slots__ = ("_columns", "_constants", "_pack")

    def __init__(
        self, columns: list[_NumberColumn | _StringColumn], head: bytes, rows: int, body: _Body
    ) -> None:
        self._columns = columns
        nodes = [rows, 0] * len(columns)
        # A head has five constant parts; the numbers of its batch are between them.
        first, _, rest = head.partition(pack("<q", body.size))
        second, _, rest = rest.partition(pack("<q", rows))
        third, _, rest = rest.partition(pack(f"<{len(body.buffers)}q", *body.buffers))
        fourth, _, fifth = rest.partition(pack(f"<{len(nodes)}q", *nodes))
        self._constants = constants = first, second, third, fourth, fifth
        counts = 1, 1, len(body.buffers), len(nodes)
        parts = zip(constants[:4], counts, strict=True)
        numbers = [f"{len(part)}s{count}q" for part, count in parts]
        self._pack = Struct(f"<{''.join(numbers)}{len(fifth)}s").pack

    def write(self, values: Sequence[Any]) -> list[Buffer] | None:
        """The message of a record batch of checked columns: its head, and its body in chunks. None:
        the columns are empty or not the common case."""
        rows = len(values[0])
        if not rows:
            return None
        columns, body = self._columns, _Body()
        if not body.add(columns, values):
            return None
        first, second, third, fourth, fifth = self._constants
        nodes = (rows, 0) * len(columns)
        body.parts[0] = self._pack(
            first, body.size, second, rows, third, *body.buffers, fourth, *nodes, fifth
        )
        return body.parts


@lru_cache(maxsize=256)
def make_writer(types: tuple[FieldType, ...]) -> BatchWriter | None:
    """The writer for fields of these types. None: pyarrow has to write one of them, or pyarrow's
    own message differs from the writer's."""
    if not types or any(each not in _NUMBERS and each is not FieldType.STRING for each in types):
        return None
    columns = [_NumberColumn(each) if each in _NUMBERS else _StringColumn() for each in types]
    writer = None
    for rows in _SAMPLE_ROWS:
        values = [["text" if each is FieldType.STRING else 1] * rows for each in types]
        message = _write_with_pyarrow(types, values)
        if writer is None:
            head = message[: 8 + int.from_bytes(message[4:8], "little")]
            body = _Body()
            body.add(columns, values)
            writer = BatchWriter(columns, head, rows, body)
        elif b"".join(writer.write(values) or ()) != message:
            return None
    return writer


def _write_with_pyarrow(types: Sequence[FieldType], values: Sequence[list[Any]]) -> bytes:
    import pyarrow as pa

    arrays = []
    for each, column in zip(types, values, strict=True):
        if each is FieldType.TIME:
            column = [value * 1_000_000 for value in column]
        arrays.append(pa.array(column, "int64" if each is FieldType.TIME else each.value))
    batch = pa.RecordBatch.from_arrays(arrays, names=[str(n) for n in range(len(arrays))])
    message: bytes = batch.serialize().to_pybytes()
    return message
