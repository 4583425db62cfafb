"""The quick way for usual columns: every value of exactly the column's type, none missing.

It only ever says yes or nothing: what it does not know takes the careful way of columns.py and
json.py, which also finds the words for what is wrong. Imports the standard library and orjson.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import orjson

from aiostream_ds.frames.columns import RANGES, FieldType
from aiostream_ds.frames.times import DAY, EPOCH, TIME_LIMIT, read_datetimes

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
_N = ord("n")
_DATETIMES, _TEXTS, _LISTS = {datetime}, {str}, {list}


def is_sound(values: Any, wanted: FieldType) -> bool:
    """Whether these are, as they stand, a list of values of the type without a None: the quick yes
    to what reading and checking would find. False says nothing."""
    return values.__class__ is list and _is_sound(values, _USUAL.get(wanted, _UNUSUAL))


def _is_sound(values: list[Any], usual: _Usual) -> bool:
    return set(map(type, values)) == usual.alone and _fits(values, usual)


def _fits(values: list[Any], usual: _Usual) -> bool:
    """Whether values of the type are in its range."""
    return usual.exact is not int or (usual.low <= min(values) and max(values) <= usual.high)


class QuickWriter:
    """Writes the data of columns of these types."""

    __slots__ = ("_arrays", "_numbers", "_types", "_usual")

    def __init__(self, types: Sequence[FieldType]) -> None:
        self._types = list(types)
        self._usual = [_USUAL.get(each, _UNUSUAL) for each in types]
        self._arrays = [_Arrays(usual) for usual in self._usual]
        self._numbers = _UNUSUAL not in self._usual

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

    def many(self, tables: Sequence[Sequence[Any]]) -> list[bytes] | None:
        """The same for many small tables of nothing but numbers: each of several columns."""
        if not self._numbers or len(self._types) < 2:
            return None
        for columns, usual in zip(zip(*tables, strict=True), self._usual, strict=True):
            if set(map(type, columns)) != _LISTS:
                return None
            if not _is_sound(list(chain.from_iterable(columns)), usual):
                return None
        body = orjson.dumps(tables)
        if _N in body and b"null" in body:
            return None
        # Written in one go and cut where one table ends: no number has a bracket in it.
        return [b'{"values":[[%b]]}' % piece for piece in body[3:-3].split(b"]],[[")]

    def row(self, values: Iterable[Any]) -> bytes | None:
        """The same for one row: most packets of a slow stream have no more."""
        cells: list[tuple[Any]] = []
        nanos: list[Any] = []
        for value, (exact, _, low, high, _), wanted in zip(
            values, self._usual, self._types, strict=True
        ):
            kind = value.__class__
            if kind is exact:
                if kind is int and not low <= value <= high:
                    return None
            elif kind is datetime and wanted is FieldType.TIME:
                try:
                    since = value - EPOCH
                except TypeError:  # it has no time zone
                    return None
                below = since.microseconds
                value = since.days * DAY + since.seconds * 1000 + below // 1000
                if not -TIME_LIMIT <= value <= TIME_LIMIT:
                    return None
                if below % 1000:
                    nanos = nanos or [None] * len(self._types)
                    nanos[len(cells)] = (below % 1000 * 1000,)
            elif kind is not str or wanted is not FieldType.STRING:
                return None
            cells.append((value,))
        return _written(cells, nanos)

    def _read(self, columns: Sequence[Any], nanos: list[list[int] | None]) -> list[Any] | None:
        """The columns in their plain form; what times have below their milliseconds to `nanos`."""
        plain: list[Any] = []
        for values, usual, wanted, arrays in zip(
            columns, self._usual, self._types, self._arrays, strict=True
        ):
            found: Any = values
            if values.__class__ is not list:
                if not arrays.is_sound(values):
                    return None
                plain.append(values)
                continue
            kinds = set(map(type, values))
            if kinds == usual.alone:
                if not _fits(values, usual):
                    return None
            elif kinds == _DATETIMES and wanted is FieldType.TIME:
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


class _Arrays:
    """Knows at a glance the arrays of one column once it has looked closely at one: numpy has one
    object for each native dtype."""

    __slots__ = ("_class", "_dtype", "_usual")

    def __init__(self, usual: _Usual) -> None:
        self._usual = usual
        self._class: Any = None
        self._dtype: Any = None

    def is_sound(self, values: Any) -> bool:
        """Whether this is a numpy array of the column's type as orjson takes it."""
        if values.__class__ is not self._class or values.dtype is not self._dtype:
            if not self._looks_sound(values):
                return False
            self._class, self._dtype = values.__class__, values.dtype
        if values.ndim != 1 or not values.flags.c_contiguous:
            return False
        if self._usual is not _USUAL[FieldType.TIME] or not len(values):
            return True
        return bool(self._usual.low <= values.min() and values.max() <= self._usual.high)

    def _looks_sound(self, values: Any) -> bool:
        dtype: Any = getattr(values, "dtype", None)
        return (
            hasattr(values, "flags")
            and not hasattr(values, "mask")
            and (dtype.kind, dtype.itemsize) == self._usual.array
            and bool(dtype.isnative)
        )


def _written(plain: Sequence[Any], nanos: Sequence[Any]) -> bytes | None:
    try:
        body = orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return None  # text that is no UTF-8
    if _N in body and b"null" in body:  # a number is looked for quickest
        return None  # NaN and infinities are written as null
    # A result of orjson holds far more memory than its bytes need until it is copied, as here.
    if nanos:
        return b'{"values":%b,"nanos":%b}' % (body, orjson.dumps(nanos))
    return b'{"values":%b}' % body
