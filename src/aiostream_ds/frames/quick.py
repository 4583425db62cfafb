"""The quick way for usual columns: every value of exactly the column's type, none missing.

It only ever says yes or nothing: what it does not know takes the careful way of columns.py and
json.py, which also finds the words for what is wrong. Imports the standard library and orjson.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from aiostream_ds.frames.columns import RANGES, FieldType
from aiostream_ds.frames.times import read_datetimes

__all__ = ["data", "is_sound"]

_EXACT: Mapping[FieldType, set[type]] = {
    FieldType.FLOAT64: {float},
    FieldType.INT64: {int},
    FieldType.TIME: {int},
    FieldType.BOOL: {bool},
}
_DATETIMES, _TEXTS = {datetime}, {str}


def is_sound(values: Any, wanted: FieldType) -> bool:
    """Whether these are, as they stand, values of the type without a None: the quick yes to what
    reading and checking would find. False says nothing."""
    if values.__class__ is not list or set(map(type, values)) != _EXACT.get(wanted):
        return False
    if wanted is FieldType.TIME or wanted is FieldType.INT64:
        low, high = RANGES[wanted]
        return bool(low <= min(values) and max(values) <= high)
    return True


def data(columns: Sequence[list[Any]], types: Sequence[FieldType]) -> bytes | None:
    """The JSON object of the values, as `json.data` has it; None when some column is not usual."""
    plain: list[list[Any]] = []
    nanos: list[list[int] | None] = []
    for values, wanted in zip(columns, types, strict=True):
        if is_sound(values, wanted):
            plain.append(values)
            continue
        found = set(map(type, values))
        if found == _TEXTS and wanted is FieldType.STRING:
            plain.append(values)
        elif found == _DATETIMES and wanted is FieldType.TIME:
            read = read_datetimes(values)
            if read is None:
                return None
            if read[1] is not None:
                nanos = nanos or [None] * len(columns)
                nanos[len(plain)] = read[1]
            plain.append(read[0])
        else:
            return None
    try:
        body = orjson.dumps(plain)
    except TypeError:
        return None  # text that is no UTF-8
    if b"n" in body and b"null" in body:
        return None  # NaN and infinities are written as null
    # A result of orjson holds far more memory than its bytes need until it is copied, as here.
    if nanos:
        return b'{"values":%b,"nanos":%b}' % (body, orjson.dumps(nanos))
    return b'{"values":%b}' % body
