"""The row class in the annotation of a stream, and the check of its cursor column."""

from collections.abc import Sequence
from datetime import datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin

from aiostream_ds._annotations import base_type
from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._encoding.row_columns import row_columns
from aiostream_ds._encoding.row_kinds import KINDS, declared_fields, declared_names, row_kind
from aiostream_ds._frames.frame import FieldType
from aiostream_ds.rows import Columns, Cursor, Row

__all__ = ["check_cursor", "row_class"]

_COLUMN_TYPES = {int: FieldType.INT64, str: FieldType.STRING}

_NOT_ROWS = (bool, int, float, str, bytes, datetime)


def row_class(rows: Any) -> type | None:
    """`Reading` of `Rows[Reading]`, `Rows[list[Reading]]`, `Rows[Columns[Reading]]`, of unions of
    them, and of each with `| Cursor` or `| Status`; None for other annotations.

    Raises:
        TypeError: a field of the class has a type that no column can have, or the annotation is of
            a type that is not a row.
    """
    found: set[Any] = set()
    for kind in get_args(base_type(rows))[:1]:
        found = _row_types(kind)
    if len(found) != 1:
        return None
    kind = found.pop()
    if not isinstance(kind, type) or kind is Row or row_kind(kind) is None:
        return None  # Frame and Columns have fields, which are not columns
    if declared_names(kind) is None:
        return None
    row_columns(kind)
    return kind


def _row_types(annotation: Any) -> set[Any]:
    """The types of single rows that an annotation names."""
    kind = base_type(annotation)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return {row for each in get_args(kind) for row in _row_types(each)}
    if origin in (list, tuple, Sequence, Columns):
        return _row_types(get_args(kind)[0])
    if kind in (Cursor, Status) or origin is Cursor:
        return set()
    if kind in _NOT_ROWS:
        raise TypeError(f"a row must be {KINDS}, got {kind.__name__}")
    return {kind if origin is None else origin}


def check_cursor(kind: CursorKind, row: type) -> None:
    """Check that the class has a field of the cursor's type for each of its columns.

    Raises:
        TypeError: it has not.
    """
    columns = row_columns(row)
    for name in kind.columns:
        column = columns.get(name)
        is_declared = base_type(declared_fields(row).get(name)) is kind.column_type
        fits = column is not None and (  # a `time: int` is a column of times
            is_declared or column.type is _COLUMN_TYPES[kind.column_type]
        )
        if column is None or column.nullable or not fits:
            fields, article = ", ".join(columns), "an" if kind.column_type is int else "a"
            raise TypeError(
                f"cursor must be {article} {kind.column_type.__name__} field of {row.__name__}"
                f" ({fields}), got {name!r}"
            )
