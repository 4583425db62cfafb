"""The quick way for usual columns: every value of exactly the column's type, none missing.

It only ever says yes or nothing: what it does not know takes the careful way of columns.py and
json.py, which also finds the words for what is wrong. Imports the standard library and orjson.
"""

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

import orjson

from aiostream_ds.frames.columns import RANGES, FieldType
from aiostream_ds.frames.times import read_datetimes

__all__ = ["QuickWriter", "is_sound"]


class _Usual(NamedTuple):
    """What the values of one type usually are."""

    exact: type | None
    alone: frozenset[type]
    low: float
    high: float
    array: tuple[str, int]
    """Kind and item size of a numpy dtype."""


def _usual(kind: type, array: tuple[str, int], limits: FieldType | None = None) -> _Usual:
    low, high = RANGES[limits] if limits is not None else (-inf, inf)
    return _Usual(kind, frozenset({kind}), low, high, array)


_UNUSUAL = _Usual(None, frozenset(), -inf, inf, ("", 0))
_USUAL = {
    FieldType.FLOAT64: _usual(float, ("f", 8)),
    FieldType.INT64: _usual(int, ("i", 8), FieldType.INT64),
    FieldType.TIME: _usual(int, ("i", 8), FieldType.TIME),
    FieldType.BOOL: _usual(bool, ("b", 1)),
}
_DATETIMES, _TEXTS = {datetime}, {str}


def is_sound(values: Any, wanted: FieldType) -> bool:
    """Whether these are, as they stand, a list of values of the type without a None: the quick yes
    to what reading and checking would find. False says nothing."""
    return values.__class__ is list and _is_sound(values, _USUAL.get(wanted, _UNUSUAL))


def _is_sound(values: list[Any], usual: _Usual) -> bool:
    exact, alone, low, high, _ = usual
    if set(map(type, values)) != alone:
        return False
    return exact is not int or (low <= min(values) and max(values) <= high)


class QuickWriter:
    """Writes the data of columns of these types."""

    __slots__ = ("_types", "_usual")

    def __init__(self, types: Sequence[FieldType]) -> None:
        self._types = list(types)
        self._usual = [_USUAL.get(each, _UNUSUAL) for each in types]

    def data(self, columns: Sequence[Any]) -> bytes | None:
        """The JSON object of the values, as `json.data` has it; None if some column is not usual.
        The columns are equally long."""
        nanos: list[list[int] | None] = []
        for values, (exact, _, low, high, _) in zip(columns, self._usual, strict=True):
            # Single rows are what most packets have: here no function is called for a value.
            if values.__class__ is not list or len(values) != 1:
                break
            value = values[0]
            kind = value.__class__
            if kind is not exact or (kind is int and not low <= value <= high):
                break
        else:
            return _written(columns, nanos)
        plain = self._read(columns, nanos)
        return None if plain is None else _written(plain, nanos)

    def _read(self, columns: Sequence[Any], nanos: list[list[int] | None]) -> list[Any] | None:
        """The columns in their plain form; what times have below their milliseconds to `nanos`."""
        plain: list[Any] = []
        for values, usual, wanted in zip(columns, self._usual, self._types, strict=True):
            found: Any = values
            if values.__class__ is not list:
                if not _is_sound_array(values, usual):
                    return None
            elif not _is_sound(values, usual):
                kinds = set(map(type, values))
                if kinds == _DATETIMES and wanted is FieldType.TIME:
                    read = read_datetimes(values)
                    if read is None:
                        return None
                    found, below = read
                    if below is not None:
                        nanos.extend([None] * (len(columns) - len(nanos)))
                        nanos[len(plain)] = below
                elif kinds != _TEXTS or wanted is not FieldType.STRING:
                    return None
            plain.append(found)
        return plain


def _is_sound_array(values: Any, usual: _Usual) -> bool:
    """Whether this is a numpy array of the type as orjson takes it."""
    dtype = getattr(values, "dtype", None)
    if (
        dtype is None
        or (dtype.kind, dtype.itemsize) != usual.array
        or not dtype.isnative
        or len(values.shape) != 1
        or not values.flags.c_contiguous
        or hasattr(values, "mask")
    ):
        return False
    if usual is not _USUAL[FieldType.TIME] or not len(values):
        return True
    return bool(usual.low <= values.min() and values.max() <= usual.high)


def _written(plain: Sequence[Any], nanos: list[list[int] | None]) -> bytes | None:
    try:
        body = orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return None  # text that is no UTF-8
    if b"n" in body and b"null" in body:
        return None  # NaN and infinities are written as null
    # A result of orjson holds far more memory than its bytes need until it is copied, as here.
    if nanos:
        return b'{"values":%b,"nanos":%b}' % (body, orjson.dumps(nanos))
    return b'{"values":%b}' % body
