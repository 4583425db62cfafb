"""Single values of many types as values of the builtin types that columns have.

The builtin types are bool, int, float, str, datetime (aware), dict and list. Every other type has
one conversion, in a table here and in docs/streams.md. numpy and pandas are never imported: their
classes are recognized by name.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from math import isinf
from typing import Any, NamedTuple

import msgspec
import orjson

from aiostream_ds._short_repr import short_repr

__all__ = ["BUILTIN_TYPES", "CONVERTED", "Conversion", "conversion", "to_builtin", "to_text"]

BUILTIN_TYPES = frozenset({bool, int, float, str, datetime, dict, list})
"""The types of values that need no conversion, besides that of None."""

CONVERTED = (
    "Decimal, Fraction, date, time, timedelta, Enum, UUID, bytes, a path, an IP address or a numpy"
    " scalar"
)
"""The other types, as error messages list them."""


class Conversion(NamedTuple):
    """How values of a class become builtin values."""

    builtin: type | None
    """The type of the result, apart from None; None if it depends on the value."""
    convert: Callable[[Any], Any]
    """Raises TypeError or ValueError for a value that no column can hold."""
    text: Callable[[Any], Any] | None = None
    """The value in a column of text. None: the text of the builtin value."""


def to_builtin(value: Any) -> Any:
    """The value as one of a builtin type, or None for NaT, NA and UNSET.

    Raises:
        TypeError: the type has no conversion.
        ValueError: the value has none.
    """
    kind = value.__class__
    if value is None or kind in BUILTIN_TYPES:
        return value
    found = conversion(kind)
    if found is None:
        raise TypeError(
            "expected bool, int, float, str, datetime, dict, list or None, or a value that is"
            f" converted to one ({CONVERTED}), got {short_repr(value)} ({kind.__name__})"
        )
    return found.convert(value)


def to_text(value: Any) -> Any:
    """The value as it is in a column of text: str unchanged, datetime and time in ISO 8601, dict
    and list as JSON, bool as true or false, and of other types `str(value)`; None stays None.

    Raises:
        TypeError, ValueError: the value has no text.
    """
    kind = value.__class__
    if kind is str or value is None:
        return value
    if kind not in BUILTIN_TYPES:
        found = conversion(kind)
        if found is None:
            if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
                return to_builtin(value)  # raises: such a text would only be an address
            return str(value)
        if found.text is not None:
            return found.text(value)
        value = found.convert(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()


def _find_conversion(kind: type) -> Conversion | None:
    if issubclass(kind, Enum):
        return Conversion(_enum_type(kind), lambda member: to_builtin(member.value), _enum_text)
    for base in kind.__mro__:
        found = _CONVERSIONS.get(base) or _BY_NAME.get(f"{base.__module__}.{base.__name__}")
        if found is not None:
            return found
    # classes that are only registered as these: `Mapping` itself is one in an annotation
    for abstract, found in _BY_PROTOCOL:
        if issubclass(kind, abstract):
            return found
    return None


conversion: Callable[[Any], Conversion | None] = lru_cache(maxsize=1024)(_find_conversion)
"""The conversion of the values of a class, which may also be a builtin type. None: it has none."""


def _enum_type(kind: type[Enum]) -> type | None:
    """The type of all values of an Enum, if they have one type."""
    members: Iterable[Enum] = kind
    found = {_result_type(type(member.value)) for member in members}
    if found == {int, float}:
        return float
    return found.pop() if len(found) == 1 else None


def _result_type(kind: type) -> type | None:
    found = conversion(kind)
    return None if found is None else found.builtin


def _enum_text(member: Enum) -> Any:
    return to_text(member.value)


def _datetime(value: datetime) -> datetime | None:
    """A datetime of a subclass, such as pandas.Timestamp, without what is below a microsecond."""
    if value != value:
        return None  # pandas.NaT
    return datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


def _date(value: date) -> datetime:
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def _float(value: Any) -> float:
    """Decimal and Fraction."""
    number = float(value)
    if isinf(number) and (not hasattr(value, "is_infinite") or not value.is_infinite()):
        raise ValueError(f"expected a number in the range of float, got {short_repr(value)}")
    return number


def _decoded(value: Any) -> str:
    """bytes, bytearray and memoryview."""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"expected bytes that are UTF-8, got {short_repr(bytes(value))}; use their .hex(), or"
            " decode them"
        ) from None


def _path(value: "os.PathLike[Any]") -> str:
    return os.fsdecode(value)


def _none(value: Any) -> None:
    return None


def _numpy_scalar(value: Any) -> Any:
    found = value.item()
    if found.__class__ is not value.__class__:
        return to_builtin(found)
    return _float(value)  # item() of a longdouble is a longdouble


def _array(value: Any) -> Any:
    """An array without dimensions, as numpy functions sometimes return it."""
    if value.shape != ():
        raise TypeError(f"expected a single value, got an array of shape {value.shape}")
    found = value[()]
    return None if found is value else to_builtin(found)  # numpy.ma.masked is its own element


def _numpy_time(value: Any) -> datetime | None:
    """datetime64, which is in UTC, without what is below a microsecond."""
    if value != value:
        return None  # NaT
    found = value.astype("M8[us]").item()
    if not isinstance(found, datetime):
        raise ValueError(f"expected a datetime64 of the years 1 to 9999, got {value!r}")
    return found.replace(tzinfo=UTC)


def _numpy_duration(value: Any) -> timedelta | None:
    if value != value:
        return None  # NaT
    unit = value.dtype.str.partition("[")[2]
    found = None if unit in ("", "Y]", "M]") else value.astype("m8[us]").item()
    if not isinstance(found, timedelta):
        raise ValueError(f"expected a timedelta64 of weeks or a smaller unit, got {value!r}")
    return found


def _numpy_seconds(value: Any) -> float | None:
    found = _numpy_duration(value)
    return None if found is None else found.total_seconds()


def _numpy_duration_text(value: Any) -> str | None:
    found = _numpy_duration(value)
    return None if found is None else str(found)


# The base classes' own methods: a subclass may have another __str__.
_CONVERSIONS: dict[type, Conversion] = {
    bool: Conversion(bool, bool),
    int: Conversion(int, int.__int__),
    float: Conversion(float, float.__float__),
    str: Conversion(str, str.__str__),
    datetime: Conversion(datetime, _datetime),
    date: Conversion(datetime, _date, date.isoformat),
    time: Conversion(str, time.isoformat),
    timedelta: Conversion(float, timedelta.total_seconds, str),
    bytes: Conversion(str, _decoded),
    bytearray: Conversion(str, _decoded),
    memoryview: Conversion(str, _decoded),
    dict: Conversion(dict, dict),
    list: Conversion(list, list),
    tuple: Conversion(list, list),
    msgspec.UnsetType: Conversion(None, _none),
}
_BY_NAME: dict[str, Conversion] = {
    "decimal.Decimal": Conversion(float, _float, str),
    "fractions.Fraction": Conversion(float, _float, str),
    "uuid.UUID": Conversion(str, str),
    "ipaddress._IPAddressBase": Conversion(str, str),
    "numpy.bool": Conversion(bool, _numpy_scalar),
    "numpy.bool_": Conversion(bool, _numpy_scalar),  # before numpy 2
    "numpy.datetime64": Conversion(datetime, _numpy_time),
    "numpy.timedelta64": Conversion(float, _numpy_seconds, _numpy_duration_text),
    "numpy.integer": Conversion(int, _numpy_scalar),
    "numpy.floating": Conversion(float, _numpy_scalar),
    "numpy.ndarray": Conversion(None, _array),
    "pandas._libs.missing.NAType": Conversion(None, _none),  # before pandas 3
    "pandas.api.typing.NAType": Conversion(None, _none),
}
_BY_PROTOCOL: list[tuple[type, Conversion]] = [
    (os.PathLike, Conversion(str, _path)),
    (Mapping, Conversion(dict, dict)),
    (Sequence, Conversion(list, list)),
]
