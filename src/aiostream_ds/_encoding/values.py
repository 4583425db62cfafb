"""Values of dicts: what they are in plain Python, and how a column's type widens to take them in.

What a `conflict` policy does with a value that does not fit is here, too; which columns there are
is decided in rows.py. Imports `frames` and the policy.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from aiostream_ds._channels.policy import Conflict
from aiostream_ds._encoding.row_layout import NUMBERS, TIME, TYPES
from aiostream_ds._frames.frame import Field, FieldType, check_data

__all__ = ["ODD", "is_sound", "plain", "text", "widen"]

ODD = (TypeError, ValueError, OverflowError, RecursionError)  # raised about what is no value


def widen(
    name: str, known: FieldType | None, values: list[Any], conflict: Conflict
) -> tuple[FieldType | None, list[Any], int]:
    """The column's type once these values are in it, the values, and how many did not fit.

    `conflict` says what becomes of a value that does not fit: under "null" it is left out and
    counted, under "text" the column becomes one of texts, under "fail" it is a TypeError that
    names column and value. Under "text" a column of times stays one, and what no column can hold
    is left out, too.
    """
    found = set(map(type, values))
    found.discard(type(None))
    lost = 0
    if not found <= TYPES.keys():
        if conflict == "fail":
            values = [plain(name, value) for value in values]
        else:
            values, lost = _plain_values(name, values)
        found = set(map(type, values)) - {type(None)}
    kinds = {_kind(name, each) for each in found}
    if known is not None:
        kinds.add(known)
    if kinds <= NUMBERS and len(kinds) > 1:
        kind: FieldType | None = FieldType.FLOAT64
    elif len(kinds) <= 1:
        kind = kinds.pop() if kinds else None
    elif conflict == "fail":
        raise _odd_value(name, known, values)
    elif conflict == "text" and known is not FieldType.TIME:
        kind, values, more = _texts(values)
        lost += more
    else:
        kind, values, more = _fitting(name, known, values)
        lost += more
    if conflict != "fail" and kind is not None and not is_sound(values, kind):
        values, more = _only(values, lambda value: is_sound([value], kind))
        lost += more
    return kind, values, lost


def is_sound(values: list[Any], kind: FieldType) -> bool:
    """Whether a column of this type can hold these values: range, time zone, UTF-8 and so on."""
    try:
        check_data([Field("", values, kind, nullable=True)])
    except ODD:
        return False
    return True


def _kind(name: str, found: type) -> FieldType:
    """Only in the column `time` an int is a time."""
    return FieldType.TIME if name == TIME and found is int else TYPES[found]


def _odd_value(name: str, known: FieldType | None, values: list[Any]) -> TypeError:
    present = [value for value in values if value is not None]
    first = known or _kind(name, type(present[0]))
    allowed = NUMBERS if first in NUMBERS else {first}
    kinds = {_kind(name, type(value)) for value in present} | {first}
    odd = next(value for value in present if _kind(name, type(value)) not in allowed)
    expected = " or ".join(sorted(kind.value for kind in allowed & kinds))
    return TypeError(f"the column {name!r} holds {expected}, not {odd!r} ({type(odd).__name__})")


def _fitting(
    name: str, known: FieldType | None, values: list[Any]
) -> tuple[FieldType, list[Any], int]:
    """The values that fit the column's type, or that of the first one; the others are left out."""
    first = known or _kind(name, next(type(value) for value in values if value is not None))
    allowed = NUMBERS if first in NUMBERS else {first}
    values, lost = _only(values, lambda value: _kind(name, type(value)) in allowed)
    if first is FieldType.INT64 and any(type(value) is float for value in values):
        first = FieldType.FLOAT64
    return first, values, lost


def _only(values: list[Any], fits: Callable[[Any], bool]) -> tuple[list[Any], int]:
    kept = [value if value is None or fits(value) else None for value in values]
    return kept, kept.count(None) - values.count(None)


def _plain_values(name: str, values: list[Any]) -> tuple[list[Any], int]:
    """All in plain Python; what no column can hold is left out."""
    found, lost = [], 0
    for value in values:
        try:
            found.append(plain(name, value))
        except ODD:
            found.append(None)
            lost += 1
    return found, lost


def _texts(values: list[Any]) -> tuple[FieldType, list[Any], int]:
    found: list[Any] = []
    lost = 0
    for value in values:
        try:
            found.append(None if value is None else text(value))
        except ODD:
            found.append(None)
            lost += 1
    return FieldType.STRING, found, lost


def text(value: Any) -> str:
    """A plain value as text: JSON, but a datetime as in ISO 8601 and a str as it is.

    Raises TypeError or ValueError for what JSON cannot hold.
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


def plain(name: str, value: Any) -> Any:
    """A value of a subclass or of numpy as what it stands for; TypeError for what is no value."""
    if value is None or type(value) in TYPES:
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "item"):
        # datetime64 is told from its count of units by nobody who reads the bare number
        if getattr(value, "shape", ()) == () and dtype.kind not in "mMO":
            value = value.item()
    for kind, make in _PLAIN.items():
        if isinstance(value, kind):
            return make(value)
    raise TypeError(
        f"the column {name!r} cannot hold {value!r} ({type(value).__name__}); "
        "allowed: bool, int, float, str, datetime, dict, list, None"
    )


def _datetime(value: datetime) -> datetime | None:
    if value != value:
        return None  # the "not a time" of pandas
    return datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second,
        value.microsecond, value.tzinfo, fold=value.fold,
    )  # fmt: skip


# The base classes' own methods: an Enum that is a str or an int has another __str__.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    datetime: _datetime,
    Mapping: dict,
    list: list,
    tuple: list,
}
