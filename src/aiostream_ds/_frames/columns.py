"""Columns: the types a field can have, and how an author's values become what the encoders take.

    author's values ── read ──> Column (plain list, or native one-dimensional array) ── check ──>

Imports times, arrays, the standard library and orjson. numpy is never imported: its arrays are
known by their `dtype` and handled through their own methods.
"""

import enum
import reprlib
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from math import inf
from types import NoneType
from typing import Any, NamedTuple, NoReturn

import orjson

from aiostream_ds._frames.arrays import find_fault, is_arrow, unpack
from aiostream_ds._frames.times import EPOCH, MILLISECOND, TIME_LIMIT, read_datetimes

__all__ = ["FLOATS", "Column", "FieldType", "FrameError", "check", "is_array", "read"]


class FrameError(ValueError):
    """A frame that Grafana could not read; the message names the field, the row and the value."""


class FieldType(enum.Enum):
    """What a field's values are. The value is the name that Grafana uses in `typeInfo.frame`."""

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

    # enum's own hash is Python code, and every packet looks its types up.
    __hash__ = object.__hash__

    @property
    def kind(self) -> str:
        """The type as the browser sees it: `type` in JSON, `tstype` in Arrow."""
        return _KINDS.get(self, "number")


class Column(NamedTuple):
    """Values as the encoders take them; `nanos` is what a time has below its millisecond."""

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
_FLOAT32_LIMIT: float = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_CLASSES: dict[FieldType, type] = {
    **dict.fromkeys(RANGES, int),
    **dict.fromkeys(FLOATS, float),
    FieldType.STRING: str,
    FieldType.BOOL: bool,
}
_PLAIN = frozenset({bool, int, float, str, datetime, dict, list, tuple, NoneType})
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


def is_array(values: object) -> bool:
    """Whether `values` is a numpy array."""
    return hasattr(values, "dtype") and hasattr(values, "tolist") and hasattr(values, "shape")


def read(name: str, values: Any, wanted: FieldType | None, nanos: Any = None) -> Column:
    """Find the type where none is wanted, and bring the values into their one plain form.

    Raises:
        FrameError: no type fits, a time is naive, an array's numbers do not fit the wanted type.
    """
    if wanted is not None and not isinstance(wanted, FieldType):
        allowed = ", ".join(f"FieldType.{each.name}" for each in FieldType)
        raise FrameError(f"field {name!r}: type {wanted!r} is not one of {allowed}")
    if is_arrow(values):
        values = unpack(values, texts=wanted in (None, FieldType.STRING))
    if type(values) is list:
        column = _read_list(name, values, wanted)
    elif is_arrow(values):
        column = Column(values, FieldType.STRING, values.null_count > 0)
    elif is_array(values):
        column = _read_array(name, values, wanted)
    elif isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        found = type(values).__name__
        raise FrameError(f"field {name!r}: values must be a list or a numpy array, not {found}")
    else:
        column = _read_list(name, list(values), wanted)
    if nanos is None:
        return column
    if column.type is not FieldType.TIME or column.nanos is not None:
        raise FrameError(f"field {name!r}: nanos belong to a TIME field of whole milliseconds only")
    return column._replace(nanos=nanos if is_array(nanos) else list(nanos))


def _read_list(name: str, values: list[Any], wanted: FieldType | None) -> Column:
    if wanted is FieldType.JSON:
        return Column(values, wanted, any(value is None for value in values))
    classes = set(map(type, values))
    if not classes <= _PLAIN:
        values = [_plain(name, value) for value in values]
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
        try:
            values = [None if value is None else float(value) for value in values]
        except OverflowError:
            raise FrameError(
                f"field {name!r}: an integer is too large for {wanted.value}"
            ) from None
    return Column(values, wanted, nullable)


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
        f"field {name!r}: no type for values of {found}; allowed in one field are bool, int and"
        " float, str, aware datetime, or dict and list, and None with each of them"
    )


