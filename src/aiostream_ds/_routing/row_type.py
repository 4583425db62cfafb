"""The `Row` class in the annotation of a stream, and the check of its cursor column."""

from datetime import datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from aiostream_ds._annotations import base_type
from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.row_layout import row_columns
from aiostream_ds.rows import Columns, Cursor, Row

__all__ = ["check_cursor", "row_class"]


_NOT_ROWS = (bool, int, float, str, bytes, datetime)


def row_class(rows: Any) -> type[Row] | None:
    """`Reading` of `Rows[Reading]`, `Rows[list[Reading]]`, `Rows[Columns[Reading]]`, and of each of
    them with `| Cursor` or `| Status`; None for other annotations.

    Raises:
        TypeError: a field of the class has a type that no column can have, or the annotation is of
            a type that is not a row.
    """
    for kind in get_args(base_type(rows))[:1]:
        kind = base_type(_without_cursor_and_status(base_type(kind)))
        if get_origin(kind) in (list, Columns):
            kind = base_type(get_args(kind)[0])
        if kind in _NOT_ROWS:
            raise TypeError(
                "a row must be a dict, a Row, Columns, a Frame, a list of rows or a Status,"
                f" got {kind.__name__}"
            )
        if isinstance(kind, type) and issubclass(kind, Row) and kind is not Row:
            row_columns(kind)
            return kind
    return None


def check_cursor(cursor: str, row: type[Row]) -> None:
    """Check that the cursor column is an int field of the class.

    Raises:
        TypeError: it is not.
    """
    kind = get_type_hints(row, include_extras=True).get(cursor)
    if base_type(kind) is not int:
        fields = ", ".join(row.__struct_fields__)
        raise TypeError(f"cursor must be an int field of {row.__name__} ({fields}), got {cursor!r}")


def _without_cursor_and_status(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    rest = [each for each in get_args(kind) if base_type(each) not in (Cursor, Status)]
    return rest[0] if len(rest) == 1 else kind
