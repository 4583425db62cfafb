"""What a stream yields, as rows that a store keeps: dicts with a time.

The columns that a class declares are kept as those of a TypedDict: rows that are read from the
store are dicts, with the types and the configs of the class.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TypedDict

from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.row_columns import TIME, row_columns
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import declared_fields, flatten, not_a_row, row_kind
from aiostream_ds._encoding.table_rows import frame_rows
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.rows import Columns

__all__ = ["declared_row", "recorded_rows"]


def declared_row(row: type, cursor: str) -> type:
    """The class of the rows of this one as dicts, with a time and the column of the cursor.

    Raises:
        TypeError: the class has a field with the name of the cursor.
    """
    columns, fields = row_columns(row), declared_fields(row)
    if cursor in columns:
        raise TypeError(
            f"a row of a stream with a store must not have the column {cursor!r}, which the store"
            f" adds, got it in {row.__name__}; rename the field"
        )
    has_time = any(column.type is FieldType.TIME for column in columns.values())
    stamp = {} if has_time else {TIME: datetime}
    make: Any = TypedDict
    found: type = make(row.__name__, {**stamp, **fields, cursor: int})
    return found


def recorded_rows(yields: Sequence[Any], stamp: int) -> Iterator[Status | list[dict[str, Any]]]:
    """The rows of what was yielded, and the statuses between them, in their order.

    Rows without a time have `stamp`, in milliseconds.

    Raises:
        TypeError, FrameError: something is not a row.
    """
    for kind, group in groupby(flatten(yields), key=type):
        if kind is Status:
            yield from group
            continue
        rows = list(_dicts(kind, group))
        for row in rows:
            if TIME not in row and not any(isinstance(v, datetime) for v in row.values()):
                columns = dict(row)
                row.clear()
                row[TIME] = stamp
                row.update(columns)
            elif TIME in row and row[TIME] is None:
                row[TIME] = stamp
        yield rows


def _dicts(kind: type, rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """New dicts of rows of one class."""
    if kind is dict:
        for row in rows:
            yield dict(row)
        return
    if issubclass(kind, Columns | Frame):
        for block in rows:
            frame = block if isinstance(block, Frame) else RowEncoder().table(block)
            yield from frame_rows(frame)
        return
    found = row_kind(kind)
    for row in rows:
        if found is None:
            raise TypeError(not_a_row(row))
        if found.names is not None:
            yield {name: row[name] if kind is dict else getattr(row, name) for name in found.names}
        elif found.to_dict is not None:
            yield found.to_dict(row)
        else:
            yield dict(row)
