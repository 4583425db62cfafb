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
from struct import error as StructError
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
_UNCOMMON = -1
_FEW = 512  # values, below which a copy is cheaper than a view


class _NumberColumn:
    """A column of numbers of one width; milliseconds of times become nanoseconds."""

    __slots__ = ("_code", "_factor", "_kind", "_scale")

    def __init__(self, field_type: FieldType) -> None:
        self._code, kind = _NUMBERS[field_type]
        self._kind = f"{kind}{array(self._code).itemsize}"
        self._scale: Any = None
        self._factor = 1_000_000 if field_type is FieldType.TIME else 1

    def add(self, values: Any, places: list[int], parts: list[Buffer], size: int) -> int:
        factor = self._factor
        found: Any
        if values.__class__ is list:
            try:
                found = array(self._code, values if factor == 1 else [v * factor for v in values])
            except (TypeError, OverflowError):  # None, or a value of another type
                return _UNCOMMON
        elif array_kind(values) == self._kind:
            found = values if factor == 1 else values * self._scale_for(values)
        else:
            return _UNCOMMON
        buffer = found.tobytes() if len(values) < _FEW else memoryview(found).cast("B")
        length = len(buffer)
        places += (size, 0, size, length)
        parts.append(buffer)
        return size + length if not length & 7 else _padded(parts, size + length)

    def _scale_for(self, values: Any) -> Any:
        """The factor as an array without dimensions: numpy takes long to convert an int."""
        if self._scale is None:
            self._scale = (values[:1] * 0 + self._factor).reshape(())
        return self._scale


class _StringColumn:
    """A column of strings."""

    __slots__ = ()

    def add(self, values: Any, places: list[int], parts: list[Buffer], size: int) -> int:
        found = self._buffers(values)
        if found is None:
            return _UNCOMMON
        ends, data = found
        length = len(ends)
        places += (size, 0, size, length)
        parts.append(ends)
        size = _padded(parts, size + length)
        length = len(data)
        places += (size, length)
        parts.append(data)
        return _padded(parts, size + length)

    def _buffers(self, values: Any) -> tuple[Buffer, Buffer] | None:
        if values.__class__ is not list:
            return self._arrow_buffers(values) if is_arrow(values) else None
        try:
            data = "".join(values).encode()
            sizes = map(len, values if data.isascii() else map(str.encode, values))
            return pack(f"<{len(values) + 1}i", *accumulate(sizes, initial=0)), data
        except (TypeError, StructError):  # None, or more bytes than a column holds
            return None

    def _arrow_buffers(self, values: "pa.Array") -> tuple[Buffer, Buffer] | None:
        if values.null_count or values.offset or str(values.type) != "string":
            return None
        _, ends, data = values.buffers()
        ends = memoryview(ends)[: 4 * len(values) + 4]
        if any(ends[:4]):  # the strings do not begin at the start of the data buffer
            return None
        size = int.from_bytes(ends[-4:], "little")
        return ends, memoryview(data)[:size] if size else b""


_Column = _NumberColumn | _StringColumn
"""`add` appends a column to the body of a message that has `size` bytes: its buffers with their
padding to `parts`, and the offset and length of each, first that of the validity bitmap, which is
empty, to `places`. Returns the size after it, _UNCOMMON for what pyarrow has to write."""


def _padded(parts: list[Buffer], size: int) -> int:
    """The size of a body that is padded to eight bytes."""
    if size & 7:
        parts.append(_PADDING[size & 7])
        return (size | 7) + 1
    return size


class BatchWriter:
    """Writes the record batches of one schema."""

    __slots__ = ("_columns", "_constants", "_pack")

    def __init__(
        self, columns: list[_Column], head: bytes, rows: int, places: list[int], size: int
    ) -> None:
        self._columns = columns
        nodes = [rows, 0] * len(columns)
        # A head has five constant parts; the numbers of its batch are between them.
        first, _, rest = head.partition(pack("<q", size))
        second, _, rest = rest.partition(pack("<q", rows))
        third, _, rest = rest.partition(pack(f"<{len(places)}q", *places))
        fourth, _, fifth = rest.partition(pack(f"<{len(nodes)}q", *nodes))
        self._constants = constants = first, second, third, fourth, fifth
        counts = 1, 1, len(places), len(nodes)
        parts = zip(constants[:4], counts, strict=True)
        numbers = [f"{len(part)}s{count}q" for part, count in parts]
        self._pack = Struct(f"<{''.join(numbers)}{len(fifth)}s").pack

    def write(self, values: Sequence[Any]) -> list[Buffer] | None:
        """The message of a record batch of checked columns: its head, and its body in chunks. None:
        the columns are empty or not the common case."""
        rows = len(values[0])
        if not rows:
            return None
        columns, size = self._columns, 0
        places: list[int] = []
        parts: list[Buffer] = [b""]  # in place of the head
        for column, each in zip(columns, values, strict=True):
            size = column.add(each, places, parts, size)
            if size < 0:
                return None
        first, second, third, fourth, fifth = self._constants
        nodes = (rows, 0) * len(columns)
        parts[0] = self._pack(first, size, second, rows, third, *places, fourth, *nodes, fifth)
        return parts


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
            places, size = list[int](), 0
            for column, each in zip(columns, values, strict=True):
                size = column.add(each, places, [], size)
            writer = BatchWriter(columns, head, rows, places, size)
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
