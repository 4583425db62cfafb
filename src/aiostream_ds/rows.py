"""Rows that an author yields, and how rows of a log are identified: cursors, ranges and pages."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

import msgspec

from aiostream_ds._frames.column_values import to_native
from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.times import EPOCH
from aiostream_ds._short_repr import short_repr

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    ValueT = DefaultTypeVar("ValueT", default=int)
else:
    ValueT = TypeVar("ValueT")

__all__ = ["CURSOR_LIMIT", "Columns", "Cursor", "HistoryPage", "HistoryRange", "LogLine", "Row"]

CURSOR_LIMIT = 1 << 53
"""Cursors are 0 <= value < CURSOR_LIMIT: a browser represents larger integers inexactly."""


class Row(msgspec.Struct, gc=False):
    """A row whose schema is known before the first one is yielded.

        class Reading(Row):
            time: datetime
            celsius: Annotated[float, FieldConfig(unit="celsius")]
            note: str | None = None

    Field types: bool, int, float, str, datetime (aware), dict or list (as JSON), each also
    `| None`. Without a datetime field, a first column `time` is added, with the time at which the
    row is yielded.
    """

    @classmethod
    def from_columns(cls, /, **columns: Any) -> "Columns[Self]":
        """Many rows at once, each field as a list of its values, a one-dimensional numpy array, a
        pyarrow array, or a Series of pandas or polars.

            yield Reading.from_columns(time=times, celsius=temperatures, note=[None] * len(times))

        They become one packet, without an object for each row. Times are aware datetimes,
        datetime64 arrays or Unix milliseconds. Lists and columns of pandas are copied. Arrays are
        not: do not change them afterwards.

        Raises:
            TypeError: a field is missing or unknown, or is not a column of values.
            ValueError: the columns differ in length.
        """
        return _from_columns(cls, columns)


class LogLine(Row):
    """One line of a log, for Grafana's logs panel and the logs of Explore.

        class Line(LogLine):
            severity: str
            labels: dict[str, str]

        yield Line(datetime.now(UTC), "connection refused", "error", {"host": "a"})

    A field `severity` has one of Grafana's levels (critical, error, warning, info, debug, trace);
    without it, Grafana looks for the level in the line. A field `labels` identifies the origin of
    the line. A field `id`, a str, identifies the line: without it, the opened details of a line
    move to another one when lines leave the panel. Grafana shows other fields with each line. The
    names are those of Grafana's log-lines frames.
    """

    timestamp: datetime
    body: str


RowT = TypeVar("RowT", bound=Row)
AnyRowT = TypeVar("AnyRowT")


class Columns(msgspec.Struct, Generic[RowT], eq=False, gc=False):
    """Many rows of one class, by column. Create it with `Row.from_columns`."""

    kind: type[RowT]
    values: list[Any]
    rows: int

    def __repr__(self) -> str:
        return f"Columns({self.kind.__qualname__}, {self.rows} rows)"


_arrays: set[type] = set()
"""The classes of numpy's arrays, which are known when the first one is seen."""

_MISSING = object()


class _CompiledFromColumns(classmethod):  # type: ignore[type-arg]
    """`Row.from_columns` of one class, written for its fields: a stream of single rows as columns
    spends a third of its time here. The general one puts it in its place at the first call."""


def _from_columns(kind: type[RowT], columns: Mapping[str, Any]) -> Columns[RowT]:
    """See `Row.from_columns`."""
    own: list[Any] = []
    for name in kind.__struct_fields__:
        values = columns.get(name, _MISSING)
        if values is _MISSING:
            raise _other_names(kind, columns)
        if values.__class__ not in _arrays:
            values = _native_column(name, values)
        own.append(values)
    if len(columns) != len(own):
        raise _other_names(kind, columns)
    counts = [_length(*item) for item in zip(kind.__struct_fields__, own, strict=True)]
    if len(set(counts)) > 1:
        raise _other_lengths(kind, own)
    _compile_from_columns(kind)
    return Columns(kind, own, counts[0] if counts else 0)


def _length(name: str, values: Any) -> int:
    try:
        return len(values)
    except TypeError:  # an array without a dimension
        raise _not_a_column(name, values) from None


def _from_given(kind: type[RowT], columns: Mapping[str, Any]) -> Columns[RowT]:
    """What a compiled function does not handle: another class, or arguments that are wrong."""
    given = {name: values for name, values in columns.items() if values is not _MISSING}
    return _from_columns(kind, given)


