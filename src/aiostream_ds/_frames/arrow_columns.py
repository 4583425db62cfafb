"""Columns of pyarrow arrays of any type, as columns of a frame.

Numbers and times are read by their memory: pyarrow's `to_numpy`, and its values of nanoseconds,
import pandas if it is installed.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiostream_ds._frames import columns
from aiostream_ds._frames.columns import RANGES, Column, FieldType, FrameError
from aiostream_ds._frames.times import EPOCH

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["import_array", "import_table", "read_arrow"]

_UNIT_NANOSECONDS = {"D": 86_400 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
_MILLISECOND = 10**6


def import_table(table: Any) -> list[tuple[str, Any]]:
    """The columns of a table by name, by Arrow's PyCapsule interface.

    Raises:
        FrameError: pyarrow cannot read it, as a type that it does not have, or a single column.
    """
    import pyarrow as pa

    kind = type(table)
    try:
        if hasattr(kind, "__arrow_c_stream__"):
            found = pa.RecordBatchReader.from_stream(table).read_all()
        else:
            found = pa.record_batch(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        if "non-struct type" in str(error):
            raise FrameError(
                f"expected a table, got a {kind.__name__}, which is one column without a name; make"
                " a table of it, in polars with .to_frame(), or give it to a Field"
            ) from None
        raise FrameError(
            f"expected a table that pyarrow can read, got {kind.__name__}: {_first_line(error)};"
            " cast a column of a type that Arrow does not have"
        ) from None
    return list(zip(found.schema.names, found.columns, strict=True))


def import_array(name: str, values: Any) -> Any:
    """A column as a pyarrow array, by Arrow's PyCapsule interface.

    Raises:
        FrameError: pyarrow cannot read it.
    """
    import pyarrow as pa

    kind = type(values)
    try:
        if hasattr(kind, "__arrow_c_stream__"):
            return pa.chunked_array(values)
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FrameError(
            f"field {name!r}: expected a column that pyarrow can read, got {kind.__name__}:"
            f" {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def read_arrow(name: str, values: Any) -> Column:
    """The column of a pyarrow array, contiguous or chunked.

    Its type follows from that of the array: numbers, booleans and strings keep it; timestamps and
    dates are TIME, those without a time zone in UTC; durations are FLOAT64 in seconds,
    decimals FLOAT64; times of day and bytes, which must be UTF-8, are STRING; lists and structs are
    JSON. A dictionary has the type of its values.

    Raises:
        FrameError: a column cannot have the array's type.
    """
    import pyarrow as pa

    try:
        array = values.combine_chunks() if hasattr(values, "chunks") else values
        return _read(name, array)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise FrameError(
            f"field {name!r}: {values.type} cannot be read: {_first_line(error)}"
        ) from None


def _read(name: str, array: "pa.Array") -> Column:
    import pyarrow as pa
    import pyarrow.types as types

    kind = array.type
    if kind == "string":
        return Column(array, FieldType.STRING, array.null_count > 0)
    if isinstance(array, pa.ExtensionArray):
        return _read_extension(name, array)
    if types.is_dictionary(kind):
        return _read_dictionary(name, array)
    if types.is_null(kind):
        return Column([None] * len(array), FieldType.FLOAT64, True)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return _read_plain(name, array)
    if types.is_timestamp(kind) or types.is_date(kind):
        return _read_times(name, array)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return _read_strings(array)
    if types.is_duration(kind):
        return _converted(array.view("int64"), FieldType.FLOAT64, _seconds(kind.unit))
    if types.is_interval(kind):
        return _converted(array, FieldType.FLOAT64, _interval_seconds(name))
    if types.is_decimal(kind):
        return columns.read(name, array.to_pylist(), FieldType.FLOAT64)
    if types.is_time(kind):
        counts = array.view("int32" if kind.bit_width == 32 else "int64")
        return _converted(counts, FieldType.STRING, _time_of_day(kind.unit))
    if _is_binary(kind):
        return columns.read(name, array.to_pylist(), FieldType.STRING)
    if types.is_nested(kind) and not types.is_union(kind) and not types.is_run_end_encoded(kind):
        return _read_nested(name, array)
    raise FrameError(
        f"field {name!r}: expected numbers, booleans, strings, times, durations, binary values,"
        f" lists or structs, got {kind}; cast it to one of these"
    )


def _is_binary(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _converted(array: "pa.Array", kind: FieldType, convert: Callable[[Any], Any]) -> Column:
    """A column whose values are converted one by one."""
    found = [None if value is None else convert(value) for value in array.to_pylist()]
    return Column(found, kind, array.null_count > 0)


def _read_plain(name: str, array: "pa.Array") -> Column:
    kind = _PLAIN_TYPES[str(array.type)]
    numpy = sys.modules.get("numpy")
    if array.null_count or numpy is None:
        return columns.read(name, array.to_pylist(), kind)
    if kind is not FieldType.BOOL:
        return columns.read(name, numpy.from_dlpack(array), None)
    end = array.offset + len(array)
    bits = numpy.frombuffer(array.buffers()[1] or b"", "u1")
    values = numpy.unpackbits(bits, count=end, bitorder="little")[array.offset :]
    return Column(values.view("?"), kind, False)


_PLAIN_TYPES = {
    **{each.value: each for each in RANGES},
    "halffloat": FieldType.FLOAT32,
    "float": FieldType.FLOAT32,
    "double": FieldType.FLOAT64,
    "bool": FieldType.BOOL,
}
"""The types of a frame by the names of pyarrow's types."""


