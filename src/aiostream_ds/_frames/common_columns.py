"""The fast path for the common case: every value has exactly the column's type, or is None where
the caller allows it.

Functions here return None for any other input; columns.py and json/encoder.py then handle it and
raise the errors. tests/frames/test_common_columns.py holds both paths to the same bytes.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import chain
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from aiostream_ds._frames.columns import ARRAY_TYPES, RANGES, FieldType, array_kind
from aiostream_ds._frames.list_readers import list_reader, read_times
from aiostream_ds._frames.single_row import WriteRow, row_function
from aiostream_ds._frames.times import TIME_LIMIT

__all__ = ["CommonCaseWriter", "only_type", "validated_type"]


class _CommonCase(NamedTuple):
    """The values of one field type in the common case."""

    exact: type | None
    low: float
    high: float
    array: str
    """The result of `array_kind`."""


def _common_case(kind: type, array: str, limits: FieldType | None = None) -> _CommonCase:
    low, high = RANGES[limits] if limits is not None else (-inf, inf)
    return _CommonCase(kind, low, high, array)


_NO_COMMON_CASE = _CommonCase(None, -inf, inf, "")
_COMMON_CASES: dict[FieldType | None, _CommonCase] = {
    FieldType.FLOAT64: _common_case(float, "f8"),
    FieldType.INT64: _common_case(int, "i8", FieldType.INT64),
    FieldType.TIME: _common_case(int, "i8", FieldType.TIME),
    FieldType.BOOL: _common_case(bool, "b1"),
}
_LIST_TYPES = {
    float: FieldType.FLOAT64,
    int: FieldType.INT64,
    bool: FieldType.BOOL,
    str: FieldType.STRING,
}
_PRESENT: dict[FieldType | None, type] = {kind: each for each, kind in _LIST_TYPES.items()}
_MAX_STRINGS = 1_000
_FIRST_TIME = -TIME_LIMIT
_TEXTS = frozenset({str})
_MAX_FORMATS = 256  # a column of times may hold datetimes or ints
_N = ord("n")
_NONE = type(None)

_get_array_kind = attrgetter("__class__", "dtype", "ndim")


def only_type(values: Sequence[Any]) -> type | None:
    """The type of all values. None: they have several types, or there are none. Counting takes half
    the time of a set of types."""
    if not values:
        return None
    kind: type = type(values[0])
    return kind if len(values) == 1 or [*map(type, values)].count(kind) == len(values) else None


def validated_type(values: Any, wanted: FieldType | None) -> FieldType | None:
    """The type of values that need no conversion and no further check, none of them None: `wanted`,
    or the type of the values if that is None. None: not validated, use columns.read and check."""
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
        return found if _are_strings(values) else None
    return found if not is_list or _is_common(values, _COMMON_CASES[found]) else None


def _are_strings(values: list[Any]) -> bool:
    """Whether these are strings that UTF-8 can encode. False for long lists: it takes too long."""
    if len(values) > _MAX_STRINGS or not _TEXTS.issuperset(map(type, values)):
        return False
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_times(values: Any) -> bool:
    """Whether an array's numbers are in the range of times. `min` takes twice as long as argmin."""
    if not len(values):
        return True
    item = values.item
    found: bool = _FIRST_TIME <= item(values.argmin()) and item(values.argmax()) <= TIME_LIMIT
    return found


def _is_common(values: list[Any], case: _CommonCase) -> bool:
    return only_type(values) is case.exact and _is_in_range(values, case)


def _is_in_range(values: list[Any], case: _CommonCase) -> bool:
    return case.exact is not int or (case.low <= min(values) and max(values) <= case.high)


