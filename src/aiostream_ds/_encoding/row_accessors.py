"""Row accessors and sort keys: the time, series and key of rows, as a `RowOrder` names them.

A time is an int of nanoseconds since 1970. None is a time that is missing or invalid: the encoder,
which runs after the ordering, raises the error.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from aiostream_ds._channels.policy import RowOrder
from aiostream_ds._encoding.blocks import Block, take_block, to_list
from aiostream_ds._encoding.row_columns import TIME, row_columns
from aiostream_ds._encoding.row_kinds import declared_names, row_kind
from aiostream_ds._encoding.values import with_text_keys
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.scalars import BUILTIN_TYPES, conversion, to_builtin
from aiostream_ds._frames.times import EPOCH
from aiostream_ds.rows import Columns

__all__ = [
    "BlockRow",
    "RowAccessors",
    "SortKeys",
    "check_order",
    "join_block_rows",
    "row_accessors",
    "sort_keys",
]

_MILLISECOND = 1_000_000
_DAY, _SECOND, _MICROSECOND = 86_400 * 10**9, 10**9, 1000

Accessor = Callable[[Any], Any]


class RowAccessors(NamedTuple):
    """Functions of a single row of one kind; None if the order or the kind does not have it."""

    time: Accessor | None
    series: Accessor | None
    key: Accessor | None


class SortKeys(NamedTuple):
    """The same for all rows of a block; empty if the order or the block does not have it."""

    times: list[int | None]
    series: list[Any]
    keys: list[Any]


class BlockRow(NamedTuple):
    """One row of a block."""

    block: Block
    row: int


def check_order(order: RowOrder, row: type) -> None:
    """Check the column names of an order against a class that declares the fields of its rows.

    Raises:
        TypeError: the class does not have one of the columns.
    """
    _check_names(order, declared_names(row) or (), row.__qualname__)


def _check_names(order: RowOrder, columns: tuple[str, ...], owner: str) -> None:
    for option, names in (("by", order.by), ("key", order.key)):
        for name in names:
            if name not in columns:
                raise TypeError(
                    f"RowOrder.{option} must name columns of {owner}"
                    f" ({', '.join(columns) or 'it has none'}), got {name!r}"
                )


def row_accessors(order: RowOrder, kind: type) -> RowAccessors | None:
    """The accessors for rows of this class; None if it is not a class of single rows.

    Raises:
        TypeError: a class that declares its fields does not have those that `order` names.
    """
    timed = order.late != "pass"
    by = order.by if timed else ()
    found = row_kind(kind)
    if found is None:
        return None
    if found.names is not None:
        check_order(order, kind)
        name = _time_column(kind) if timed else None
        series: Accessor | None = attrgetter(*by) if by else None
        key: Accessor | None = attrgetter(*order.key) if order.key else None
        time = _attribute_time(name) if name else None
        return RowAccessors(time, series, _none_if_empty(key, order.key))
    key = _none_if_empty(_item_getter(order.key), order.key)
    accessors = RowAccessors(_mapping_time if timed else None, _item_getter(by), key)
    return accessors if found.to_dict is None else _of_dict(accessors, found.to_dict)


def sort_keys(order: RowOrder, block: Block) -> SortKeys:
    """The sort keys of a block; each column is read once.

    Raises:
        TypeError: the block does not have the columns that `order` names.
        FrameError: a time has no time zone.
    """
    timed = order.late != "pass"
    table, time = _frame_table(block) if isinstance(block, Frame) else _columns_table(block)
    owner = "the Frame" if isinstance(block, Frame) else block.kind.__qualname__
    _check_names(order, tuple(table), owner)
    wanted = {*order.key, *(order.by if timed else ()), *([time] if timed and time else [])}
    values = {name: _values(table[name]) for name in wanted}
    nothing = (None,) * len(order.key)
    return SortKeys(
        values[time] if timed and time else [],
        _zip_columns(values, order.by) if timed else [],
        [None if key == nothing else key for key in _zip_columns(values, order.key)],
    )


def join_block_rows(rows: list[Any]) -> list[Any]:
    """The same rows; consecutive `BlockRow`s of one block become one block."""
    found: list[Any] = []
    block: Block | None = None
    indexes: list[int] = []
    for each in rows:
        block_row = each if each.__class__ is BlockRow else None
        if block is not None and (block_row is None or block_row.block is not block):
            found.append(_take(block, indexes))
            block, indexes = None, []
        if block_row is None:
            found.append(each)
        else:
            block = block_row.block
            indexes.append(block_row.row)
    if block is not None:
        found.append(_take(block, indexes))
    return found


def _take(block: Block, rows: list[int]) -> Block:
    return block if rows == list(range(block.rows)) else take_block(block, rows)


def _zip_columns(values: dict[str, list[Any]], names: tuple[str, ...]) -> list[Any]:
    if len(names) == 1:
        return values[names[0]]
    return list(zip(*(values[name] for name in names), strict=True))


def _item_getter(names: tuple[str, ...]) -> Accessor | None:
    """`attrgetter` for the keys of a mapping; None for keys that are missing."""
    if not names:
        return None
    if len(names) == 1:
        (name,) = names
        return lambda row: _item(row, name)
    return lambda row: tuple([_item(row, name) for name in names])


def _item(row: Mapping[Any, Any], name: str) -> Any:
    value = row.get(name)
    return with_text_keys(row).get(name) if value is None else value


def _of_dict(accessors: RowAccessors, to_dict: Accessor) -> RowAccessors:
    """The accessors for rows of which a dict is made first."""

    def convert(get: Accessor | None) -> Accessor | None:
        return None if get is None else lambda row: get(to_dict(row))

    return RowAccessors(*map(convert, accessors))


def _none_if_empty(get: Accessor | None, names: tuple[str, ...]) -> Accessor | None:
    """The accessor of a key; its result is None if all columns of the key are None."""
    if get is None or len(names) == 1:
        return get
    nothing = (None,) * len(names)

    def read(row: Any) -> Any:
        key = get(row)
        return None if key == nothing else key

    return read


def _time_column(kind: type) -> str | None:
    columns = row_columns(kind)
    times = [name for name, column in columns.items() if column.type is FieldType.TIME]
    return TIME if TIME in times else next(iter(times), None)


def _attribute_time(name: str) -> Accessor:
    get = attrgetter(name)
    return lambda row: _nanoseconds(get(row))


def _mapping_time(row: Mapping[str, Any]) -> int | None:
    time = _nanoseconds(_item(row, TIME))
    if time is None:
        for value in row.values():
            if _is_time(type(value)):
                return _nanoseconds(value)
    return time


def _is_time(kind: type) -> bool:
    found = conversion(kind)
    return found is not None and found.builtin is datetime


def _nanoseconds(value: Any) -> int | None:
    if value.__class__ not in BUILTIN_TYPES:
        try:
            value = to_builtin(value)
        except (TypeError, ValueError):
            return None
    if isinstance(value, datetime):
        try:
            since = value - EPOCH
        except TypeError:  # it has no time zone
            return None
        return since.days * _DAY + since.seconds * _SECOND + since.microseconds * _MICROSECOND
    if isinstance(value, int) and not isinstance(value, bool):
        return value * _MILLISECOND
    return None


def _columns_table(block: Columns[Any]) -> tuple[dict[str, Any], str | None]:
    table: dict[str, Any] = {}
    columns = row_columns(block.kind)
    for (name, column), values in zip(columns.items(), block.values, strict=True):
        is_time = column.type is FieldType.TIME
        table[name] = Field(name, values, FieldType.TIME) if is_time else values
    return table, _time_column(block.kind)


def _frame_table(frame: Frame) -> tuple[dict[str, Any], str | None]:
    """The fields by name; the first of several with one name."""
    table = {field.name: field for field in reversed(frame.fields)}
    times = [field.name for field in frame.fields if field.type is FieldType.TIME]
    return table, TIME if TIME in times else next(iter(times), None)


def _values(column: Any) -> list[Any]:
    """A column's values as builtin types; those of a TIME field as nanoseconds."""
    if not isinstance(column, Field):
        return to_list(column)
    values = to_list(column.values)
    if column.type is not FieldType.TIME:
        return values
    if column.nanos is None:
        return [_nanoseconds(value) for value in values]
    times = zip(map(_nanoseconds, values), to_list(column.nanos), strict=True)
    return [None if time is None else time + nanos for time, nanos in times]
