"""What an `RowOrder` looks at in a row: its time, its series and its key; and blocks cut into rows.

A time is a whole number of nanoseconds since 1970. None stands for one that is missing or is none:
the encoder, which comes after the order, tells the author. Imports `channels`, `frames` and its
own room.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from aiostream_ds._channels.policy import RowOrder
from aiostream_ds._encoding.row_layout import TIME, row_columns
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.times import EPOCH
from aiostream_ds.rows import Columns, Row

__all__ = ["BlockTraits", "Cell", "RowTraits", "block_traits", "check_order", "joined", "of_kind"]

_MILLISECOND = 1_000_000
_DAY, _SECOND, _MICROSECOND = 86_400 * 10**9, 10**9, 1000

Read = Callable[[Any], Any]
Block = Columns[Any] | Frame


class RowTraits(NamedTuple):
    """How they are read out of single rows of one kind; None: it is not asked for, or not there."""

    time: Read | None
    series: Read | None
    key: Read | None


class BlockTraits(NamedTuple):
    """The same for each row of one block; an empty list: not asked for, or not there."""

    times: list[int | None]
    series: list[Any]
    keys: list[Any]


class Cell(NamedTuple):
    """One row of a block."""

    block: Block
    row: int


def check_order(order: RowOrder, row: type[Row]) -> None:
    """Raises TypeError when `order` names a column that rows of this class have not."""
    _check_names(order, row.__struct_fields__, row.__qualname__)


def _check_names(order: RowOrder, columns: tuple[str, ...], owner: str) -> None:
    for option, names in (("by", order.by), ("key", order.key)):
        for name in names:
            if name not in columns:
                raise TypeError(
                    f"RowOrder.{option} names the column {name!r}; {owner} has "
                    f"{', '.join(columns) or 'none'}"
                )


def of_kind(order: RowOrder, kind: type) -> RowTraits | None:
    """How rows of this kind are read; None when it is no kind of single row.

    Raises TypeError when a Row class has not the columns that `order` names.
    """
    timed = order.late != "pass"
    by = order.by if timed else ()
    if issubclass(kind, Row):
        check_order(order, kind)
        name = _time_column(kind) if timed else None
        series: Read | None = attrgetter(*by) if by else None
        key: Read | None = attrgetter(*order.key) if order.key else None
        return RowTraits(_attribute(name) if name else None, series, _or_none(key, order.key))
    if issubclass(kind, Mapping):
        key = _or_none(_getter(order.key), order.key)
        return RowTraits(_time_of_mapping if timed else None, _getter(by), key)
    return None


def block_traits(order: RowOrder, block: Block) -> BlockTraits:
    """Read a block, each of its columns once.

    Raises TypeError when it has not the columns that `order` names, FrameError for a naive time.
    """
    timed = order.late != "pass"
    table, time = _frame_table(block) if isinstance(block, Frame) else _columns_table(block)
    owner = "the Frame" if isinstance(block, Frame) else block.kind.__qualname__
    _check_names(order, tuple(table), owner)
    wanted = {*order.key, *(order.by if timed else ()), *([time] if timed and time else [])}
    values = {name: _values(table[name]) for name in wanted}
    return BlockTraits(
        values[time] if timed and time else [],
        _together(values, order.by) if timed else [],
        [
            None if key == (None,) * len(order.key) else key
            for key in _together(values, order.key)
        ],
    )  # fmt: skip


def joined(found: list[Any]) -> list[Any]:
    """The same rows with the cells of one block, where they stand together, as one block."""
    rows: list[Any] = []
    block: Block | None = None
    numbers: list[int] = []
    for each in found:
        cell = each if each.__class__ is Cell else None
        if block is not None and (cell is None or cell.block is not block):
            rows.append(_part(block, numbers))
            block, numbers = None, []
        if cell is None:
            rows.append(each)
        else:
            block = cell.block
            numbers.append(cell.row)
    if block is not None:
        rows.append(_part(block, numbers))
    return rows


def _part(block: Block, numbers: list[int]) -> Block:
    if numbers == list(range(block.rows)):
        return block
    if isinstance(block, Columns):
        names = block.kind.__struct_fields__
        pairs = zip(names, block.values, strict=True)
        return Columns(block.kind, {name: _picked(values, numbers) for name, values in pairs})
    fields = (
        Field(
            field.name,
            _picked(field.values, numbers),
            field.type,
            labels=field.labels,
            config=field.config,
            nullable=field.nullable,
            nanos=None if field.nanos is None else _picked(field.nanos, numbers),
        )
        for field in block.fields
    )
    return Frame(*fields, name=block.name, ref_id=block.ref_id, meta=block.meta)


def _picked(values: Any, numbers: list[int]) -> Any:
    take = getattr(values, "take", None)  # of numpy's and pyarrow's arrays
    return take(numbers) if take is not None else [values[number] for number in numbers]


def _together(values: dict[str, list[Any]], names: tuple[str, ...]) -> list[Any]:
    if len(names) == 1:
        return values[names[0]]
    return list(zip(*(values[name] for name in names), strict=True))


def _getter(names: tuple[str, ...]) -> Read | None:
    """Reads these keys of a mapping, as `attrgetter` reads attributes."""
    if not names:
        return None
    if len(names) == 1:
        (name,) = names
        return lambda row: row.get(name)
    return lambda row: tuple(map(row.get, names))


def _or_none(get: Read | None, names: tuple[str, ...]) -> Read | None:
    """None for a row that has none of the key's columns."""
    if get is None or len(names) == 1:
        return get
    nothing = (None,) * len(names)

    def read(row: Any) -> Any:
        key = get(row)
        return None if key == nothing else key

    return read


def _time_column(kind: type[Row]) -> str | None:
    columns = row_columns(kind)
    times = [name for name, column in columns.items() if column.type is FieldType.TIME]
    return TIME if TIME in times else next(iter(times), None)


def _attribute(name: str) -> Read:
    get = attrgetter(name)
    return lambda row: _moment(get(row))


def _time_of_mapping(row: Mapping[str, Any]) -> int | None:
    when = _moment(row.get(TIME))
    if when is None:
        for value in row.values():
            if isinstance(value, datetime):
                return _moment(value)
    return when


def _moment(value: Any) -> int | None:
    if isinstance(value, datetime):
        if value != value:
            return None  # the "not a time" of pandas
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
    """The fields by name; of several with one name, the first."""
    table = {field.name: field for field in reversed(frame.fields)}
    times = [field.name for field in frame.fields if field.type is FieldType.TIME]
    return table, TIME if TIME in times else next(iter(times), None)


def _values(column: Any) -> list[Any]:
    """A column's values as plain Python; of a TIME field, its times."""
    if not isinstance(column, Field):
        return _plain(column)
    values = _plain(column.values)
    if column.type is not FieldType.TIME:
        return values
    if column.nanos is None:
        return [_moment(value) for value in values]
    times = zip(map(_moment, values), _plain(column.nanos), strict=True)
    return [None if time is None else time + nanos for time, nanos in times]


def _plain(values: Any) -> list[Any]:
    to_list = getattr(values, "tolist", None)  # of numpy's and pyarrow's arrays
    found: list[Any] = to_list() if to_list is not None else list(values)
    return found