def _compile_from_columns(kind: type[Row]) -> None:
    """Give a class a `from_columns` of its own, unless an author has written one."""
    found = next(
        vars(each)["from_columns"] for each in kind.__mro__ if "from_columns" in vars(each)
    )
    names = kind.__struct_fields__
    is_ours = isinstance(found, _CompiledFromColumns) or found is vars(Row)["from_columns"]
    if not is_ours or not names or not all(map(_can_be_a_parameter, names)):
        return
    space: dict[str, Any] = {
        "_row_arrays": _arrays,
        "_row_columns": Columns,
        "_row_error": TypeError,
        "_row_given": _from_given,
        "_row_kind": kind,
        "_row_len": len,
        "_row_list": list,
        "_row_missing": _MISSING,
        "_row_native": _native_column,
    }
    exec(_source_of_from_columns(names), space)
    function = space["from_columns"]
    function.__doc__ = Row.from_columns.__doc__
    setattr(kind, "from_columns", _CompiledFromColumns(function))  # noqa: B010


def _can_be_a_parameter(name: str) -> bool:
    """Whether a field can be a parameter of the compiled function. Fields of a class that
    `msgspec.defstruct` has made may have keywords as their names, as `from`, and names that are one
    in Python code: it takes their NFKC form."""
    is_reserved = name.startswith("_row_") or iskeyword(name) or name == "__debug__"
    return name.isascii() and not is_reserved


def _source_of_from_columns(names: Sequence[str]) -> str:
    """The Python code of a `from_columns` for these fields. Its own names begin with `_row_`."""
    given = f"_row_given(_row_class, {{{', '.join(f'{n!r}: {n}' for n in names)}, **_row_more}})"
    first, *others = names
    reads = [
        f"""
    if {name}.__class__ is _row_list:
        {name} = {name}.copy()
    elif {name}.__class__ not in _row_arrays:
        if {name} is _row_missing:
            return {given}
        {name} = _row_native({name!r}, {name})"""
        for name in names
    ]
    lengths = " and ".join(["True", *(f"_row_len({name}) == _row_count" for name in others)])
    return f"""
def from_columns(_row_class, /, *, {"=_row_missing, ".join(names)}=_row_missing, **_row_more):
    if _row_class is not _row_kind or _row_more:
        return {given}{"".join(reads)}
    try:
        _row_count = _row_len({first})
        if {lengths}:
            return _row_columns(_row_kind, [{", ".join(names)}], _row_count)
    except _row_error:
        pass
    return {given}
"""


def _native_column(name: str, values: Any) -> Any:
    """A list as a copy, a numpy array as it is, a column of another library as `to_native` returns
    it."""
    if isinstance(values, list):
        return values.copy()
    found = to_native(name, values)
    if isinstance(found, str | bytes | Mapping) or not hasattr(found, "__len__"):
        raise _not_a_column(name, values)
    if type(found).__module__ == "numpy":
        _arrays.add(type(found))
    return found


def _not_a_column(name: str, values: Any) -> TypeError:
    return TypeError(f"column {name!r} must be a list or an array, got {short_repr(values)}")


def _other_names(kind: type[Row], columns: Mapping[str, Any]) -> TypeError:
    return TypeError(
        f"{kind.__qualname__}.from_columns: expected the columns"
        f" {', '.join(kind.__struct_fields__)}, got {', '.join(columns) or 'none'}"
    )


def _other_lengths(kind: type[Row], columns: list[Any]) -> ValueError:
    lengths = dict(zip(kind.__struct_fields__, map(len, columns), strict=True))
    return ValueError(
        f"{kind.__qualname__}.from_columns: expected columns of one length, "
        f"got the lengths {lengths}"
    )


class Cursor(NamedTuple, Generic[ValueT]):
    """A position in a log of rows: after the row whose cursor column has this value.

    A stream with a cursor starts after one, and may yield one: the rows that follow come after it.
    With a new epoch it states that the numbering restarts (a file was replaced, a table emptied);
    with the same epoch and a greater value, that rows were left out.

    The value of a stream with `cursor=("ms", "seq")` is a tuple of two integers. Its method is
    annotated with `Cursor[tuple[int, int]]`, and its hooks with `HistoryRange[tuple[int, int]]`.
    With `cursor="id"` and `Cursor[str]` it is a text of two numbers, as "1700000000000-3".
    """

    epoch: str
    """The name of the numbering; the same string on every Grafana server."""
    value: ValueT
    """The value of the cursor column; -1 is before the first row, (-1, -1) for two columns, "" for
    a text."""


