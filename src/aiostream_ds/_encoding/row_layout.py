"""Columns of rows: which there are, their types, their schema, and how values are read out of rows.

A `Layout` is the columns of one kind of row: of a `Row` class, whose types are declared, or of the
dicts of one channel as far as they are known.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter, itemgetter
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from aiostream_ds._annotations import unwrap
from aiostream_ds._encoding.field_names import disambiguate_fields
from aiostream_ds._frames import json
from aiostream_ds._frames.common_columns import CommonCaseWriter
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.packet import Schema
from aiostream_ds.rows import Row

__all__ = ["NUMBERS", "TIME", "TYPES", "Column", "Layout", "row_columns", "row_layout"]

TIME = "time"
"""The column that is stamped when the rows have none of their own."""

TYPES: dict[Any, FieldType] = {
    bool: FieldType.BOOL,
    int: FieldType.INT64,
    float: FieldType.FLOAT64,
    str: FieldType.STRING,
    datetime: FieldType.TIME,
    dict: FieldType.JSON,
    list: FieldType.JSON,
}
_ACCEPTED: dict[FieldType | None, frozenset[type]] = {
    FieldType.BOOL: frozenset({bool, type(None)}),
    FieldType.INT64: frozenset({int, type(None)}),
    FieldType.FLOAT64: frozenset({float, int, type(None)}),
    FieldType.STRING: frozenset({str, type(None)}),
    FieldType.TIME: frozenset({datetime, type(None)}),
    FieldType.JSON: frozenset({dict, list, type(None)}),
}
_NOTHING = {type(None)}
_FEW = 16  # rows that are looked at twice
_MOST_WRITERS = 256
NUMBERS = frozenset({FieldType.INT64, FieldType.FLOAT64})


class Column(msgspec.Struct, frozen=True):
    """One column of rows; `type` None: nothing but None was seen yet."""

    type: FieldType | None
    nullable: bool = True
    config: FieldConfig | None = None
    labels: Mapping[str, str] | None = None

    def field(self, name: str, values: list[Any]) -> Field:
        kind = self.type or FieldType.FLOAT64
        return Field(
            name, values, kind, nullable=self.nullable, config=self.config, labels=self.labels
        )


class Layout:
    """The columns of one kind of row, and their schema. TypeError when no time can be told."""

    __slots__ = (
        "_accepted",
        "_get",
        "_getters",
        "_names",
        "_quick",
        "_required",
        "_rows_are_quick",
        "_types",
        "_writers",
        "columns",
        "schema",
        "stamped",
    )

    def __init__(self, columns: Mapping[str, Column], row: type[Row] | None = None) -> None:
        times = any(c.type is FieldType.TIME for c in columns.values())
        named = columns.get(TIME)
        if not times and named is not None and named.type is not None:
            raise TypeError(
                f"the column {TIME!r} holds {named.type.value}; allowed are aware datetimes, ints "
                "of Unix ms, or no such column: then the rows are stamped when they are sent"
            )
        self.columns = columns
        self.stamped = not times and TIME not in columns
        self._names = dict(columns)
        frame = Frame(*self.fields([[] for _ in columns], 0))
        found = disambiguate_fields(frame)
        if found is not frame:  # its first field has another name
            first, *others = columns.values()
            renamed = msgspec.structs.replace(first, config=found.fields[0].config)
            names = [field.name for field in found.fields]
            self._names = dict(zip(names, [renamed, *others], strict=True))
        body = json.schema(found)
        self.schema = Schema(body, json.fingerprint(body))
        getter: Callable[[str], Callable[[Any], Any]] = attrgetter if row else itemgetter
        self._getters = [getter(name) for name in columns]
        self._get = _all_of(self._getters, getter, columns)
        # The quick way takes an int for a time; of a dict, only the column `time` may hold one.
        other = any(c.type is FieldType.TIME and name != TIME for name, c in columns.items())
        self._rows_are_quick = row is not None or not other
        types = [column.type or FieldType.FLOAT64 for column in columns.values()]
        self._types = [FieldType.TIME, *types] if self.stamped else types
        self._quick = CommonCaseWriter(self._types)
        needed = (not column.nullable for column in columns.values())
        self._required = {place for place, each in enumerate(needed, int(self.stamped)) if each}
        self._writers: dict[tuple[int, ...], CommonCaseWriter] = {}
        # Of a Row, whose types are declared, the field itself refuses what does not fit.
        self._accepted = None if row else [_accepted(*each) for each in columns.items()]

    def read(self, rows: list[Any]) -> list[list[Any]] | None:
        """The values of rows that fit these columns as they are, by column; None: look closer."""
        if self._accepted is None:
            return [list(map(get, rows)) for get in self._getters]
        if set(map(len, rows)) != {len(self._getters)}:
            return None
        try:
            values = [list(map(get, rows)) for get in self._getters]
        except KeyError:
            return None
        for column, accepted in zip(values, self._accepted, strict=True):
            if accepted is None or not accepted.issuperset(map(type, column)):
                return None
        return values

    def row(self, row: Any) -> bytes | None:
        """The data of one row that fits these columns as they are; None: look closer."""
        if not self._rows_are_quick:
            return None
        if self._accepted is not None and len(row) != len(self._getters):
            return None
        try:
            values = self._get(row)
        except KeyError:
            return None
        return self._quick.row((_now(), *values) if self.stamped else values)

    def many(self, tables: list[list[Any]]) -> list[bytes] | None:
        """The data of many small tables; None: look closer."""
        return None if self.stamped else self._quick.many(tables)

    def data(self, values: list[list[Any]], rows: int) -> bytes:
        """The packet's data for these columns' values. Raises FrameError for what does not fit."""
        columns = [[_now()] * rows, *values] if self.stamped else values
        return (
            self._quick.data(columns)
            or self._sparse(columns, rows)
            or json.data(self.fields(values, rows))
        )

    def _sparse(self, columns: list[list[Any]], rows: int) -> bytes | None:
        """The quick way for columns that are whole or empty: one row of one series of many."""
        if rows > _FEW:
            return None
        kinds = [set(map(type, column)) for column in columns]
        places = tuple(place for place, found in enumerate(kinds) if found != _NOTHING)
        if len(places) == len(columns) or not self._required.issubset(places):
            return None
        writer = self._writers.get(places)
        if writer is None:
            if len(self._writers) >= _MOST_WRITERS:
                self._writers.clear()
            writer = self._writers[places] = CommonCaseWriter(
                [self._types[place] for place in places]
            )
        body = writer.data([columns[place] for place in places])
        return None if body is None else _spread(body, places, [None] * rows, len(columns))

    def empty(self) -> Frame:
        """A frame of these columns without rows."""
        return Frame(*self.fields([[] for _ in self.columns], 0))

    def fields(self, values: Sequence[list[Any]], rows: int) -> list[Field]:
        """The frame's fields for `rows` rows; a stamped time is the moment of this call."""
        pairs = zip(self._names.items(), values, strict=True)
        found = [column.field(name, own) for (name, column), own in pairs]
        if self.stamped:
            found.insert(0, Field(TIME, [_now()] * rows, FieldType.TIME, nullable=False))
        return found