class CommonCaseWriter:
    """Writes the data of columns of these types, in the common case. The first `checked` columns
    have valid numbers. Those with an index in `nullable` may have None, and those whose type is
    None, as it is not known yet, nothing else."""

    __slots__ = (
        "_array_kinds",
        "_cases",
        "_checked",
        "_nullable",
        "_numbers_only",
        "_readers",
        "_row_functions",
        "_times",
        "_types",
    )

    def __init__(
        self, types: Sequence[FieldType | None], checked: int = 0, nullable: Collection[int] = ()
    ) -> None:
        self._types = list(types)
        self._checked = checked
        self._nullable = frozenset(nullable)
        self._cases = [_COMMON_CASES.get(each, _NO_COMMON_CASE) for each in types]
        self._readers = [
            list_reader(each, is_nullable=n in self._nullable) for n, each in enumerate(types)
        ]
        self._numbers_only = _NO_COMMON_CASE not in self._cases
        self._row_functions: dict[tuple[type, ...], WriteRow] = {}  # by the types of the values
        self._times = [n for n, each in enumerate(types) if each is FieldType.TIME]
        self._array_kinds: list[tuple[type, Any, int]] = []  # of the last arrays that were common

    def data(self, columns: Sequence[Any]) -> bytes | None:
        """The JSON object of equally long columns, as `json.data` writes it. None: not common."""
        if self._array_kinds and self._are_known_arrays(columns):
            return _write(columns, (), 0)
        nanos: list[list[int] | None] = []
        for values, (exact, low, high, _) in zip(columns, self._cases, strict=True):
            # Most packets have a single row: no function is called for its values here.
            if values.__class__ is not list or len(values) != 1:
                break
            value = values[0]
            kind = value.__class__
            if kind is not exact or (kind is int and not low <= value <= high):
                break
        else:
            return _write(columns, nanos, 0)
        found = self._read(columns, nanos)
        if found is None:
            return None
        lists = [values for values in columns if values.__class__ is list]
        if len(lists) == len(columns):
            return _write(found, nanos, None)
        body = _write(found, nanos, sum([values.count(None) for values in lists]))
        if body is not None and not lists:
            self._array_kinds = list(map(_get_array_kind, columns))
        return body

    def _are_known_arrays(self, columns: Sequence[Any]) -> bool:
        """Whether these are arrays like those that `_read` has found to be common, and their times
        are in the range. orjson refuses arrays that are not contiguous."""
        try:
            if [*map(_get_array_kind, columns)] != self._array_kinds:
                return False
        except AttributeError:  # not an array
            return False
        for index in self._times:  # for each packet: no all() here
            if not _are_times(columns[index]):
                return False
        return True

    def many(self, tables: Sequence[Sequence[Any]], *, single: bool = False) -> list[bytes] | None:
        """The same for many small tables that consist of numbers and have several columns.
        `single`: each has one row."""
        width = len(self._types)
        if not self._numbers_only or width < 2:
            return None
        if single:
            columns = [[table[n][0] for table in tables] for n in range(width)]
        else:
            columns = [list(chain.from_iterable(each)) for each in zip(*tables, strict=True)]
        if not all(map(_is_common, columns, self._cases)):
            return None
        try:
            body = orjson.dumps(tables)
        except TypeError:
            return None  # arrays
        if _N in body and b"null" in body:
            return None
        # One call writes all tables; the result is split between them: numbers have no brackets.
        lines = body[1:-1].replace(b"]],[[", b']]}\n{"values":[[')
        return b"".join((b'{"values":', lines, b"}")).split(b"\n")

    def row(self, values: tuple[Any, ...]) -> bytes | None:
        """The same for one row, the most frequent packet of a slow stream."""
        kinds = (*map(type, values),)
        write = self._row_functions.get(kinds) or self._find_row_function(kinds)
        return None if write is None else write(*values)

    def _find_row_function(self, kinds: tuple[type, ...]) -> WriteRow | None:
        """The function for a row with values of these types. None: one of them is not common."""
        present: list[type] = []
        for index, (kind, case, wanted) in enumerate(
            zip(kinds, self._cases, self._types, strict=True)
        ):
            is_null = kind is _NONE and index in self._nullable
            is_time = kind is datetime and wanted is FieldType.TIME
            is_text = kind is str and wanted is FieldType.STRING
            if kind is not case.exact and not (is_null or is_time or is_text):
                return None
            present.append(_PRESENT.get(wanted, _NONE) if is_null else kind)
        if len(self._row_functions) >= _MAX_FORMATS:
            self._row_functions.clear()
        # one function for all rows that miss values: where that is at random, hardly two are alike
        nullable = self._nullable if _NONE in kinds else frozenset()
        types = tuple([each or FieldType.FLOAT64 for each in self._types])  # of None if not known
        write = row_function(tuple(present), types, nullable)
        self._row_functions[kinds] = write
        return write

    def _read(self, columns: Sequence[Any], nanos: list[list[int] | None]) -> list[Any] | None:
        """The columns with times as milliseconds; adds the rest of each time to `nanos`."""
        converted: list[Any] = [*columns[: self._checked]]
        for index in range(self._checked, len(columns)):
            values: Any = columns[index]
            is_time = self._types[index] is FieldType.TIME
            if values.__class__ is not list:
                kind = array_kind(values)
                if not kind or kind != self._cases[index].array:
                    return None
                if is_time and not _are_times(values):
                    return None
                found = values
            elif not is_time:
                found = self._readers[index](values)
            elif index in self._nullable and only_type(values) is _NONE:
                found = values
            else:
                found, below = read_times(values)
                if below is not None:
                    nanos.extend([None] * (len(columns) - len(nanos)))
                    nanos[index] = below
            if found is None:
                return None
            converted.append(found)
        return converted


def _write(columns: Sequence[Any], nanos: Sequence[Any], nulls: int | None) -> bytes | None:
    """The JSON of columns with `nulls` times None. `nulls` is None if all numbers are finite."""
    try:
        body = orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return None  # a str that UTF-8 cannot encode
    # NaN and infinities are written as null, too: there are none if each null is one of a None.
    # Searching for an int is fastest.
    if nulls is not None and _N in body and body.count(b"null") != nulls:
        return None
    # A copy: orjson's result holds far more memory than its bytes need. Joining copies once, `%` up
    # to three times.
    if nanos:
        return b"".join((b'{"values":', body, b',"nanos":', orjson.dumps(nanos), b"}"))
    return b"".join((b'{"values":', body, b"}"))
