"""The tables that the role may read, as settings to begin with."""

from typing import Any

from aiostream_ds.sources.postgres.column_sql import INTEGERS, TIMES
from aiostream_ds.sources.postgres.database import Database

__all__ = ["TABLES_LIMIT", "find_tables"]

TABLES_LIMIT = 200
"""Most tables that Save & test lists."""

_TABLES = """
SELECT
    format('%I.%I', n.nspname, c.relname),
    array(
        SELECT ARRAY[
            a.attname::text, t.typname::text, coalesce(pg_get_expr(d.adbin, d.adrelid), '')
        ]
        FROM pg_attribute AS a
        JOIN pg_type AS t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND has_column_privilege(c.oid, a.attnum, 'SELECT')
        ORDER BY a.attnum
    ),
    array(
        SELECT a.attname::text FROM pg_index AS i
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum
    )
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
    AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
ORDER BY 1 LIMIT $1
"""


async def find_tables(database: Database) -> dict[str, dict[str, Any]]:
    """Settings of `tables` for the tables that can be streams, by their names in SQL; {} of those
    without an integer key or a time.

    Raises:
        PluginError: the server cannot be read.
    """
    found = {}
    for name, columns, primary in await database.fetch(_TABLES, TABLES_LIMIT):
        found[name] = _settings(name, columns, primary)
    return found


def _settings(name: str, columns: list[list[str]], primary: list[str]) -> dict[str, Any]:
    types = {column: kind for column, kind, _ in columns}
    times = [column for column, kind in types.items() if kind in TIMES]
    integers = [column for column in primary if types.get(column) in INTEGERS]
    if not times or len(primary) > 2 or not primary:
        return {}
    keys = [column for column in primary if types.get(column) in INTEGERS | TIMES]
    if len(keys) != len(primary) or not integers:
        return {}
    settings: dict[str, Any] = {"table": name, "key": sorted(keys, key=lambda k: k in integers)}
    transactions = [column for column, _, default in columns if "pg_current_xact_id" in default]
    if transactions and len(keys) == 1:
        settings["transaction"] = transactions[0]
    if len(times) > 1 and "time" not in times:
        settings["time"] = times[0]
    return settings