class HistoryRange(msgspec.Struct, Generic[ValueT], frozen=True, kw_only=True):
    """The rows that a `history` hook returns: those of a time range, or those after a cursor.

    Without `after`: the rows with start <= time <= end. If there are more than `limit`, the newest
    `limit` rows. The runtime then asks for the rows before them, until it has those of the whole
    range, and thins them to `points` rows. A hook that can thin rows itself, as an aggregation in a
    database does, returns at most `points` rows of the whole range, one for each `interval`.

    With `after`, which only a stream with a cursor receives: the rows with cursor > `after`, and
    <= `upto` unless it is None, whatever their time. If there are more than `limit`, the oldest
    `limit` rows.

    The rows are always returned oldest first.
    """

    start: datetime
    """Aware, in UTC; 1970 when rows after a cursor, or the newest row, are asked for."""
    end: datetime
    """Aware, in UTC; a day from now when there is no later bound."""
    limit: int
    """The maximum number of rows to return."""
    after: ValueT | None = None
    upto: ValueT | None = None
    points: int = 0
    """How many rows the panel draws; 0 becomes `limit`. It equals `limit` if rows are not thinned:
    for alert rules, after a cursor, and in a stream with `thin=False`."""
    interval: timedelta = timedelta()
    """The panel's range divided by `points`, at least a millisecond; 0 becomes that of start to
    end."""

    def __post_init__(self) -> None:
        if not self.points:
            msgspec.structs.force_setattr(self, "points", self.limit)
        if not self.interval:
            interval = max((self.end - self.start) / max(self.points, 1), _MILLISECOND)
            msgspec.structs.force_setattr(self, "interval", interval)

    def select(
        self,
        rows: Sequence[AnyRowT],
        cursor: str | tuple[str, str] | None = None,
        *,
        time: str = "time",
    ) -> list[AnyRowT]:
        """The rows of this range, of rows that are in memory, oldest first:

            return history_range.select(self.log, cursor="step")

        Rows are dicts, records or objects. They may be appended to `rows` meanwhile, also by a
        thread.

        Args:
            rows: all rows, oldest first; those of a stream with a cursor are ordered by it.
            cursor: the column or columns of the cursor, as in `@stream`.
            time: the column of the times: aware datetimes, or Unix milliseconds.

        Raises:
            TypeError: the range is one after a cursor, and `cursor` is missing; or a row does not
                have the column.
        """
        rows = rows if isinstance(rows, list) else list(rows)
        if self.after is None:
            newest_first = filter(self._has_time(time), reversed(rows))
            return list(islice(newest_first, self.limit))[::-1]
        if cursor is None:
            raise TypeError("expected the column of the cursor for a range after one, got None")
        count, key = len(rows), partial(_cursor_of, cursor)
        first = bisect_right(rows, _comparable(self.after), hi=count, key=key)
        if self.upto is not None:
            count = bisect_right(rows, _comparable(self.upto), lo=first, hi=count, key=key)
        return rows[first : min(count, first + self.limit)]

    def _has_time(self, column: str) -> Callable[[Any], bool]:
        """Whether the time of a row is in the range."""
        start, end = self.start, self.end
        low, high = (start - EPOCH) / _MILLISECOND, (end - EPOCH) / _MILLISECOND

        def has_time(row: Any) -> bool:
            value = _value(row, column, "; name the column of its time with time=…")
            if isinstance(value, datetime):
                return start <= value <= end
            return bool(low <= value <= high)

        return has_time


_MILLISECOND = timedelta(milliseconds=1)


def _value(row: Any, column: str, hint: str = "") -> Any:
    kind = type(row)
    # asyncpg.Record and sqlite3.Row have keys, and are not mappings
    by_key = hasattr(kind, "keys") and hasattr(kind, "__getitem__")
    try:
        return row[column] if by_key else getattr(row, column)
    except (LookupError, AttributeError):
        raise TypeError(
            f"a row must have the column {column!r}, got {short_repr(row)}{hint}"
        ) from None


def _cursor_of(columns: str | tuple[str, str], row: Any) -> Any:
    if isinstance(columns, str):
        return _comparable(_value(row, columns))
    return tuple(_value(row, column) for column in columns)


def _comparable(cursor: Any) -> Any:
    """A text of two numbers as the numbers; "" is before all of them."""
    if not isinstance(cursor, str):
        return cursor
    return tuple(map(int, cursor.split("-"))) if cursor else (-1, -1)


class HistoryPage(msgspec.Struct, Generic[ValueT], frozen=True):
    """The result of a `history` hook that states more than its rows.

    `epoch`, `truncated` and `last` are for streams with a cursor.
    """

    rows: Any
    """Rows of one kind (a list of them, `Columns`, a `Frame`, or a `Table`), oldest first."""
    epoch: str = ""
    """The name of the numbering, as in `Cursor`."""
    truncated: bool = False
    """Whether rows after `HistoryRange.after` existed and can no longer be read."""
    last: ValueT | None = None
    """The cursor up to which this page is complete, if it is beyond the last row's."""
    notices: tuple[Notice, ...] = ()
    """Messages for the corner of the panel, as about rows that could not be read."""
    first: ValueT | None = None
    """The cursor of the oldest row that can still be read, of a log that forgets rows: a page that
    begins after `HistoryRange.after` is then known to be truncated. None: no row is forgotten."""
    total: int | None = None
    """The number of rows in the range, if the hook has thinned them to these; panels show it."""
