"""The quick way for usual columns: every value of exactly the column's type, none missing.

It only ever says yes or nothing: what it does not know takes the careful way of columns.py and
json.py, which also finds the words for what is wrong. Imports the standard library and orjson.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import orjson

from aiostream_ds._frames.arrays import array_kind
from aiostream_ds._frames.columns import ARRAY_TYPES, RANGES, FieldType
from aiostream_ds._frames.times import EPOCH, MILLISECOND, TIME_LIMIT, read_datetimes

__all__ = ["QuickWriter", "find_sound"]


class _Usual(NamedTuple):
    """What the values of one type usually are."""

    exact: type | None
    alone: frozenset[type]
    low: float
    high: float
    array: str
    """What `array_kind` says of it."""


def _usual(kind: type, array: str, limits: FieldType | None = None) -> _Usual:
    low, high = RANGES[limits] if limits is not None else (-inf, inf)
    return _Usual(kind, frozenset({kind}), low, high, array)


_UNUSUAL = _Usual(None, frozenset(), -inf, inf, "")
_USUAL = {
    FieldType.FLOAT64: _usual(float, "f8"),
    FieldType.INT64: _usual(int, "i8", FieldType.INT64),
    FieldType.TIME: _usual(int, "i8", FieldType.TIME),
    FieldType.BOOL: _usual(bool, "b1"),
}
_LIST_TYPES = {
    float: FieldType.FLOAT64,
    int: FieldType.INT64,
    bool: FieldType.BOOL,
    str: FieldType.STRING,
}
_FEW = 1_000
_MOST_PLANS = 256  # a column of times holds datetimes or ints
_N = ord("n")
_DATETIMES, _TEXTS, _LISTS = {datetime}, {str}, {list}


def find_sound(values: Any, wanted: FieldType | None) -> FieldType | None:
    """The type of values that may be sent as they stand, none of them None: `wanted`, or where that
    is None the one they have. The quick yes to what reading and checking find; None says nothing.
    """
    is_list = values.__class__ is list
    if is_list:
        natural = _LIST_TYPES.get(values[0].__class__) if values else None
    else:
        natural = ARRAY_TYPES.get(array_kind(values))
    found = natural if wanted is None else wanted
    if natural is None or found is None:
        return None
    if found is not natural and (found is not FieldType.TIME or natural is not FieldType.INT64):
        return None
    if found is FieldType.TIME and not is_list:
        return found if _are_times(values) else None
    if found is FieldType.STRING:
        return found if _are_texts(values) else None
    return found if not is_list or _is_sound(values, _USUAL[found]) else None


def _are_texts(values: list[Any]) -> bool:
    """Whether these are texts that UTF-8 can hold; many are not looked at: it would take long."""
    if len(values) > _FEW or set(map(type, values)) != _TEXTS:
        return False
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_times(values: Any) -> bool:
    """Whether an array's numbers are in the range of times. (Its `min` takes twice as long.)"""
    if not len(values):
        return True
    low, high = values.item(values.argmin()), values.item(values.argmax())
    return bool(-TIME_LIMIT <= low and high <= TIME_LIMIT)


def _is_sound(values: list[Any], usual: _Usual) -> bool:
    return set(map(type, values)) == usual.alone and _fits(values, usual)


def _fits(values: list[Any], usual: _Usual) -> bool:
    """Whether values of the type are in its range."""
    return usual.exact is not int or (usual.low <= min(values) and max(values) <= usual.high)


class _RowPlan(NamedTuple):
    """How a row is written, by the types of its values."""

    times: tuple[int, ...]
    """Places of datetimes."""
    limits: tuple[tuple[int, float, float], ...]
    """Places of whole numbers, and their range."""
    numbers: bool
    """Whether nothing else is written."""


class QuickWriter:
    """Writes the data of columns of these types."""

    __slots__ = ("_numbers", "_plans", "_types", "_usual")

    def __init__(self, types: Sequence[FieldType]) -> None:
        self._types = list(types)
        self._usual = [_USUAL.get(each, _UNUSUAL) for each in types]
        self._numbers = _UNUSUAL not in self._usual
        self._plans: dict[tuple[type, ...], _RowPlan] = {}

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

    def row(self, values: tuple[Any, ...]) -> bytes | None:
        """The same for one row: most packets of a slow stream have no more."""
        kinds = tuple(map(type, values))
        plan = self._plans.get(kinds)
        if plan is None:
            plan = self._plan(kinds)
            if plan is None:
                return None
        times, limits, numbers = plan
        cells: Sequence[Any] = values
        nanos: list[Any] = []
        if times:
            cells = list(values)
            for place in times:
                try:
                    at, rest = divmod(values[place] - EPOCH, MILLISECOND)
                except TypeError:  # it has no time zone
                    return None
                if not -TIME_LIMIT <= at <= TIME_LIMIT:
                    return None
                cells[place] = at
                if rest:
                    nanos = nanos or [None] * len(values)
                    nanos[place] = (rest.microseconds * 1000,)
        for place, low, high in limits:
            if not low <= cells[place] <= high:
                return None
        if not numbers:
            return _written([(cell,) for cell in cells], nanos)
        body = orjson.dumps(cells)
        if _N in body:
            return None  # NaN and infinities are written as null
        body = body[1:-1].replace(b",", b"],[")  # no number has a comma in it
        if nanos:
            return b'{"values":[[%b]],"nanos":%b}' % (body, orjson.dumps(nanos))
        return b'{"values":[[%b]]}' % body

    def _plan(self, kinds: tuple[type, ...]) -> "_RowPlan | None":
        """How a row with values of these types is written; None: one of them is not usual."""
        times: list[int] = []
        limits: list[tuple[int, float, float]] = []
        for place, (kind, usual, wanted) in enumerate(
            zip(kinds, self._usual, self._types, strict=True)
        ):
            if kind is datetime and wanted is FieldType.TIME:
                times.append(place)
            elif kind is not usual.exact and (kind is not str or wanted is not FieldType.STRING):
                return None
            if kind is int:
                limits.append((place, usual.low, usual.high))
        plan = _RowPlan(tuple(times), tuple(limits), str not in kinds and bool not in kinds)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[kinds] = plan
        return plan

    def _read(self, columns: Sequence[Any], nanos: list[list[int] | None]) -> list[Any] | None:
        """The columns in their plain form; what times have below their milliseconds to `nanos`."""
        plain: list[Any] = []
        for values, usual, wanted in zip(columns, self._usual, self._types, strict=True):
            found: Any = values
            if values.__class__ is not list:
                if array_kind(values) != usual.array:
                    return None
                if wanted is FieldType.TIME and not _are_times(values):
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
