"""Values of dict rows: conversion to builtin types, and widening of a column's type."""

from collections.abc import Callable, Mapping
from typing import Any

from aiostream_ds._channels.policy import Conflict
from aiostream_ds._encoding.row_columns import NUMBERS, TIME, TYPES
from aiostream_ds._frames import scalars
from aiostream_ds._frames.frame import Field, FieldType, check_data
from aiostream_ds._short_repr import short_repr

__all__ = ["VALUE_ERRORS", "is_valid", "to_builtin", "to_text", "widen", "with_text_keys"]

_NO_CONVERSION = TYPES.keys() | {type(None)}

# The errors of a value that a column cannot hold.
VALUE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def widen(
    name: str, known: FieldType | None, values: list[Any], conflict: Conflict
) -> tuple[FieldType | None, list[Any], int]:
    """The column's type once it includes these values, the values, and how many were dropped.

    `conflict` decides about a value that does not fit. "null" drops it: it becomes None. "text"
    makes the type STRING, except for a column of times, and drops values that have no text.
    "fail" raises TypeError, which names column and value.
    """
    given, dropped = values, 0
    types = set(map(type, values))
    if not types <= _NO_CONVERSION:
        if conflict == "fail":
            values = [to_builtin(name, value) for value in values]
        else:
            values, dropped = _convert(values, scalars.to_builtin)
        types = set(map(type, values))
    kinds = {_kind(name, each) for each in types - {type(None)}}
    if known is not None:
        kinds.add(known)
    kind: FieldType | None
    differ = len(kinds) > 1 and not kinds <= NUMBERS
    if differ and conflict == "fail":
        raise _mismatch(name, known, values)
    if (
        conflict == "text"
        and known is not FieldType.TIME
        and (differ or _needs_text(given, values, kinds))
    ):
        kind = FieldType.STRING
        values, dropped = _convert(given, scalars.to_text)
    elif differ:
        kind, values, more = _drop_mismatched(name, known, values)
        dropped += more
    else:
        kind = FieldType.FLOAT64 if len(kinds) > 1 else next(iter(kinds), None)
    if conflict != "fail" and kind is not None and not is_valid(values, kind):
        values, more = _keep(values, lambda value: is_valid([value], kind))
        dropped += more
    return kind, values, dropped


def _needs_text(given: list[Any], converted: list[Any], kinds: set[FieldType]) -> bool:
    """Whether a value can only be in a column of text: an int of more than 64 bits, or a value of a
    type without conversion."""
    if kinds == {FieldType.INT64} and not is_valid(converted, FieldType.INT64):
        return True
    pairs = zip(given, converted, strict=True)
    failed = [value for value, builtin in pairs if builtin is None and value is not None]
    texts, _ = _convert(failed, scalars.to_text)
    return any(text is not None for text in texts)


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
        f"column {name!r}: expected {expected}, got {short_repr(mismatched)}"
        f" ({type(mismatched).__name__})"
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


def to_builtin(name: str, value: Any) -> Any:
    """As `scalars.to_builtin`, with the name of the column in its errors."""
    return _named(name, scalars.to_builtin, value)


def to_text(name: str, value: Any) -> Any:
    """As `scalars.to_text`, with the name of the column in its errors."""
    return _named(name, scalars.to_text, value)


def _named(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except TypeError as error:
        raise TypeError(f"column {name!r}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {name!r}: {error}") from None


def with_text_keys(row: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A row whose keys of bytes are decoded, as a client of Redis returns it; the same row if its
    first key is of another type.

    Raises:
        TypeError: a key of bytes has the text of another key.
    """
    if type(next(iter(row), None)) is not bytes:
        return row
    decoded = {_decoded(key): value for key, value in row.items()}
    if len(decoded) < len(row):
        key = next(key for key in row if type(key) is bytes and _decoded(key) in row)
        raise TypeError(
            "each column of a row must have one key, got"
            f" {short_repr(key)} and {short_repr(_decoded(key))}"
        )
    return decoded


def _decoded(key: Any) -> Any:
    try:
        return key.decode() if type(key) is bytes else key
    except UnicodeDecodeError:
        return key  # refused as other keys that are not str
