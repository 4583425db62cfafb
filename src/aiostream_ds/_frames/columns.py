"""Columns: the types of fields, and an author's values in the form that the encoders take.

    author's values ── read ──> Column (list of builtin values, or native array) ── check ──>

numpy and pyarrow are never imported: their arrays are recognized by their attributes and handled by
their own methods.
"""

import enum
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from datetime import datetime
from math import inf
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple, NoReturn

import orjson

from aiostream_ds._frames.scalars import conversion, to_builtin
from aiostream_ds._frames.times import (
    EPOCH,
    MILLISECOND,
    TIME_LIMIT,
    TIME_RANGE,
    read_datetimes,
    time_text,
)
from aiostream_ds._short_repr import short_repr

__all__ = [
    "ARRAY_TYPES",
    "FLOATS",
    "NUMBERS",
    "RANGES",
    "Column",
    "FieldType",
    "FrameError",
    "array_kind",
    "check",
    "is_arrow",
    "is_numpy",
    "read",
    "with_nanos",
]


class FrameError(ValueError):
    """A frame that Grafana cannot read. The message names the field, the row and the value."""


class FieldType(enum.Enum):
    """The type of a field's values. The enum's value is Grafana's name in `typeInfo.frame`."""

    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BOOL = "bool"
    TIME = "time.Time"
    JSON = "json.RawMessage"
    ENUM = "enum"

    # Every packet looks types up, and the hash of Enum is Python code.
    __hash__ = object.__hash__

    @property
    def kind(self) -> str:
        """The type in the browser: `type` in JSON, `tstype` in Arrow."""
        return _KINDS.get(self, "number")


class Column(NamedTuple):
    """Values as the encoders take them; `nanos` is the part of each time below its millisecond."""

    values: Any
    type: FieldType
    nullable: bool
    nanos: Any = None


_KINDS = {
    FieldType.STRING: "string",
    FieldType.BOOL: "boolean",
    FieldType.TIME: "time",
    FieldType.JSON: "other",
    FieldType.ENUM: "enum",
}
FLOATS = frozenset({FieldType.FLOAT32, FieldType.FLOAT64})
RANGES = {
    FieldType.INT8: (-(2**7), 2**7 - 1),
    FieldType.INT16: (-(2**15), 2**15 - 1),
    FieldType.INT32: (-(2**31), 2**31 - 1),
    FieldType.INT64: (-(2**63), 2**63 - 1),
    FieldType.UINT8: (0, 2**8 - 1),
    FieldType.UINT16: (0, 2**16 - 1),
    FieldType.UINT32: (0, 2**32 - 1),
    FieldType.UINT64: (0, 2**64 - 1),
    FieldType.ENUM: (0, 2**16 - 1),
    FieldType.TIME: (-TIME_LIMIT, TIME_LIMIT),
}
NUMBERS = frozenset({*FLOATS, *RANGES, FieldType.BOOL}) - {FieldType.TIME}
"""The types of values that a chart draws as a line; booleans as 0 and 1."""

_FLOAT32_LIMIT: float = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_CLASSES: dict[FieldType, type] = {
    **dict.fromkeys(RANGES, int),
    **dict.fromkeys(FLOATS, float),
    FieldType.STRING: str,
    FieldType.BOOL: bool,
}
_BUILTIN = frozenset({bool, int, float, str, datetime, dict, list, tuple, NoneType})
ARRAY_TYPES = {
    "i1": FieldType.INT8,
    "i2": FieldType.INT16,
    "i4": FieldType.INT32,
    "i8": FieldType.INT64,
    "u1": FieldType.UINT8,
    "u2": FieldType.UINT16,
    "u4": FieldType.UINT32,
    "u8": FieldType.UINT64,
    "f4": FieldType.FLOAT32,
    "f8": FieldType.FLOAT64,
    "b1": FieldType.BOOL,
}
_DTYPES = {
    **{field_type: dtype for dtype, field_type in ARRAY_TYPES.items()},
    FieldType.TIME: "i8",
    FieldType.ENUM: "u2",
}

