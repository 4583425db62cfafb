"""The columns of rows: their types, their schema, and how values are read from rows.

`RowLayout` is for rows of one kind: of a class that declares its fields, such as a `Row`, or of the
dicts of one channel, as far as they are known. `FrameLayout` is for frames.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from keyword import iskeyword
from operator import attrgetter, is_not, itemgetter
from typing import Any

import msgspec

from aiostream_ds._encoding.field_names import disambiguate_fields
from aiostream_ds._encoding.hidden_columns import hidden_config, hide_fields
from aiostream_ds._encoding.row_columns import TIME, RowColumn, row_columns
from aiostream_ds._frames import json
from aiostream_ds._frames.common_columns import CommonCaseWriter
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.packet import Schema
from aiostream_ds._frames.scalars import BUILTIN_TYPES, to_builtin

__all__ = [
    "FrameLayout",
    "Misfit",
    "RowLayout",
    "now",
    "row_layout",
]

_ACCEPTED: dict[FieldType | None, frozenset[type]] = {
    FieldType.BOOL: frozenset({bool, type(None)}),
    FieldType.INT64: frozenset({int, type(None)}),
    FieldType.FLOAT64: frozenset({float, int, type(None)}),
    FieldType.STRING: frozenset({str, type(None)}),
    FieldType.TIME: frozenset({datetime, type(None)}),
    FieldType.JSON: frozenset({dict, list, type(None)}),
}
_ONLY_NONE = frozenset({type(None)})
_NO_CONVERSION = BUILTIN_TYPES | {type(None), tuple}


class Misfit(Exception):
    """A value of a dict that does not fit its column, as far as it is known."""


class FrameLayout:
    """The columns of a frame and their schema, in the names that the browser cannot confuse."""

    __slots__ = ("_frame", "schema")

    def __init__(self, frame: Frame, schema: Schema, hidden: Collection[str] = ()) -> None:
        found = disambiguate_fields(hide_fields(frame, hidden))
        if found.ref_id:  # it would replace that of each panel's query (StreamingDataFrame.ts)
            found = Frame(*found.fields, name=found.name, meta=found.meta)
        self.schema = schema if found is frame else json.make_schema(found)
        self._frame = _without_rows(found)

    def empty(self) -> Frame:
        """A new frame of these columns without rows."""
        return _without_rows(self._frame)


def _without_rows(frame: Frame) -> Frame:
    fields = [
        Field(f.name, [], f.type, labels=f.labels, config=f.config, nullable=f.nullable)
        for f in frame.fields
    ]
    return Frame(*fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


class RowLayout:
    """The columns of one kind of row, and their schema.

    The methods read rows in the common case; for other rows they return None.

    Raises:
        TypeError: the column `time` is not of times, and no other column is.
    """

    __slots__ = (
        "_accepted",
        "_get_values",
        "_getters",
        "_has_row_writer",
        "_names",
        "_read_attributes",
        "_time_index",
        "_types",
        "_writer",
        "columns",
        "is_stamped",
        "needs_stamps",
        "schema",
    )

    def __init__(self, columns: Mapping[str, RowColumn], row: type | None = None) -> None:
        has_time = any(c.type is FieldType.TIME for c in columns.values())
        named = columns.get(TIME)
        if not has_time and named is not None and named.type is not None:
            raise TypeError(
                f"column {TIME!r} must be aware datetimes or ints of Unix milliseconds, got"
                f" {named.type.value}; leave the column out to have the time of the yield"
            )
        self.columns = columns
        self.is_stamped = not has_time and TIME not in columns
        self.needs_stamps = self.is_stamped or (named is not None and named.nullable)
        self._names = dict(columns)
        if named is not None and not has_time:  # only None so far
            self._names[TIME] = msgspec.structs.replace(named, type=FieldType.TIME)
        types = [column.type for column in self._names.values()]
        names = list(columns)
        index = names.index(TIME) if TIME in names else None
        self._time_index = index if index is not None and types[index] is FieldType.TIME else None
        frame = Frame(*self.fields([[] for _ in columns], 0))
        found = disambiguate_fields(frame)
        if found is not frame:  # its first field was renamed
            first, *others = self._names.values()
            renamed = msgspec.structs.replace(first, config=found.fields[0].config)
            names = [field.name for field in found.fields]
            self._names = dict(zip(names, [renamed, *others], strict=True))
        self.schema = json.make_schema(found)
        getter: Callable[[str], Callable[[Any], Any]] = attrgetter if row else itemgetter
        self._getters = [getter(name) for name in columns]
        self._read_attributes = _attributes_reader(columns.keys()) if row else None
        self._get_values = _values_getter(self._getters, getter, columns)
        # The fast path accepts an int as a time; in a dict, only the column `time` may have one.
        other = any(c.type is FieldType.TIME and name != TIME for name, c in columns.items())
        self._has_row_writer = row is not None or not other
        self._types = [FieldType.TIME, *types] if self.is_stamped else types
        nullable = [n for n, column in enumerate(columns.values()) if column.nullable]
        shift = int(self.is_stamped)
        may_be_none = {n + shift for n in nullable if n != self._time_index}
        self._writer = CommonCaseWriter(self._types, shift, may_be_none)
        # Declared types: Field refuses values that do not fit.
        self._accepted = None if row else [_accepted(*each) for each in columns.items()]

    def read(self, rows: list[Any]) -> list[list[Any]] | None:
        """The values of the rows by column. None: a dict has other keys."""
        if self._read_attributes is not None:
            return self._read_attributes(rows)
        try:
            values = [list(map(get, rows)) for get in self._getters]
        except KeyError:
            return None
        # each row has all keys: none has others if the sum is this
        return values if sum(map(len, rows)) == len(rows) * len(self._getters) else None

    def row(self, row: Any) -> bytes | None:
        """The packet data of one row. None: not the common case."""
        if not self._has_row_writer:
            return None
        if self._accepted is not None and len(row) != len(self._getters):
            return None
        try:
            values = self._get_values(row)
        except KeyError:
            return None
        return self._writer.row((_now(), *values) if self.is_stamped else values)

    def many(self, tables: list[list[Any]], *, single: bool = False) -> list[bytes] | None:
        """The packet data of many small tables. None: not the common case. `single`: each has one
        row."""
        return None if self.is_stamped else self._writer.many(tables, single=single)

    def data(self, values: list[list[Any]], rows: int, stamps: list[int] | None = None) -> bytes:
        """The packet data of values by column.

        `stamps` are the times of rows that have none, in milliseconds; left out, that of this call.

        Raises:
            FrameError: a value does not fit its column.
            Misfit: the same, for a dict: other columns may hold it.
        """
        if not self._has_row_writer and not self._fits(values):
            raise Misfit
        columns = values
        if self.is_stamped:
            stamps = stamps or now(rows)
            columns = [stamps, *values]
        return self._writer.data(columns) or self._uncommon_data(values, rows, stamps or now(rows))

    def _uncommon_data(self, values: list[Any], rows: int, stamps: list[int]) -> bytes:
        if not self._fits(values):
            raise Misfit
        converted = [_to_builtins(column) for column in values]
        times = self.times(converted)
        if self.needs_stamps and times.__class__ is list and None in times:
            pairs = zip(times, stamps, strict=True)
            converted[self._time_index or 0] = [
                stamp if time is None else time for time, stamp in pairs
            ]
        if any(map(is_not, converted, values)):
            values = converted
            data = self._writer.data([stamps, *values] if self.is_stamped else values)
            if data is not None:
                return data
        return json.data(self.fields(values, rows, stamps))

    def _fits(self, values: Sequence[Any]) -> bool:
        """Whether values of dicts have the types of their columns, which decides about declared
        types only later."""
        if self._accepted is None:
            return True
        return all(map(_has_types, values, self._accepted))

    def times(self, values: Sequence[Any]) -> Any:
        """The values of the column `time`; none, if the rows have no such column."""
        return () if self._time_index is None else values[self._time_index]

    def empty(self) -> Frame:
        """A frame of these columns without rows."""
        return Frame(*self.fields([[] for _ in self.columns], 0))

    def fields(
        self, values: Sequence[list[Any]], rows: int, stamps: list[int] | None = None
    ) -> list[Field]:
        """The fields of a frame with these values. `stamps`: see `data`."""
        pairs = zip(self._names.items(), values, strict=True)
        found = [column.field(name, own) for (name, column), own in pairs]
        if self.is_stamped:
            times = stamps or now(rows)
            found.insert(0, Field(TIME, times, FieldType.TIME, nullable=False))
        return found


@lru_cache(maxsize=1024)
def row_layout(row: type, hidden: frozenset[str] = frozenset()) -> RowLayout:
    """The layout of a class that declares its fields, shared by all channels: reading annotations
    takes long.

    `hidden` has the names of columns that panels do not draw.

    Raises:
        TypeError: see `row_columns`.
    """
    columns = row_columns(row)
    for name in hidden & columns.keys():
        column = columns[name]
        if column.type is not FieldType.TIME:
            columns[name] = msgspec.structs.replace(column, config=hidden_config(column.config))
    return RowLayout(columns, row)


def _to_builtins(values: Any) -> Any:
    """A column's values as builtin values, as far as they have conversions: Field reports others.
    The same object if nothing changes."""
    if values.__class__ is not list or _NO_CONVERSION.issuperset(map(type, values)):
        return values
    try:
        return list(map(to_builtin, values))
    except (TypeError, ValueError, OverflowError):
        return values


def _values_getter(
    getters: Sequence[Callable[[Any], Any]], getter: Callable[..., Any], columns: Mapping[str, Any]
) -> Callable[[Any], tuple[Any, ...]]:
    """A function that returns the values of all columns of a row."""
    if len(getters) > 1:
        get_all: Callable[[Any], tuple[Any, ...]] = getter(*columns)
        return get_all
    return lambda row: tuple(get(row) for get in getters)


def _accepted(name: str, column: RowColumn) -> frozenset[type]:
    """The types of a dict's values that do not change the column."""
    found = _ACCEPTED.get(column.type, _ONLY_NONE)
    return found | {int} if name == TIME and column.type is FieldType.TIME else found


def _has_types(values: Any, types: frozenset[type]) -> bool:
    return types.issuperset(map(type, values))


def _attributes_reader(names: Collection[str]) -> Callable[[list[Any]], list[list[Any]]]:
    """A function that returns attributes of objects as lists, as attrgetters do in three times the
    time: Python compiles such an access to a single instruction."""
    if not all(map(_is_attribute, names)):
        getters = [attrgetter(name) for name in names]
        return lambda rows: [list(map(get, rows)) for get in getters]
    columns = ", ".join(f"[row.{name} for row in rows]" for name in names)
    read: Callable[[list[Any]], list[list[Any]]] = eval(f"lambda rows: [{columns}]", {})
    return read


def _is_attribute(name: str) -> bool:
    """Whether Python code can have this attribute: it has other names in their NFKC form only."""
    if not name.isidentifier() or iskeyword(name):
        return False
    return name.isascii() or compile(name, "", "eval").co_names == (name,)


def _now() -> int:
    return time.time_ns() // 1_000_000


def now(rows: int) -> list[int]:
    """The current time in milliseconds, for each row."""
    return [_now()] * rows
