"""What a stream yields, read or copied at the `yield`: the object is then the author's again.

Rows that can change and lists are copied, tables of other libraries are read. `Columns` have copies
already. A `Frame` and arrays are not copied, and neither is what a value contains.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aiostream_ds._encoding.row_kinds import opener, row_kind
from aiostream_ds._encoding.table_rows import is_table, live_rows

__all__ = ["copy_rows", "reader"]


def _find_reader(kind: type) -> Callable[[Any], Any] | None:
    if is_table(kind):
        return live_rows
    open_rows = opener(kind)
    if open_rows is not None:
        return copy_rows if issubclass(kind, list) else lambda rows: copy_rows(open_rows(rows))
    found = row_kind(kind)
    return None if found is None else found.copy


reader: Callable[[Any], Callable[[Any], Any] | None] = lru_cache(maxsize=1024)(_find_reader)
"""The function that reads an object of a class that a stream has yielded. None: it cannot change,
or it is read as it is when it is encoded."""


def copy_rows(rows: Any) -> list[Any]:
    """A list of the same rows, each a copy, and the frames of tables that have rows."""
    if len(rows) == 1:
        copy = reader(type(rows[0]))
        if copy is not live_rows:
            return [rows[0] if copy is None else copy(rows[0])]
    kinds = set(map(type, rows))
    if len(kinds) == 1:
        copy = reader(kinds.pop())
        found = list(rows) if copy is None else list(map(copy, rows))
        return list(filter(None, found)) if copy is live_rows else found
    found = []
    for row in rows:
        copy = reader(type(row))
        if copy is not live_rows:
            found.append(row if copy is None else copy(row))
        elif frame := live_rows(row):
            found.append(frame)
    return found