@lru_cache(maxsize=1024)
def row_layout(row: type[Row]) -> Layout:
    """One for all channels: reading a class's annotations takes longer than its first packet."""
    return Layout(row_columns(row), row)


def _all_of(
    getters: Sequence[Callable[[Any], Any]], getter: Callable[..., Any], columns: Mapping[str, Any]
) -> Callable[[Any], tuple[Any, ...]]:
    """What reads all columns of a row in one call."""
    if len(getters) > 1:
        whole: Callable[[Any], tuple[Any, ...]] = getter(*columns)
        return whole
    return lambda row: tuple(get(row) for get in getters)


def _spread(body: bytes, places: Sequence[int], nothing: list[None], count: int) -> bytes:
    """The data of some columns as that of all, with nothing in the others."""
    found = msgspec.json.decode(body)
    for key, empty in (("values", nothing), ("nanos", None)):
        if key in found:
            whole: list[Any] = [empty] * count
            for place, column in zip(places, found[key], strict=True):
                whole[place] = column
            found[key] = whole
    return msgspec.json.encode(found)


def _accepted(name: str, column: Column) -> frozenset[type] | None:
    """The types of a dict's values that fit the column as they stand; None: not known yet."""
    found = _ACCEPTED.get(column.type)
    if found is not None and name == TIME and column.type is FieldType.TIME:
        return found | {int}
    return found


def _now() -> int:
    return time.time_ns() // 1_000_000


def row_columns(row: type[Row]) -> dict[str, Column]:
    """The columns of a Row class. Raises TypeError for a field whose type no column can have."""
    try:
        hints = get_type_hints(row, include_extras=True)
    except NameError as error:
        text = "import or define it where it exists at run time"
        raise TypeError(f"{row.__qualname__}: {error}; {text}") from error
    if "from_columns" in row.__struct_fields__:
        raise TypeError(f"{row.__qualname__}.from_columns: the name is taken, by Row.from_columns")
    columns = {}
    for name in row.__struct_fields__:
        kinds, config = _options(hints[name])
        found = {TYPES.get(kind) for kind in kinds if kind is not type(None)}
        if found == NUMBERS:
            found = {FieldType.FLOAT64}
        kind = found.pop() if len(found) == 1 else None
        if kind is None:
            raise TypeError(
                f"{row.__qualname__}.{name}: {hints[name]!r} is no column type; allowed: bool, "
                "int, float, str, datetime, dict, list, each also `| None`"
            )
        if name == TIME and kind is FieldType.INT64:
            kind = FieldType.TIME
        columns[name] = Column(kind, type(None) in kinds, config)
    return columns


def _options(annotation: Any) -> tuple[set[Any], FieldConfig | None]:
    """The plain types that an annotation allows, the type of None among them, and its config."""
    base, metadata = unwrap(annotation)
    config = next((each for each in metadata if isinstance(each, FieldConfig)), None)
    origin = get_origin(base)
    if origin is Literal:
        return set(map(type, get_args(base))), config
    if origin not in (Union, UnionType):
        return {origin or base}, config
    kinds: set[Any] = set()
    for each in get_args(base):
        found, inner = _options(each)
        kinds |= found
        config = config or inner
    return kinds, config