def _read_times(name: str, array: "pa.Array") -> Column:
    import pyarrow.types as types

    kind, null = array.type, array.null_count > 0
    unit = "D" if types.is_date32(kind) else "ms" if types.is_date64(kind) else kind.unit
    counts = array.view("int32" if unit == "D" else "int64")
    nanoseconds = _UNIT_NANOSECONDS[unit]
    parts = _MILLISECOND // nanoseconds
    numpy = sys.modules.get("numpy")
    if numpy is not None and not null and parts:
        array = numpy.from_dlpack(counts)
        times = array // parts if parts > 1 else array
        below = (array - times * parts) * nanoseconds
        return Column(times, FieldType.TIME, False, below if below.any() else None)
    values = counts.to_pylist()
    if not parts:
        factor = nanoseconds // _MILLISECOND
        times = [None if value is None else value * factor for value in values]
        return Column(times, FieldType.TIME, null)
    nanos = [0 if value is None else value % parts * nanoseconds for value in values]
    times = [None if value is None else value // parts for value in values]
    return Column(times, FieldType.TIME, null, nanos if any(nanos) else None)


def _read_strings(array: "pa.Array") -> Column:
    import pyarrow as pa

    null = array.null_count > 0
    try:
        return Column(array.cast("string"), FieldType.STRING, null)
    except (ImportError, pa.ArrowException):  # a package without pyarrow.compute; above 2 GiB
        return Column(array.to_pylist(), FieldType.STRING, null)


def _read_dictionary(name: str, array: "pa.DictionaryArray") -> Column:
    values, kind, _, nanos = _read(name, array.dictionary)
    indexes = array.indices.to_pylist()

    def take(each: Any, missing: Any) -> list[Any]:
        found = each.to_pylist() if columns.is_arrow(each) else list(each)
        if columns.is_numpy(each):
            found = each.tolist()
        return [missing if index is None else found[index] for index in indexes]

    taken = take(values, None)
    return Column(taken, kind, None in taken, None if nanos is None else take(nanos, 0))


def _read_nested(name: str, array: "pa.Array") -> Column:
    as_dicts = {"maps_as_pydicts": "strict"} if "map<" in str(array.type) else {}
    try:
        values = array.to_pylist(**as_dicts)
    except (KeyError, ValueError) as error:  # a key twice; a time that Python cannot hold
        raise FrameError(
            f"field {name!r}: {array.type} cannot be JSON: {_first_line(error)}"
        ) from None
    return columns.read(name, values, FieldType.JSON)


def _read_extension(name: str, array: "pa.ExtensionArray") -> Column:
    kind = array.type.extension_name
    if kind == "arrow.uuid":
        return columns.read(name, array.to_pylist(), FieldType.STRING)
    if kind == "arrow.json":
        return _read(name, array.storage)
    raise FrameError(
        f"field {name!r}: expected a type of Arrow itself, got the extension {kind!r}; convert it"
        " to numbers, strings or timestamps"
    )


def _seconds(unit: str) -> Callable[[int], float]:
    parts = 10**9 // _UNIT_NANOSECONDS[unit]
    return lambda count: count / parts


def _interval_seconds(name: str) -> Callable[[Any], float]:
    """Of intervals, which are the durations of DuckDB."""

    def convert(value: Any) -> float:
        months, days, nanoseconds = value
        if months:
            raise FrameError(
                f"field {name!r}: expected intervals without months, whose length depends on the"
                f" date, got {months} months; subtract two timestamps"
            )
        return float(days * 86_400 + nanoseconds / 10**9)

    return convert


def _time_of_day(unit: str) -> Callable[[int], str]:
    nanoseconds = _UNIT_NANOSECONDS[unit]

    def convert(count: int) -> str:
        moment = EPOCH + timedelta(microseconds=count * nanoseconds // 1000)
        return moment.time().isoformat()

    return convert