_class_dtype_strides = attrgetter("__class__", "dtype", "strides")
_array_kinds: dict[tuple[Any, ...], str] = {}
"""Results of `_find_kind`. numpy has one object for each native dtype, so this stays small."""


def is_numpy(values: object) -> bool:
    """Whether `values` is a numpy array."""
    return hasattr(values, "dtype") and hasattr(values, "tolist") and hasattr(values, "shape")


def is_arrow(values: object) -> bool:
    """Whether `values` is a pyarrow array, contiguous or chunked."""
    return hasattr(values, "null_count") and hasattr(values, "to_pylist")


def array_kind(values: Any) -> str:
    """Kind and item size, such as "f8", of a numpy array whose memory can be sent as it is: of
    numbers or bools, native, contiguous, one-dimensional. "" for everything else."""
    try:
        key = _class_dtype_strides(values)
        return _array_kinds.get(key) or _find_kind(values, key)
    except (AttributeError, TypeError):  # not a numpy array
        return ""


def _find_kind(values: Any, key: tuple[Any, ...]) -> str:
    _, dtype, strides = key
    if values.ndim != 1 or not values.flags.c_contiguous:
        return ""
    if dtype.kind not in "iufb" or dtype.itemsize > 8 or not dtype.isnative:
        return ""
    if hasattr(values, "mask") or _ndarray(values) is not type(values):
        return ""
    kind = f"{dtype.kind}{dtype.itemsize}"
    if strides == (dtype.itemsize,):  # contiguous; that of a single value may be any
        _array_kinds[key] = kind
    return kind


def _ndarray(values: Any) -> type | None:
    """numpy's own class of arrays, from an object of a subclass; None for other objects."""
    for each in type(values).__mro__:
        if each.__name__ == "ndarray" and each.__module__ == "numpy":
            return each
    return None


def _without_subclass(values: Any) -> Any:
    """A memmap, recarray or other subclass as an array of numpy's own class on the same memory:
    orjson takes no other. A masked array is not changed."""
    kind = _ndarray(values)
    if kind is None or kind is type(values) or hasattr(values, "mask"):
        return values
    return values.view(kind)


def read(name: str, values: Any, wanted: FieldType | None, nanos: Any = None) -> Column:
    """Convert values to a Column; `wanted` is the declared type, None infers it from the values.

    Raises:
        FrameError: no type fits, a time has no time zone, or an array's numbers do not fit the
            wanted type.
    """
    if wanted is not None and not isinstance(wanted, FieldType):
        types = ", ".join(f"FieldType.{each.name}" for each in FieldType)
        raise FrameError(f"field {name!r}: type must be one of {types}, got {wanted!r}")
    if type(values) is list:
        column = _read_list(name, values, wanted)
    elif is_numpy(values):
        column = _read_array(name, values, wanted)
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        shown = short_repr(values)
        raise FrameError(f"field {name!r}: values must be a list or a numpy array, got {shown}")
    else:
        column = _read_list(name, list(values), wanted)
    return with_nanos(name, column, nanos)


def with_nanos(name: str, column: Column, nanos: Any) -> Column:
    """The column of times with these parts below their milliseconds, unless they are None.

    Raises:
        FrameError: the column is not of times, or has such parts already.
    """
    if nanos is None:
        return column
    if column.type is not FieldType.TIME or column.nanos is not None:
        given = "times with nanoseconds" if column.nanos is not None else column.type.value
        raise FrameError(
            f"field {name!r}: nanos must belong to times in integer milliseconds, got {given}"
        )
    return column._replace(nanos=_without_subclass(nanos) if is_numpy(nanos) else list(nanos))


def _read_list(name: str, values: list[Any], wanted: FieldType | None) -> Column:
    classes = set(map(type, values))
    if wanted is FieldType.JSON:
        if any(conversion(each) is not None for each in classes - _BUILTIN):
            values = [_json_value(value) for value in values]
        return Column(values, wanted, any(value is None for value in values))
    if not classes <= _BUILTIN:
        values = _to_builtins(name, values)
        classes = set(map(type, values))
    nullable = NoneType in classes
    classes.discard(NoneType)
    if wanted is None:
        wanted = _infer(name, classes)
        nullable = nullable or not classes
    if wanted is FieldType.TIME and not classes <= {int}:
        times, nanos = _read_times(name, values)
        return Column(times, wanted, nullable, nanos)
    if wanted in FLOATS and int in classes and classes <= {int, float}:
        values = _to_floats(name, values, wanted)
    return Column(values, wanted, nullable)


