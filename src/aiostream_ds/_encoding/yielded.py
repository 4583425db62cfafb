"""What a stream yields, read or copied at the `yield`: the object is then the author's again.

Rows that can change and lists are copied, tables of other libraries are read. `Columns` have copies
already. A `Frame` and arrays are not copied, and neither is what a value contains. A row that the
author cannot reach any more, such as that of `yield Reading(…)`, needs no copy.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aiostream_ds._encoding.row_kinds import copy_struct, opener, row_kind
from aiostream_ds._encoding.table_rows import is_table, live_rows
from aiostream_ds._frames.common_columns import only_type

__all__ = ["copy_rows", "reader", "references_without_copy"]

_ONE_REFERENCE = 1 if sys.version_info >= (3, 14) else 2
"""What `sys.getrefcount` returns for an object that only the variable of its caller refers to. Its
own argument counts as well; Python 3.14 borrows that, where it can, from the variable."""


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


def references_without_copy(kind: type, read: Callable[[Any], Any] | None) -> int:
    """The `sys.getrefcount` up to which a row of this class need not be read by `read`, its
    `reader`: nothing but the variable of the caller refers to it. 0: each has to be read.

    An object that takes weak references is always copied: an ORM may reach it through one.
    """
    if read is None:
        return 0
    found = row_kind(kind)
    is_copied = found is not None and found.copy is read and found.to_dict is None
    return _ONE_REFERENCE if is_copied and not kind.__weakrefoffset__ else 0


def copy_rows(rows: Any) -> list[Any]:
    """A list of the same rows, each a copy, and the frames of tables that have rows."""
    if rows and reader(type(rows[0])) is copy_struct:  # the most frequent rows
        if len(rows) == 1:
            return [copy_struct(rows[0])]
        try:
            return list(map(copy_struct, rows))
        except TypeError:  # the other rows are of other kinds
            pass
    only = only_type(rows)
    copy = None if only is None else reader(only)
    if only is not None and copy is not live_rows:
        return list(rows) if copy is None else list(map(copy, rows))
    found: list[Any] = []
    for row in rows:
        copy = reader(type(row))
        if copy is not live_rows:
            found.append(row if copy is None else copy(row))
        elif frame := live_rows(row):
            found.append(frame)
    return found
