"""Reads the list of a column in the common case: checks each value, and converts it for orjson.

msgspec checks the types and ranges of a list in one call, in half the time of Python's functions.
It also takes what the general path converts to the same values: integers in a column of floats.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta

from aiostream_ds._frames.columns import RANGES, FieldType
from aiostream_ds._frames.datetime_arrays import datetimes_array
from aiostream_ds._frames.times import read_datetimes

__all__ = ["ReadList", "list_reader", "read_times"]

ReadList = Callable[[list[Any]], Any]
"""Returns what orjson writes for the values of a list. None: one of them is not common."""

_LARGEST_FLOAT = 1.7976931348623157e308
_LARGE_INT = 1 << 30
"""orjson takes four times as long as msgspec for larger integers, and less for others."""
_MANY = 64
"""Values from which a column is worth a call of its own."""

_encode_integers = msgspec.json.Encoder().encode


def _integers(field_type: FieldType) -> Any:
    low, high = RANGES[field_type]
    return Annotated[int, Meta(ge=low, le=high)]


_ITEMS: dict[FieldType, Any] = {
    FieldType.FLOAT64: Annotated[float, Meta(ge=-_LARGEST_FLOAT, le=_LARGEST_FLOAT)],
    FieldType.INT64: _integers(FieldType.INT64),
    FieldType.BOOL: bool,
}
"""The types of values, as msgspec checks them: floats are finite."""


def _converter(item: Any) -> Callable[[list[Any]], list[Any]]:
    """A function that checks the values of a list. msgspec reads a type again in each call, which
    takes as long as a hundred values, but the types of a Struct's fields only once."""
    kind: Any = msgspec.defstruct("Column", [("values", GenericAlias(list, item))], array_like=True)
    return lambda values: msgspec.convert((values,), kind).values


_convert_times = _converter(_integers(FieldType.TIME))


@lru_cache
def list_reader(field_type: FieldType | None, *, is_nullable: bool) -> ReadList:
    """The function for lists of this type; with `is_nullable` they may have None. None: the type is
    not known. `read_times` is for times."""
    if field_type is FieldType.STRING or field_type is None:
        types: set[type] = {str} if field_type is FieldType.STRING else set()
        if is_nullable:
            types.add(type(None))
        return lambda values: values if types.issuperset(map(type, values)) else None
    item = _ITEMS.get(field_type)
    if item is None:
        return _decline
    convert = _converter(item | None if is_nullable else item)
    return partial(_read_integers if field_type is FieldType.INT64 else _read, convert)


def read_times(values: list[Any]) -> tuple[Any, list[int] | None]:
    """The milliseconds of datetimes, or of integers, and the nanoseconds below them if there are
    any. The first is None if a value is not common."""
    kind = values[0].__class__ if values else None
    if kind is int:
        return _read_integers(_convert_times, values), None
    if kind is not datetime:
        return None, None
    is_many = len(values) >= _MANY
    found = datetimes_array(values) if is_many else None  # it refuses values of other types
    if found is not None:
        return found, None
    is_only_kind = [*map(type, values)].count(datetime) == len(values)
    read = read_datetimes(values) if is_only_kind else None
    if read is None or not is_many:
        return read or (None, None)
    return _large_integers(read[0]), read[1]


def _decline(values: list[Any]) -> None:
    return None


def _read(convert: Callable[[Any], list[Any]], values: list[Any]) -> list[Any] | None:
    try:
        return convert(values)
    except (msgspec.MsgspecError, ValueError):  # a str that UTF-8 cannot encode is a ValueError
        return None


def _read_integers(convert: Callable[[Any], list[Any]], values: list[Any]) -> Any:
    found = _read(convert, values)
    # the first value decides which way is taken; both write the same
    is_large = found is not None and len(found) >= _MANY and (found[0] or 0) > _LARGE_INT
    return _large_integers(found) if is_large else found


def _large_integers(values: list[Any] | None) -> orjson.Fragment:
    """The JSON of integers of 64 bits or None. msgspec writes longer integers, too."""
    return orjson.Fragment(_encode_integers(values))
