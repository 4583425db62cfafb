"""Which `Row` class a stream says that it yields, and whether its cursor can be one."""

from datetime import datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from aiostream_ds._annotations import base_type
from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.row_layout import row_columns
from aiostream_ds.rows import Columns, Cursor, Row

__all__ = ["check_cursor", "row_class"]


_NO_ROWS = (bool, int, float, str, bytes, datetime)


def row_class(rows: Any) -> type[Row] | None:
    """`Reading` in `Rows[Reading]`, `Rows[list[Reading]]`, `Rows[Columns[Reading]]`, and in each of
    them with `| Cursor` or `| Status`. Raises TypeError for a class whose fields no row can have,
    and for what is no row at all."""
    for kind in get_args(base_type(rows))[:1]:
        kind = base_type(_without_marks(base_type(kind)))
        if get_origin(kind) in (list, Columns):
            kind = base_type(get_args(kind)[0])
        if kind in _NO_ROWS:
            raise TypeError(
                f"{kind.__name__} is no row; a stream yields a dict, a Row, Columns, a Frame,"
                " a list of rows or a Status"
            )
        if isinstance(kind, type) and issubclass(kind, Row) and kind is not Row:
            row_columns(kind)
            return kind
    return None


def check_cursor(cursor: str, row: type[Row]) -> None:
    """Raises TypeError when the column is no field of whole numbers."""
    kind = get_type_hints(row, include_extras=True).get(cursor)
    if base_type(kind) is not int:
        fields = ", ".join(row.__struct_fields__)
        raise TypeError(
            f"the cursor {cursor!r} has to be an int of {row.__name__}, whose fields are {fields}"
        )


def _without_marks(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    left = [each for each in get_args(kind) if base_type(each) not in (Cursor, Status)]
    return left[0] if len(left) == 1 else kind