def _to_floats(name: str, values: list[Any], wanted: FieldType) -> list[Any]:
    floats: list[Any] = []
    for row, value in enumerate(values):
        try:
            floats.append(None if value is None else float(value))
        except OverflowError:
            raise FrameError(
                f"{_place(name, row, values)}: expected a number in the range of {wanted.value},"
                f" got {short_repr(value)}"
            ) from None
    return floats


def _infer(name: str, classes: set[type]) -> FieldType:
    if classes == {int}:
        return FieldType.INT64
    if classes <= {int, float}:
        return FieldType.FLOAT64
    if classes == {bool}:
        return FieldType.BOOL
    if classes == {str}:
        return FieldType.STRING
    if classes <= {dict, list, tuple}:
        return FieldType.JSON
    if all(issubclass(each, datetime) for each in classes):
        return FieldType.TIME
    found = ", ".join(sorted(each.__name__ for each in classes))
    raise FrameError(
        f"field {name!r}: expected values of one type (bool, int and float, str, aware datetime, or"
        f" dict and list, each also with None), got {found}"
    )


def _to_builtins(name: str, values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for row, value in enumerate(values):
        try:
            found.append(value if type(value) in _BUILTIN else to_builtin(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise FrameError(f"{_place(name, row, values)}: {error}") from None
    return found


def _json_value(value: Any) -> Any:
    return (
        value if type(value) in _BUILTIN or conversion(type(value)) is None else to_builtin(value)
    )


def _read_times(name: str, values: list[Any]) -> tuple[list[Any], list[int] | None]:
    if set(map(type, values)) == {datetime} and (found := read_datetimes(values)):
        return found
    times: list[Any] = []
    nanos: list[int] = []
    for row, value in enumerate(values):
        if not isinstance(value, datetime):
            times.append(value)
            nanos.append(0)
            continue
        try:
            since = value - EPOCH
        except TypeError:
            raise FrameError(
                f"{_place(name, row, values)}: expected a datetime with a time zone, got {value!r};"
                " use an aware datetime such as datetime.now(UTC), or Unix milliseconds"
            ) from None
        times.append(since // MILLISECOND)
        nanos.append(since.microseconds % 1000 * 1000)
    return times, nanos if any(nanos) else None


def _read_array(name: str, values: Any, wanted: FieldType | None) -> Column:
    values = _without_subclass(values)
    if len(values.shape) != 1:
        raise FrameError(
            f"field {name!r}: expected a one-dimensional array, got an array of shape"
            f" {values.shape}"
        )
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "M" and wanted in (None, FieldType.TIME):
        return _read_datetime64(name, values)
    if kind == "m" and wanted in (None, FieldType.FLOAT64):
        return _read_timedelta64(values)
    if kind not in "iufb" or hasattr(values, "mask"):
        return _read_list(name, values.tolist(), wanted)
    if kind == "f" and size not in (4, 8):
        size = 4 if size == 2 else 8
        values = values.astype(f"f{size}")
    natural = ARRAY_TYPES[f"{kind}{size}"]
    if wanted is not None and wanted is not natural:
        if kind not in ("iuf" if wanted in FLOATS else "iu" if wanted in RANGES else ""):
            return _read_list(name, values.tolist(), wanted)
        _check_array(name, values, wanted)
        values = values.astype(_DTYPES[wanted])
    # orjson takes only contiguous arrays in native byte order.
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if not values.flags.c_contiguous:
        values = values.copy()
    return Column(values, wanted or natural, False)


def _read_datetime64(name: str, values: Any) -> Column:
    unit = values.dtype.str.partition("[")[2].rstrip("]")
    if not unit:
        raise FrameError(
            f"field {name!r}: expected a datetime64 array with a unit, such as datetime64[ms], got"
            f" {values.dtype}"
        )
    gaps = values != values  # NaT is the only time that differs from itself
    # Coarse units go to ms and not to ns, which overflows for years that ms can represent.
    parts, cast = 1, "ms"
    if unit.endswith("us"):
        parts, cast = 1_000, "us"
    elif unit.endswith(("ns", "ps", "fs", "as")):
        parts, cast = 1_000_000, "ns"
    converted = values.astype(f"M8[{cast}]")
    counts = converted.astype("i8")
    if parts == 1 and (lost := (converted.astype(values.dtype) != values) & ~gaps).any():
        row = int(lost.argmax())
        raise FrameError(
            f"{_place(name, row, values)}: expected {TIME_RANGE}, got"
            f" {values.astype('i8')[row]} in {values.dtype}"
        )
    times = counts // parts
    nanos = (counts - times * parts) * (1_000_000 // parts)
    if not gaps.any():
        return Column(times, FieldType.TIME, False, nanos if nanos.any() else None)
    nanos[gaps] = 0
    rows = zip(times.tolist(), gaps.tolist(), strict=True)
    times = [None if gap else time for time, gap in rows]
    return Column(times, FieldType.TIME, True, nanos.tolist() if nanos.any() else None)


def _read_timedelta64(values: Any) -> Column:
    """Durations as numbers of seconds."""
    counts = values / values.dtype.type(1, "s")
    gaps = counts != counts
    if not gaps.any():
        return Column(counts, FieldType.FLOAT64, False)
    found = counts.tolist()
    for row in gaps.nonzero()[0].tolist():
        found[row] = None
    return Column(found, FieldType.FLOAT64, True)


def check(name: str, column: Column, enum_size: int | None = None) -> None:
    """Check that the values fit their column; `enum_size` is the number of texts of an enum.

    Raises:
        FrameError: names the field, the first bad row and its value.
    """
    values, field_type, nullable, nanos = column
    if field_type is FieldType.JSON:
        if not _is_json(values):
            expected = "JSON with str keys and 64-bit integers"
            _refuse(name, values, lambda value: _is_json([value]), expected)
    elif is_numpy(values):
        _check_array(name, values, field_type, enum_size)
    elif is_arrow(values) and field_type is FieldType.STRING:
        _check_arrow_strings(name, values, nullable)
    else:
        _check_list(name, values, field_type, nullable, enum_size)
    if nanos is not None:
        if len(nanos) != len(values):
            raise FrameError(
                f"field {name!r}: nanos must have {len(values)} values, as many as the field, got"
                f" {len(nanos)}"
            )
        if array_kind(nanos) == "i8" and not (nanos.min() < 0 or nanos.max() > 999_999):
            return
        counts = nanos.tolist() if is_numpy(nanos) else nanos
        if not all(map(_is_nano, counts)):
            _refuse(name, counts, _is_nano, "nanos from 0 to 999999")


def _check_arrow_strings(name: str, values: Any, nullable: bool) -> None:
    if str(values.type) != "string":
        raise FrameError(f"field {name!r}: expected an array of string, got {values.type}")
    if values.null_count and not nullable:
        row = values.is_null().index(True).as_py()
        raise FrameError(f"{_place(name, row, values)}: expected {_NOT_NONE}, got None")
    try:
        values.validate(full=len(values) < _MANY_STRINGS or not _are_ascii(values))
    except ValueError as error:
        raise FrameError(f"field {name!r}: expected valid UTF-8, got {error}") from None


def _are_ascii(values: Any) -> bool:
    """Whether this array of strings is valid because all its bytes are ASCII and its offsets grow.
    False: pyarrow, which decodes one string after the other, has to find out."""
    numpy = sys.modules.get("numpy")
    _, offsets, data = values.buffers()
    if numpy is None or values.null_count or data is None:
        return False
    try:
        ends = numpy.frombuffer(offsets, "i4", len(values) + 1, 4 * values.offset)
        text = numpy.frombuffer(data, "i1")
    except ValueError:  # too short
        return False
    if ends[0] < 0 or ends[-1] > len(text) or (ends[1:] < ends[:-1]).any():
        return False
    return bool(text[ends[0] : ends[-1]].min(initial=0) >= 0)


_MANY_STRINGS = 1_000  # from which on numpy takes less time than `validate`

_NOT_NONE = "a value, the field is not nullable"


def _check_array(
    name: str, values: Any, field_type: FieldType, enum_size: int | None = None
) -> None:
    if not len(values):
        return
    if field_type in RANGES:
        if field_type is FieldType.INT64 and values.dtype.kind == "i":
            return  # no dtype of signed integers is wider
        low, high = _range(field_type, enum_size)
        if int(values.min()) < low or int(values.max()) > high:
            _refuse_range(name, values.tolist(), field_type, low, high)
    elif field_type is FieldType.FLOAT32 and values.dtype.itemsize > 4:
        large = ((values > _FLOAT32_LIMIT) & (values < inf)) | (
            (values < -_FLOAT32_LIMIT) & (values > -inf)
        )
        if not _fits_float32(*values[large].tolist()):
            _refuse(name, values.tolist(), _fits_float32, "a number in the range of float32")


def _check_list(
    name: str, values: list[Any], field_type: FieldType, nullable: bool, enum_size: int | None
) -> None:
    def refuse(fits: Callable[[Any], bool], expected: str) -> NoReturn:
        _refuse(name, values, lambda value: value is None or fits(value), expected)

    classes = set(map(type, values))
    present = values
    if NoneType in classes:
        if not nullable:
            _refuse(name, values, lambda value: value is not None, _NOT_NONE)
        present = [value for value in values if value is not None]
        classes.discard(NoneType)
    wanted = _CLASSES[field_type]
    if not classes <= {wanted}:
        expected = f"{wanted.__name__} for {field_type.value}"
        if field_type is FieldType.TIME:
            expected = "an aware datetime or an int of Unix milliseconds"
        refuse(lambda value: type(value) is wanted, expected)
    if not present:
        return
    if wanted is int:
        low, high = _range(field_type, enum_size)
        if min(present) < low or max(present) > high:
            _refuse_range(name, values, field_type, low, high)
    elif field_type is FieldType.FLOAT32:
        if not _fits_float32(*present):
            refuse(_fits_float32, "a number in the range of float32")
    elif wanted is str and not _is_utf8("".join(present)):
        refuse(_is_utf8, "a str that UTF-8 can encode")


def _range(field_type: FieldType, enum_size: int | None) -> tuple[int, int]:
    low, high = RANGES[field_type]
    if field_type is FieldType.ENUM and enum_size is not None:
        high = min(high, enum_size - 1)
    return low, high


def _refuse_range(
    name: str, values: list[Any], field_type: FieldType, low: int, high: int
) -> NoReturn:
    is_time = field_type is FieldType.TIME
    expected = TIME_RANGE if is_time else f"{low} to {high} for {field_type.value}"
    show = time_text if is_time else short_repr
    _refuse(name, values, lambda value: value is None or low <= value <= high, expected, show)


def _refuse(
    name: str,
    values: list[Any],
    fits: Callable[[Any], bool],
    expected: str,
    show: Callable[[Any], str] = short_repr,
) -> NoReturn:
    row = next(row for row, value in enumerate(values) if not fits(value))
    raise FrameError(f"{_place(name, row, values)}: expected {expected}, got {show(values[row])}")


def _place(name: str, row: int, values: Sized) -> str:
    """The field of a bad value, and its row if there are several: a live row has no number."""
    return f"field {name!r}, row {row}" if len(values) > 1 else f"field {name!r}"


def _fits_float32(*values: float) -> bool:
    try:
        struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        return False
    return True


def _is_json(values: list[Any]) -> bool:
    try:
        # One more list, as in the packet: orjson limits the depth.
        orjson.dumps([values], option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return False
    return True


def _is_nano(value: object) -> bool:
    return type(value) is int and 0 <= value <= 999_999


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
