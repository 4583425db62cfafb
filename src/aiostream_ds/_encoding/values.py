"""Values of dict rows: conversion to builtin types, and widening of a column's type."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from aiostream_ds._channels.policy import Conflict
from aiostream_ds._encoding.row_layout import NUMBERS, TIME, TYPES
from aiostream_ds._frames.frame import Field, FieldType, check_data

__all__ = ["VALUE_ERRORS", "is_valid", "to_builtin", "to_string", "widen"]

# The errors of a value that a column cannot hold.
VALUE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def widen(
    name: str, known: FieldType | None, values: list[Any], conflict: Conflict
) -> tuple[FieldType | None, list[Any], int]:
    """The column's type once it includes these values, the values, and how many were dropped.

    `conflict` decides about a value that does not fit. "null" drops it: it becomes None. "text"
    makes the type STRING, except for a column of times, and drops values that no column can hold.
    "fail" raises TypeError, which names column and value.
    """
    found = set(map(type, values))
    found.discard(type(None))
    dropped = 0
    if not found <= TYPES.keys():
        if conflict == "fail":
            values = [to_builtin(name, value) for value in values]
        else:
            values, dropped = _convert(values, lambda value: to_builtin(name, value))
        found = set(map(type, values)) - {type(None)}
    kinds = {_kind(name, each) for each in found}
    if known is not None:
        kinds.add(known)
    if kinds <= NUMBERS and len(kinds) > 1:
        kind: FieldType | None = FieldType.FLOAT64
    elif len(kinds) <= 1:
        kind = kinds.pop() if kinds else None
    elif conflict == "fail":
        raise _mismatch(name, known, values)
    elif conflict == "text" and known is not FieldType.TIME:
        kind = FieldType.STRING
        values, more = _convert(values, to_string)
        dropped += more
    else:
        kind, values, more = _drop_mismatched(name, known, values)
        dropped += more
    if conflict != "fail" and kind is not None and not is_valid(values, kind):
        values, more = _keep(values, lambda value: is_valid([value], kind))
        dropped += more
    return kind, values, dropped


def is_valid(values: list[Any], kind: FieldType) -> bool:
    """Whether a column of this type can hold these values: range, time zone, UTF-8 and so on."""
    try:
        check_data([Field("", values, kind, nullable=True)])
    except VALUE_ERRORS:
        return False
    return True


def _kind(name: str, found: type) -> FieldType:
    """An int is a time only in the column `time`."""
    return FieldType.TIME if name == TIME and found is int else TYPES[found]


def _first_kind(name: str, known: FieldType | None, values: list[Any]) -> FieldType:
    return known or _kind(name, next(type(value) for value in values if value is not None))


def _mismatch(name: str, known: FieldType | None, values: list[Any]) -> TypeError:
    present = [value for value in values if value is not None]
    first = _first_kind(name, known, values)
    fitting = NUMBERS if first in NUMBERS else {first}
    kinds = {_kind(name, type(value)) for value in present} | {first}
    mismatched = next(value for value in present if _kind(name, type(value)) not in fitting)
    expected = " or ".join(sorted(kind.value for kind in fitting & kinds))
    return TypeError(
        f"column {name!r}: expected {expected}, got {mismatched!r} ({type(mismatched).__name__})"
    )


def _drop_mismatched(
    name: str, known: FieldType | None, values: list[Any]
) -> tuple[FieldType, list[Any], int]:
    """Keep the values that fit the column's type, or that of the first value; drop the others."""
    first = _first_kind(name, known, values)
    fitting = NUMBERS if first in NUMBERS else {first}
    values, dropped = _keep(values, lambda value: _kind(name, type(value)) in fitting)
    if first is FieldType.INT64 and any(type(value) is float for value in values):
        first = FieldType.FLOAT64
    return first, values, dropped


def _keep(values: list[Any], fits: Callable[[Any], bool]) -> tuple[list[Any], int]:
    """The values with None for those that do not fit, and how many those are."""
    kept = [value if value is None or fits(value) else None for value in values]
    return kept, kept.count(None) - values.count(None)


def _convert(values: list[Any], convert: Callable[[Any], Any]) -> tuple[list[Any], int]:
    """The converted values, with None for those that raise an error, and how many those are."""
    found: list[Any] = []
    dropped = 0
    for value in values:
        try:
            found.append(None if value is None else convert(value))
        except VALUE_ERRORS:
            found.append(None)
            dropped += 1
    return found, dropped


def to_string(value: Any) -> str:
    """A builtin value as a str: a datetime in ISO 8601, a str unchanged, anything else as JSON.

    Raises:
        TypeError, ValueError: JSON cannot represent it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()


def to_builtin(name: str, value: Any) -> Any:
    """A numpy scalar or a value of a subclass as a value of the builtin type.

    Raises:
        TypeError: no column can hold the value.
    """
    if value is None or type(value) in TYPES:
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "item"):
        # not datetime64 and timedelta64: item() may be an int without its unit
        if getattr(value, "shape", ()) == () and dtype.kind not in "mMO":
            value = value.item()
    for kind, convert in _CONVERSIONS.items():
        if isinstance(value, kind):
            return convert(value)
    raise TypeError(
        f"column {name!r}: expected bool, int, float, str, datetime, dict, list or None, got"
        f" {value!r} ({type(value).__name__})"
    )


def _datetime(value: datetime) -> datetime | None:
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


# The base classes' own methods: an Enum that is a str or an int has another __str__.
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    datetime: _datetime,
    Mapping: dict,
    list: list,
    tuple: list,
}
