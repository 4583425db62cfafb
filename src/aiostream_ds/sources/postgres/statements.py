"""The SQL of one table, and its records as rows.

Identifiers come from the settings and the server's catalog; what a viewer sends is a parameter.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

from aiostream_ds.errors import BadQuery
from aiostream_ds.sources.postgres.column_sql import (
    NUMBERS,
    TIMES,
    SourceColumn,
    quoted,
    select_column,
    time_bound,
    time_expression,
)
from aiostream_ds.sources.postgres.keys import KEY_TYPES, TRANSACTION_TYPES, Key, Pair
from aiostream_ds.sources.postgres.postgres_settings import TableSettings
from aiostream_ds.sources.postgres.table_error import TableError

__all__ = ["CURSOR_COLUMNS", "RowsRead", "Statement", "TableStatements"]

CURSOR_COLUMNS = ("cursor_1", "cursor_2")
"""The columns of rows that hold the cursor."""

_XMIN = "pg_snapshot_xmin(pg_current_snapshot())"
_XMAX = "pg_snapshot_xmax(pg_current_snapshot())"


class Statement(NamedTuple):
    """SQL with the values of its parameters."""

    sql: str
    arguments: list[Any]


class RowsRead(NamedTuple):
    """Rows of records; `last` is the cursor of the last record.

    `no_time` rows are left out because their time is NULL or cannot be drawn, `too_long` values
    because of the setting `max_value`.
    """

    rows: list[dict[str, Any]]
    last: Pair | None
    no_time: int
    too_long: int


class TableStatements:
    """The statements of a table, view or SELECT.

    Args:
        name: of the stream, for messages.
        source: what stands after FROM.
        columns: those of the source.
        table: the stream's settings.
        zone: the zone of times without one.
        max_value: the setting.

    Raises:
        TableError: the settings name a column that does not exist, or of a wrong type.
    """

    def __init__(
        self,
        name: str,
        source: str,
        columns: Sequence[SourceColumn],
        table: TableSettings,
        zone: str,
        max_value: int,
    ) -> None:
        self._name = name
        self._from = f"FROM {source} AS q"
        self._columns = {column.name: column for column in columns}
        self._zone = zone
        self.columns = tuple(columns)
        self.key, self.has_transaction = self._make_key(table)
        self.time = self._time_column(table.time)
        self._filters = {each: self._column("filters", each) for each in table.filters}
        self._values = self._value_columns(table)
        self.has_numbers = any(column.type in NUMBERS for column in self._values)
        selected = [select_column(column, zone) for column in self._values]
        first = self.key.count + 1
        self._limited = [first + n for n, each in enumerate(selected) if each.is_limited]
        self._decoders = [
            (first + n, each.decode) for n, each in enumerate(selected) if each.decode is not None
        ]
        expressions = [
            f"CASE WHEN octet_length({each.expression}) <= {max_value} THEN {each.expression} END"
            if each.is_limited
            else each.expression
            for each in selected
        ]
        flags = [f"q.{quoted(self._values[n - first].name)} IS NOT NULL" for n in self._limited]
        times = [time_expression(self.time, zone)]
        self._select = ", ".join([*self.key.expressions, *times, *expressions, *flags])
        self._end = first + len(selected)
        self._names = ("time", *_own_names([column.name for column in self._values]))

    # -- settings ------------------------------------------------------------------------------

    def _error(self, text: str) -> TableError:
        return TableError(f"tables.{self._name}.{text}")

    def _column(self, setting: str, name: str) -> SourceColumn:
        found = self._columns.get(name)
        if found is None:
            names = ", ".join(self._columns)
            raise self._error(f"{setting}: expected a column ({names}), got {name!r}")
        return found

    def _make_key(self, table: TableSettings) -> tuple[Key, bool]:
        columns = [self._column("key", name) for name in table.key]
        for column in columns:
            if column.type not in KEY_TYPES:
                kinds = ", ".join(KEY_TYPES)
                raise self._error(
                    f"key: expected a column of type {kinds}; {column.name!r} is {column.type}"
                )
        if len(set(columns)) < len(columns):
            raise self._error(f"key: expected two different columns, got {', '.join(table.key)}")
        if not table.transaction:
            return Key(columns), False
        if len(columns) != 1:
            raise self._error(
                f"key: expected one column with transaction, got {', '.join(table.key)}"
            )
        transaction = self._column("transaction", table.transaction)
        if transaction.type not in TRANSACTION_TYPES:
            kinds = " or ".join(TRANSACTION_TYPES)
            raise self._error(
                f"transaction: expected a column of type {kinds};"
                f" {transaction.name!r} is {transaction.type}"
            )
        if transaction == columns[0]:
            raise self._error(f"key: expected another column than transaction, got {table.key[0]}")
        return Key([transaction, *columns]), True

    def _time_column(self, name: str) -> SourceColumn:
        found = [column for column in self._columns.values() if column.type in TIMES]
        kinds = ", ".join(sorted(TIMES))
        if name:
            column = self._column("time", name)
            if column.type not in TIMES:
                raise self._error(
                    f"time: expected a column of type {kinds}; {name!r} is {column.type}"
                )
            return column
        for column in found:
            if column.name == "time":
                return column
        if len(found) != 1:
            names = ", ".join(column.name for column in found) or "none"
            raise self._error(f"time: expected the name of a column of type {kinds}; got {names}")
        return found[0]

    def _value_columns(self, table: TableSettings) -> list[SourceColumn]:
        if table.columns:
            chosen = [self._column("columns", name) for name in table.columns]
            chosen += [each for each in self._filters.values() if each not in chosen]
            return [column for column in chosen if column != self.time]
        hidden = [column for column in self.key.columns if column.name not in self._filters]
        return [
            column
            for column in self._columns.values()
            if column != self.time and column not in hidden
        ]

    # -- statements ----------------------------------------------------------------------------

    def after(
        self, after: Pair | None, upto: Pair | None, limit: int, filters: Mapping[str, str]
    ) -> Statement:
        """The rows with after < cursor <= upto, the oldest first."""
        arguments: list[Any] = []
        conditions = [*self._bound(), *self._conditions(filters, arguments)]
        for operator, cursor in ((">", after), ("<=", upto)):
            if cursor is not None:
                parameters = self.key.parameters(len(arguments) + 1)
                conditions.append(f"{self.key.tuple} {operator} {parameters}")
                arguments += self.key.arguments(cursor)
        arguments.append(limit)
        return Statement(
            f"SELECT {self._select} {self._from}{_where(conditions)}"
            f" ORDER BY {self.key.order()} LIMIT ${len(arguments)}",
            arguments,
        )

    def between(
        self, start: datetime, end: datetime, limit: int, filters: Mapping[str, str]
    ) -> Statement:
        """The newest rows of a time range, the newest first."""
        arguments: list[Any] = [start, end]
        conditions = [*self._bound(), *self._range("$1", "$2")]
        conditions += self._conditions(filters, arguments)
        arguments.append(limit)
        order = f"{self._time} DESC, {self.key.order(descending=True)}"
        return Statement(
            f"SELECT {self._select} {self._from}{_where(conditions)}"
            f" ORDER BY {order} LIMIT ${len(arguments)}",
            arguments,
        )

    def count(self, start: datetime, end: datetime, filters: Mapping[str, str]) -> Statement:
        """The plan of a query for the rows of a time range, as JSON: the server estimates their
        number."""
        arguments: list[Any] = [start, end]
        conditions = [*self._range("$1", "$2"), *self._conditions(filters, arguments)]
        return Statement(
            f"EXPLAIN (FORMAT JSON) SELECT 1 {self._from}{_where(conditions)}", arguments
        )

    def sampled(
        self, start: datetime, end: datetime, step: timedelta, filters: Mapping[str, str]
    ) -> Statement:
        """The newest row of each step of a time range; it reads about as many rows, if an index
        begins with the time."""
        arguments: list[Any] = [start, end, step]
        conditions = [*self._bound(), *self._range("b.at", "$2")]
        conditions.append(f"{self._time} < {self._moment('(b.at + $3::interval)')}")
        conditions += self._conditions(filters, arguments)
        columns = ", ".join(f"q.{quoted(column.name)}" for column in self.columns)
        return Statement(
            f"SELECT {self._select}"
            f" FROM generate_series($1::timestamptz, $2::timestamptz, $3::interval) AS b (at)"
            f" CROSS JOIN LATERAL (SELECT {columns} {self._from}{_where(conditions)}"
            f" ORDER BY {self._time} DESC, {self.key.order(descending=True)} LIMIT 1) AS q",
            arguments,
        )

    def newest(self) -> Statement:
        """The key of the newest row of all, whatever the filters."""
        keys = ", ".join(self.key.expressions)
        return Statement(
            f"SELECT {keys} {self._from}{_where(self._bound())}"
            f" ORDER BY {self.key.order(descending=True)} LIMIT 1",
            [],
        )

    def has_rows_until(self, cursor: Pair) -> Statement:
        """Whether there is a row with this cursor or a smaller one."""
        parameters = self.key.parameters(1)
        return Statement(
            f"SELECT EXISTS (SELECT 1 {self._from} WHERE {self.key.tuple} <= {parameters})",
            self.key.arguments(cursor),
        )

    def waiting(self) -> Statement:
        """The oldest open transaction; whether rows wait for it, and whether there are rows of
        transactions that the server has not begun. Only with a transaction column."""
        column = self.key.expressions[0]
        xmin, xmax = self._transaction(_XMIN), self._transaction(_XMAX)
        return Statement(
            f"SELECT {_XMIN}::text::int8,"
            f" EXISTS (SELECT 1 {self._from} WHERE {column} >= {xmin} AND {column} < {xmax}),"
            f" EXISTS (SELECT 1 {self._from} WHERE {column} >= {xmax})",
            [],
        )

    def examples(self, column: str, rows: int) -> Statement:
        """The values of a filter in the newest rows."""
        name = f"q.{quoted(column)}"
        return Statement(
            f"SELECT DISTINCT value FROM (SELECT {name}::text AS value {self._from}"
            f" ORDER BY {self.key.order(descending=True)} LIMIT $1) AS newest"
            f" WHERE value IS NOT NULL ORDER BY value LIMIT 500",
            [rows],
        )

    @property
    def _time(self) -> str:
        return f"q.{quoted(self.time.name)}"

    def _moment(self, parameter: str) -> str:
        return time_bound(self.time, parameter, self._zone)

    def _range(self, start: str, end: str) -> list[str]:
        return [f"{self._time} >= {self._moment(start)}", f"{self._time} <= {self._moment(end)}"]

    def _transaction(self, xid: str) -> str:
        return xid if self.key.columns[0].type == "xid8" else f"{xid}::text::int8"

    def _bound(self) -> list[str]:
        """Rows of transactions that may still be open come later: else one that commits late is
        missed."""
        if not self.has_transaction:
            return self.key.limits
        return [f"{self.key.expressions[0]} < {self._transaction(_XMIN)}", *self.key.limits]

    def _conditions(self, filters: Mapping[str, str], arguments: list[Any]) -> list[str]:
        found = []
        for name, value in filters.items():
            column = self._filters.get(name)
            if column is None:
                allowed = ", ".join(self._filters) or "none"
                raise BadQuery(f"filter: expected a column ({allowed}), got {name!r}")
            arguments.append(value)
            found.append(f"q.{quoted(name)} = ${len(arguments)}::text::{column.sql_type}")
        return found

    # -- rows ----------------------------------------------------------------------------------

    def rows(self, records: Sequence[Sequence[Any]]) -> RowsRead:
        """The rows of records, in their order."""
        keys, end = self.key.count, self._end
        cursor, names = self.key.cursor, self._names
        limited, decoders = self._limited, self._decoders
        rows, no_time, too_long = [], 0, 0
        pair: Pair | None = None
        for record in records:
            values = list(record)
            pair = cursor(values)
            if values[keys] is None:
                no_time += 1
                continue
            for index, flag in zip(limited, count(end)):
                too_long += values[index] is None and values[flag]
            for index, decode in decoders:
                if values[index] is not None:
                    values[index] = decode(values[index])
            row = dict(zip(names, values[keys:end], strict=True))
            row["cursor_1"], row["cursor_2"] = pair
            rows.append(row)
        return RowsRead(rows, pair, no_time, too_long)


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _own_names(names: Sequence[str]) -> list[str]:
    """Names of columns that are not those of the time and the cursor, or of another column."""
    taken = {"time", *CURSOR_COLUMNS}
    found = []
    for name in names:
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(name)
    return found