def _plain(name: str, value: Any) -> Any:
    """A numpy scalar, or a value of a subclass (StrEnum, IntEnum …), as a plain Python value."""
    if type(value) in _PLAIN or isinstance(value, datetime):
        return value
    if hasattr(value, "dtype") and hasattr(value, "item"):
        if value.dtype.kind == "M":
            raise FrameError(f"field {name!r}: give the datetime64 array itself, not a list of it")
        return value.item()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value


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
                f"field {name!r}, row {row}: {value!r} has no time zone; give an aware datetime"
                " such as datetime.now(UTC), or Unix milliseconds"
            ) from None
        times.append(since // MILLISECOND)
        nanos.append(since.microseconds % 1000 * 1000)
    return times, nanos if any(nanos) else None


def _read_array(name: str, values: Any, wanted: FieldType | None) -> Column:
    if len(values.shape) != 1:
        raise FrameError(f"field {name!r}: an array of shape {values.shape}; one dimension allowed")
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "M" and wanted in (None, FieldType.TIME):
        return _read_datetimes(name, values)
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
    # orjson takes arrays only in native byte order and in one piece.
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if not values.flags.c_contiguous:
        values = values.copy()
    return Column(values, wanted or natural, False)


def _read_datetimes(name: str, values: Any) -> Column:
    unit = values.dtype.str.partition("[")[2].rstrip("]")
    if not unit:
        raise FrameError(f"field {name!r}: a datetime64 array needs a unit, such as datetime64[ms]")
    gaps = values != values  # NaT is the only time that differs from itself
    # Coarse units go to ms and not to ns, which would overflow for years that ms can hold.
    parts, cast = 1, "ms"
    if unit.endswith("us"):
        parts, cast = 1_000, "us"
    elif unit.endswith(("ns", "ps", "fs", "as")):
        parts, cast = 1_000_000, "ns"
    whole = values.astype(f"M8[{cast}]").astype("i8")
    times = whole // parts
    nanos = (whole - times * parts) * (1_000_000 // parts)
    if not gaps.any():
        return Column(times, FieldType.TIME, False, nanos if nanos.any() else None)
    nanos[gaps] = 0
    rows = zip(times.tolist(), gaps.tolist(), strict=True)
    times = [None if gap else time for time, gap in rows]
    return Column(times, FieldType.TIME, True, nanos.tolist() if nanos.any() else None)


def check(name: str, column: Column, texts: int | None = None) -> None:
    """Refuse values that do not fit their column; `texts` counts the texts of an enum, if any.

    Raises:
        FrameError: names the field, the first bad row and its value.
    """
    values, field_type, nullable, nanos = column
    if field_type is FieldType.JSON:
        if not _is_json(values):
            _refuse(
                name,
                values,
                lambda value: _is_json([value]),
                "JSON of str keys and 64-bit integers",
            )
    elif is_array(values):
        _check_array(name, values, field_type, texts)
    elif is_arrow(values) and field_type is FieldType.STRING:
        if fault := find_fault(values, nullable):
            raise FrameError(f"field {name!r}{fault}")
    else:
        _check_list(name, values, field_type, nullable, texts)
    if nanos is not None:
        plain = nanos.tolist() if is_array(nanos) else nanos
        if len(plain) != len(values):
            raise FrameError(f"field {name!r}: {len(plain)} nanos for {len(values)} values")
        if not all(map(_is_nano, plain)):
            _refuse(name, plain, _is_nano, "nanos from 0 to 999999")


def _check_array(name: str, values: Any, field_type: FieldType, texts: int | None = None) -> None:
    if not len(values):
        return
    if field_type in RANGES:
        if field_type is FieldType.INT64 and values.dtype.kind == "i":
            return  # no array of ints has larger ones
        low, high = _range(field_type, texts)
        if int(values.min()) < low or int(values.max()) > high:
            allowed = f"{low} to {high} for {field_type.value}"
            _refuse(name, values.tolist(), lambda value: low <= value <= high, allowed)
    elif field_type is FieldType.FLOAT32 and values.dtype.itemsize > 4:
        large = ((values > _FLOAT32_LIMIT) & (values < inf)) | (
            (values < -_FLOAT32_LIMIT) & (values > -inf)
        )
        if not _fits_float32(*values[large].tolist()):
            _refuse(name, values.tolist(), _fits_float32, "float32")


def _check_list(
    name: str, values: list[Any], field_type: FieldType, nullable: bool, texts: int | None
) -> None:
    def refuse(fits: Callable[[Any], bool], allowed: str) -> NoReturn:
        _refuse(name, values, lambda value: value is None or fits(value), allowed)

    classes = set(map(type, values))
    present = values
    if NoneType in classes:
        if not nullable:
            _refuse(name, values, lambda value: value is not None, "a value: it is not nullable")
        present = [value for value in values if value is not None]
        classes.discard(NoneType)
    wanted = _CLASSES[field_type]
    if not classes <= {wanted}:
        allowed = f"{wanted.__name__} for {field_type.value}"
        if field_type is FieldType.TIME:
            allowed = "aware datetime, or int of milliseconds"
        refuse(lambda value: type(value) is wanted, allowed)
    if not present:
        return
    if wanted is int:
        low, high = _range(field_type, texts)
        if min(present) < low or max(present) > high:
            refuse(lambda value: low <= value <= high, f"{low} to {high} for {field_type.value}")
    elif field_type is FieldType.FLOAT32:
        if not _fits_float32(*present):
            refuse(_fits_float32, "float32")
    elif wanted is str and not _is_text("".join(present)):
        refuse(_is_text, "text that UTF-8 can hold")


def _range(field_type: FieldType, texts: int | None) -> tuple[int, int]:
    low, high = RANGES[field_type]
    if field_type is FieldType.ENUM and texts is not None:
        high = min(high, texts - 1)
    return low, high


def _refuse(name: str, values: list[Any], fits: Callable[[Any], bool], allowed: str) -> NoReturn:
    row = next(row for row, value in enumerate(values) if not fits(value))
    shown = reprlib.repr(values[row])
    raise FrameError(f"field {name!r}, row {row}: {shown} is not allowed; allowed is {allowed}")


def _fits_float32(*values: float) -> bool:
    try:
        struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        return False
    return True


def _is_json(values: list[Any]) -> bool:
    try:
        # In a list once more: as deep as in the packet, for orjson's limit on depth.
        orjson.dumps([values], option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return False
    return True


def _is_nano(value: object) -> bool:
    return type(value) is int and 0 <= value <= 999_999


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
