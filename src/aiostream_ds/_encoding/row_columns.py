"""The columns that the annotations of a row's class declare.

Apart from `row_layout`: a class is compiled before the first call, rows are encoded after it.
"""

from collections.abc import Mapping
from datetime import datetime
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from aiostream_ds._annotations import unwrap
from aiostream_ds._encoding.row_kinds import declared_fields
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import Field, FieldType
from aiostream_ds._frames.scalars import CONVERTED, conversion
from aiostream_ds.rows import Row

__all__ = ["NUMBERS", "TIME", "TYPES", "RowColumn", "row_columns"]

TIME = "time"
"""The column that is added, with the time of the yield, if the rows have no time."""

TYPES: dict[Any, FieldType] = {
    bool: FieldType.BOOL,
    int: FieldType.INT64,
    float: FieldType.FLOAT64,
    str: FieldType.STRING,
    datetime: FieldType.TIME,
    dict: FieldType.JSON,
    list: FieldType.JSON,
}
NUMBERS = frozenset({FieldType.INT64, FieldType.FLOAT64})


class RowColumn(msgspec.Struct, frozen=True):
    """One column of rows; `type` is None until a value other than None was seen."""

    type: FieldType | None
    nullable: bool = True
    config: FieldConfig | None = None
    labels: Mapping[str, str] | None = None

    def field(self, name: str, values: list[Any]) -> Field:
        kind = self.type or FieldType.FLOAT64
        return Field(
            name, values, kind, nullable=self.nullable, config=self.config, labels=self.labels
        )


def row_columns(row: type) -> dict[str, RowColumn]:
    """The columns of a class that declares its fields.

    Raises:
        TypeError: a field has a type that no column can have, or an annotation cannot be resolved.
    """
    hints = declared_fields(row)
    if issubclass(row, Row) and "from_columns" in hints:
        raise TypeError(
            f"fields of {row.__qualname__} must not be named like a method of Row, got"
            " 'from_columns'; rename the field"
        )
    columns = {name: _column(f"{row.__qualname__}.{name}", hint) for name, hint in hints.items()}
    named = columns.get(TIME)
    if named is not None and named.type is FieldType.INT64:
        columns[TIME] = named = msgspec.structs.replace(named, type=FieldType.TIME)
    if named is not None and not any(c.type is FieldType.TIME for c in columns.values()):
        raise TypeError(
            f"{row.__qualname__}.{TIME} must be a datetime, or an int of Unix milliseconds, got"
            f" {hints[TIME]!r}; leave the field out to have the time of the yield"
        )
    return columns


def _column(place: str, annotation: Any) -> RowColumn:
    types, config = _allowed_types(annotation)
    found = {TYPES.get(each) for each in types - {type(None)}}
    if found == NUMBERS:
        found = {FieldType.FLOAT64}
    kind = found.pop() if len(found) == 1 else None
    if kind is None:
        raise TypeError(
            f"{place} must be bool, int, float, str, datetime, dict or list, or a type that is"
            f" converted to one of them ({CONVERTED}), each also `| None`, got {annotation!r}"
        )
    return RowColumn(kind, type(None) in types, config)


def _allowed_types(annotation: Any) -> tuple[set[type | None], FieldConfig | None]:
    """The builtin types of the values that an annotation allows, including that of None, and its
    config. None stands for a type that no column can have."""
    base, metadata = unwrap(annotation)
    config = next((each for each in metadata if isinstance(each, FieldConfig)), None)
    origin = get_origin(base)
    if origin is Literal:
        return {_builtin_type(type(value)) for value in get_args(base)}, config
    if origin not in (Union, UnionType):
        return {_builtin_type(origin or base)}, config
    types: set[type | None] = set()
    for each in get_args(base):
        more, inner = _allowed_types(each)
        types |= more
        config = config or inner
    return types, config


def _builtin_type(kind: Any) -> type | None:
    if kind in (None, type(None), msgspec.UnsetType):
        return type(None)
    found = conversion(kind) if isinstance(kind, type) else None
    return None if found is None else found.builtin
