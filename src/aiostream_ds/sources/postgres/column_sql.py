"""How a column of each type is selected.

Every expression returns a type that asyncpg decodes without a question to the server, and only
values that a frame can hold: a time that it cannot hold, such as infinity, is NULL.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

__all__ = [
    "EARLIEST",
    "INTEGERS",
    "LATEST",
    "NUMBERS",
    "TIMES",
    "SelectedColumn",
    "SourceColumn",
    "literal",
    "quoted",
    "select_column",
    "time_bound",
    "time_expression",
]

EARLIEST, LATEST = "1677-09-22", "2262-04-11"
"""The days between which a frame can hold a time."""

_AS_THEY_ARE = frozenset({"bool", "int2", "int4", "int8", "float4", "float8"})

_SHORT = frozenset(
    {
        *("uuid", "inet", "cidr", "macaddr", "macaddr8", "money", "name", "char", "oid", "xid"),
        *("xid8", "time", "timetz", "point", "pg_lsn", "interval"),
    }
)
"""Types whose texts are short: their length is not checked."""

TIMES = frozenset({"timestamptz", "timestamp", "date"})

INTEGERS = frozenset({"int2", "int4", "int8"})

NUMBERS = INTEGERS | {"float4", "float8", "numeric", "interval"}

_JSON = frozenset({"json", "jsonb"})


class SourceColumn(NamedTuple):
    """A column of a table or SELECT: its name, and the name and kind of its type as asyncpg
    describes them; `int4[]` and `array`, for example. `sql_type` is the type in SQL."""

    name: str
    type: str
    kind: str
    sql_type: str


class SelectedColumn(NamedTuple):
    """A column of the rows.

    `expression` is SQL of the value; `is_limited`: of a text whose length is checked. `decode`
    makes the value of what asyncpg returns.
    """

    expression: str
    is_limited: bool
    decode: Callable[[Any], Any] | None


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def literal(text: str) -> str:
    """A string in SQL. Only for settings: viewers' values are parameters."""
    # E'' reads backslashes the same way whatever standard_conforming_strings is
    return "E'{}'".format(text.replace("\\", "\\\\").replace("'", "''"))


def time_expression(column: SourceColumn, zone: str) -> str:
    """A column of a type of `TIMES` as a timestamptz; without a zone it is a time of `zone`."""
    name = f"q.{quoted(column.name)}"
    if column.type == "timestamptz":
        moment = name
    elif column.type == "timestamp":
        moment = f"({name} AT TIME ZONE {literal(zone)})"
    else:
        moment = f"({name}::timestamp AT TIME ZONE {literal(zone)})"
    # compared before it is converted: AT TIME ZONE fails for times near infinity
    return f"CASE WHEN {name} >= '{EARLIEST}' AND {name} < '{LATEST}' THEN {moment} END"


def time_bound(column: SourceColumn, parameter: str, zone: str) -> str:
    """A parameter that is an aware time, as a value to compare the column with: an index of the
    column can be used."""
    moment = f"{parameter}::timestamptz"
    return moment if column.type == "timestamptz" else f"({moment} AT TIME ZONE {literal(zone)})"


def select_column(column: SourceColumn, zone: str) -> SelectedColumn:
    """How a column of any type is selected."""
    name = f"q.{quoted(column.name)}"
    if column.type in _AS_THEY_ARE:
        return SelectedColumn(name, False, None)
    if column.type == "numeric":
        return SelectedColumn(name, False, float)
    if column.type in TIMES:
        return SelectedColumn(time_expression(column, zone), False, None)
    if column.type == "interval":
        return SelectedColumn(f"extract(epoch FROM {name})::float8", False, None)
    if column.type == "bytea":
        return SelectedColumn(f"encode({name}, 'hex')", True, None)
    if column.type in _JSON:
        return SelectedColumn(f"{name}::text", True, _decode_json)
    if column.kind in ("array", "composite"):
        return SelectedColumn(f"to_jsonb({name})::text", True, _decode_json)
    return SelectedColumn(f"{name}::text", column.type not in _SHORT, None)


def _decode_json(text: str) -> Any:
    """JSON of the server; what Python cannot hold, such as a number of 400 digits, stays text."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
