"""The record batch of a usual frame without pyarrow: numbers as they lie in memory, and texts.

It only ever says yes or nothing: nulls, bools, JSON and what else is not usual are pyarrow's. The
message's head is a flatbuffer in which only lengths and offsets change; its bytes are taken from
one that pyarrow has written, and compared with another. Imports arrays and columns.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct, pack
from typing import TYPE_CHECKING, Any

from aiostream_ds._frames.arrays import array_kind, is_arrow
from aiostream_ds._frames.columns import FieldType

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchWriter", "learn"]

Buffer = bytes | memoryview

_SAMPLES = 77, 1_025
"""Rows of the batches by which pyarrow's way is learnt, and proved."""

# The type as array.array calls it, and its kind as numpy does.
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


class _Numbers:
    """A column of numbers of one width; times go from milliseconds to nanoseconds."""

    __slots__ = ("_code", "_factor", "_kind")

    def __init__(self, field_type: FieldType) -> None:
        self._code, kind = _NUMBERS[field_type]
        self._kind = f"{kind}{array(self._code).itemsize}"
        self._factor = 1_000_000 if field_type is FieldType.TIME else 1

    def buffers(self, values: Any) -> tuple[Buffer, ...] | None:
        factor = self._factor
        if values.__class__ is list:
            try:
                found = array(self._code, values if factor == 1 else [v * factor for v in values])
            except (TypeError, OverflowError):  # a None among them; a value of another type
                return None
        elif array_kind(values) == self._kind:
            found = values if factor == 1 else values * factor
        else:
            return None
        return (memoryview(found).cast("B"),)


class _Texts:
    """A column of texts."""

    __slots__ = ()

    def buffers(self, values: Any) -> tuple[Buffer, ...] | None:
        if values.__class__ is not list:
            return self._split(values) if is_arrow(values) else None
        try:
            data = "".join(values).encode()
            sizes = map(len, values if data.isascii() else map(str.encode, values))
            ends = array("i", accumulate(sizes, initial=0))
        except (TypeError, OverflowError):  # a None among them; more than fits a column
            return None
        return memoryview(ends).cast("B"), data

    def _split(self, values: "pa.Array") -> tuple[Buffer, ...] | None:
        if values.null_count or values.offset or str(values.type) != "string":
            return None
        _, ends, data = values.buffers()
        ends = memoryview(ends)[: 4 * len(values) + 4]
        if any(ends[:4]):  # the texts do not begin where their bytes begin
            return None
        size = int.from_bytes(ends[-4:], "little")
        return ends, memoryview(data)[:size] if size else b""


class _Body:
    """The buffers of some columns, and where in the message's body each of them lies."""

    __slots__ = ("buffers", "nodes", "parts", "rows", "size")

    def __init__(self, rows: int, columns: Sequence[Sequence[Buffer]]) -> None:
        self.rows = rows
        self.parts: list[Buffer] = []
        self.buffers: list[int] = []
        self.nodes = [rows, 0] * len(columns)
        size = 0
        for column in columns:
            self.buffers += (size, 0)  # nothing is null
            for buffer in column:
                length = len(buffer)
                self.buffers += (size, length)
                self.parts.append(buffer)
                if length % 8:
                    self.parts.append(_PADDING[length % 8])
                size += (length + 7) & ~7
        self.size = size


class BatchWriter:
    """Writes the record batches of one schema."""

    __slots__ = ("_columns", "_fixed", "_head")

    def __init__(self, columns: list[_Numbers | _Texts], head: bytes, body: _Body) -> None:
        self._columns = columns
        # Five parts of a head never change; between them are the numbers of its batch.
        first, _, rest = head.partition(pack("<q", body.size))
        second, _, rest = rest.partition(pack("<q", body.rows))
        third, _, rest = rest.partition(pack(f"<{len(body.buffers)}q", *body.buffers))
        fourth, _, fifth = rest.partition(pack(f"<{len(body.nodes)}q", *body.nodes))
        self._fixed = fixed = first, second, third, fourth, fifth
        counts = 1, 1, len(body.buffers), len(body.nodes)
        numbers = [f"{len(part)}s{count}q" for part, count in zip(fixed[:4], counts, strict=True)]
        self._head = Struct(f"<{''.join(numbers)}{len(fifth)}s")

    def write(self, values: Sequence[Any]) -> list[Buffer] | None:
        """The message of a record batch of columns that were checked: its head, and its body in
        pieces. None if one of them is not usual, or empty."""
        rows = len(values[0])
        if not rows:
            return None
        found = []
        for column, each in zip(self._columns, values, strict=True):
            buffers = column.buffers(each)
            if buffers is None:
                return None
            found.append(buffers)
        body = _Body(rows, found)
        first, second, third, fourth, fifth = self._fixed
        head = self._head.pack(
            first, body.size, second, rows, third, *body.buffers, fourth, *body.nodes, fifth
        )
        return [head, *body.parts]


@lru_cache(maxsize=256)
def learn(types: tuple[FieldType, ...]) -> BatchWriter | None:
    """The writer for fields of these types; None when there is none or one of them is pyarrow's."""
    if not types or any(each not in _NUMBERS and each is not FieldType.STRING for each in types):
        return None
    columns = [_Numbers(each) if each in _NUMBERS else _Texts() for each in types]
    writer = None
    for rows in _SAMPLES:
        values = [["text" if each is FieldType.STRING else 1] * rows for each in types]
        message = _by_pyarrow(types, values)
        if writer is None:
            head = message[: 8 + int.from_bytes(message[4:8], "little")]
            found = [
                column.buffers(each) or () for column, each in zip(columns, values, strict=True)
            ]
            writer = BatchWriter(columns, head, _Body(rows, found))
        elif b"".join(writer.write(values) or ()) != message:
            return None
    return writer


def _by_pyarrow(types: Sequence[FieldType], values: Sequence[list[Any]]) -> bytes:
    import pyarrow as pa

    arrays = []
    for each, column in zip(types, values, strict=True):
        if each is FieldType.TIME:
            column = [value * 1_000_000 for value in column]
        arrays.append(pa.array(column, "int64" if each is FieldType.TIME else each.value))
    batch = pa.RecordBatch.from_arrays(arrays, names=[str(n) for n in range(len(arrays))])
    message: bytes = batch.serialize().to_pybytes()
    return message
