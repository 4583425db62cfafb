"""The key of a table as the cursor of its rows: two integers from 0 to 2⁵³ - 1.

    columns                   cursor
    transaction and key       (transaction, key)
    two keys                  (first, second)
    one key, any bigint       the upper and the lower 32 bits of key + 2⁶³

A time is the number of microseconds since 1970.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from aiostream_ds.errors import UpstreamError
from aiostream_ds.rows import CURSOR_LIMIT
from aiostream_ds.sources.postgres.column_sql import INTEGERS, LATEST, SourceColumn, quoted

__all__ = ["KEY_TYPES", "TRANSACTION_TYPES", "Key", "Pair"]

Pair = tuple[int, int]

TRANSACTION_TYPES = ("int8", "xid8")

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1)
_FIRST, _LAST = (
    (moment - _EPOCH) // _MICROSECOND for moment in (datetime(1, 1, 2), datetime(9999, 12, 30))
)
_HALF = 1 << 63
_MASK = (1 << 32) - 1


class _KeyType(NamedTuple):
    """How the values of a column become integers that increase with them, and back.

    `sql` is the type of parameters; all values are below `limit`, SQL, if it is not empty.
    """

    sql: str
    to_int: Callable[[Any], int]
    from_int: Callable[[int], Any]
    limit: str = ""


def _identity(value: int) -> int:
    return value


def _bigint(value: int) -> int:
    return max(-_HALF, min(value, _HALF - 1))


def _from_datetime(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND


def _to_naive(value: int) -> datetime:
    return _EPOCH + max(_FIRST, min(value, _LAST)) * _MICROSECOND


def _to_aware(value: int) -> datetime:
    return _to_naive(value).replace(tzinfo=UTC)


def _from_date(day: date) -> int:
    return _from_datetime(datetime(day.year, day.month, day.day))


def _to_date(value: int) -> date:
    return _to_naive(value).date()


_END = f"'{LATEST}'"  # infinity would be the last key for ever

KEY_TYPES: dict[str, _KeyType] = {
    **{name: _KeyType("int8", _identity, _bigint) for name in sorted(INTEGERS)},
    "xid8": _KeyType("xid8", _identity, _identity),
    "timestamptz": _KeyType("timestamptz", _from_datetime, _to_aware, _END),
    "timestamp": _KeyType("timestamp", _from_datetime, _to_naive, _END),
    "date": _KeyType("date", _from_date, _to_date, _END),
}


class Key:
    """The key columns of a table, with the transaction's first, if there is one."""

    def __init__(self, columns: Sequence[SourceColumn]) -> None:
        self.columns = tuple(columns)
        self._types = [KEY_TYPES[column.type] for column in columns]
        names = [f"q.{quoted(column.name)}" for column in columns]
        self.expressions = names
        self.tuple = names[0] if len(names) == 1 else f"({', '.join(names)})"
        self.limits = [
            f"{name} < {kind.limit}"
            for name, kind in zip(names, self._types, strict=True)
            if kind.limit
        ]

    @property
    def count(self) -> int:
        return len(self.columns)

    def order(self, descending: bool = False) -> str:
        """The columns as in ORDER BY."""
        suffix = " DESC" if descending else ""
        return ", ".join(f"{name}{suffix}" for name in self.expressions)

    def parameters(self, first: int) -> str:
        """The parameters from $`first` on, as a value to compare with `tuple`."""
        found = [f"${first + n}::{kind.sql}" for n, kind in enumerate(self._types)]
        return found[0] if len(found) == 1 else f"({', '.join(found)})"

    def cursor(self, values: Sequence[Any]) -> Pair:
        """The cursor of a row with these keys.

        Raises:
            UpstreamError: one of two keys is out of range.
        """
        if len(self._types) == 1:
            shifted = self._types[0].to_int(values[0]) + _HALF
            return shifted >> 32, shifted & _MASK
        first, second = self._types
        pair = first.to_int(values[0]), second.to_int(values[1])
        if not (0 <= pair[0] < CURSOR_LIMIT and 0 <= pair[1] < CURSOR_LIMIT):
            self._raise_range(pair)
        return pair

    def arguments(self, cursor: Pair) -> list[Any]:
        """The values of the parameters for a cursor, also for one that no row has."""
        if len(self._types) == 1:
            return [self._types[0].from_int((cursor[0] << 32) + cursor[1] - _HALF)]
        return [kind.from_int(n) for kind, n in zip(self._types, cursor, strict=True)]

    def _raise_range(self, pair: Pair) -> None:
        for column, value in zip(self.columns, pair, strict=True):
            if not 0 <= value < CURSOR_LIMIT:
                raise UpstreamError(
                    f"the key column {column.name!r} must have values from 0 to"
                    f" {CURSOR_LIMIT - 1}, got {value}; a single key may have any value"
                )
