"""Rows become columns: what an author yields (dict, Row, Columns, list of them, Frame) as packets.

One encoder serves one channel; it remembers the columns that it has seen. Column types of dicts are
found from their values and only ever widen (unknown → any, int → float, a new key → a new column);
a value that fits neither is a TypeError that names column and value. `encode` is all or nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from aiostream_ds.frames import json
from aiostream_ds.frames.frame import Field, FieldType, Frame
from aiostream_ds.frames.packet import Packet, Schema
from aiostream_ds.plugin.layout import NUMBERS, TIME, TYPES, Column, Layout, row_layout
from aiostream_ds.plugin.model import Columns, Row

__all__ = ["RowEncoder"]

_SMALL = 16  # rows up to which a block costs more by itself than by its values


class RowEncoder:
    """Encodes the rows of one channel. `row` is the class they are of, when that is known."""

    __slots__ = ("_dicts", "_frames_like", "_last", "_rows")

    def __init__(self, row: type[Row] | None = None) -> None:
        self._rows: dict[type[Row], Layout] = {}
        self._dicts: Layout | None = None
        self._last: Layout | None = None
        self._frames_like = json.FrameEncoder()
        if row is not None:
            self._last = self._rows[row] = row_layout(row)

    @property
    def schema(self) -> Schema | None:
        """The schema of the next rows as far as it is known."""
        return self._last.schema if self._last is not None else None

    def encode(self, rows: list[Any]) -> list[Packet]:
        """The packets of these rows, in order: more than one when the kind of row changes.

        Raises TypeError or ValueError, and then has changed nothing.
        """
        if len(rows) == 1:
            packet = self._encode_row(rows[0])
            if packet is not None:
                return [packet]
        kinds = set(map(type, rows))
        if len(kinds) == 1:
            packets = self._encode_alike(kinds.pop(), rows)
            if packets is not None:
                return packets
        before = (self._dicts, self._last)
        try:
            return [packet for part in self._frames(rows) for packet in self._packets(part)]
        except Exception:
            self._dicts, self._last = before
            raise

    def _encode_row(self, row: Any) -> Packet | None:
        """The usual case of a slow stream: one more row like those before. None: look closer."""
        kind = row.__class__
        layout = self._dicts if kind is dict else self._rows.get(kind)
        data = layout.row(row) if layout is not None else None
        if layout is None or data is None:
            return None
        self._last = layout
        return Packet(layout.schema, data, 1)

    def _encode_alike(self, kind: type, rows: list[Any]) -> list[Packet] | None:
        """The usual case: rows of one kind that bring nothing new. None: look closer."""
        if kind is Frame:
            return list(map(self._frames_like.packet, rows))
        if kind is Columns:
            return self._blocks(rows)
        layout = self._dicts if kind is dict else self._rows.get(kind)
        values = layout.read(rows) if layout is not None else None
        if layout is None or values is None:
            return None
        packet = Packet(layout.schema, layout.data(values, len(rows)), len(rows))
        self._last = layout
        return [packet]

    def _blocks(self, blocks: list[Columns[Any]]) -> list[Packet]:
        if len(blocks) > 1:
            packets = self._small_blocks(blocks)
            if packets:
                return packets
        packets = []
        for block in blocks:
            layout = self._layout(block.kind)
            data = layout.data(block.values, block.rows)
            packets.append(Packet(layout.schema, data, block.rows))
        self._last = layout
        return packets

    def _small_blocks(self, blocks: list[Columns[Any]]) -> list[Packet]:
        """Many blocks of few numbers, as a busy author yields them; empty: look closer."""
        kind = blocks[0].kind
        counts = [block.rows for block in blocks]
        if {block.kind for block in blocks} != {kind} or sum(counts) > _SMALL * len(blocks):
            return []
        layout = self._layout(kind)
        found = layout.many([block.values for block in blocks])
        if found is None:
            return []
        self._last = layout
        schema = layout.schema
        return [Packet(schema, data, rows) for data, rows in zip(found, counts, strict=True)]

    def _layout(self, kind: type[Row]) -> Layout:
        layout = self._rows.get(kind)
        if layout is None:
            layout = self._rows[kind] = row_layout(kind)
        return layout

    def frame(self, rows: "Sequence[Any] | Columns[Any]") -> Frame:
        """A history's rows as one frame, for a query's answer.

        Raises TypeError when they are of several kinds, or have no time of their own.
        """
        if isinstance(rows, Columns):
            rows = [rows]
        if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
            raise TypeError(f"a history is a Frame, Columns or a list of rows, not {rows!r}")
        parts = list(self._frames(list(rows)))
        if len(parts) > 1:
            raise TypeError("a history is rows of one kind, or one Frame")
        if not parts:
            last = self._last
            return Frame(*last.fields([[] for _ in last.columns], 0) if last else ())
        part = parts[0]
        if isinstance(part, Frame):
            return part
        if self._last is not None and self._last.stamped:
            raise TypeError(
                f"rows of a history need a time of their own: no {TIME!r} in {rows[0]!r}"
            )
        return Frame(*part[1])

    def _packets(self, part: "Frame | tuple[Schema, list[Field], int]") -> Iterator[Packet]:
        if isinstance(part, Frame):
            yield self._frames_like.packet(part)
        else:
            schema, fields, rows = part
            yield Packet(schema, json.data(fields), rows)

    def _frames(self, rows: list[Any]) -> "Iterator[Frame | tuple[Schema, list[Field], int]]":
        for kind, group in groupby(_flat(rows), key=type):
            part = list(group)
            if issubclass(kind, Frame):
                yield from part
                continue
            if kind is Columns:
                for block in part:
                    self._last = layout = self._layout(block.kind)
                    yield layout.schema, layout.fields(block.values, block.rows), block.rows
                continue
            if issubclass(kind, Row):
                layout, values = self._row_values(kind, part)
            elif issubclass(kind, Mapping):
                layout, values = self._dict_values(part)
            else:
                raise TypeError(
                    "a stream yields a dict, a Row, Columns, a Frame or a list of rows, "
                    f"not {part[0]!r}"
                )
            self._last = layout
            yield layout.schema, layout.fields(values, len(part)), len(part)

    def _row_values(self, kind: type[Row], rows: list[Row]) -> tuple[Layout, list[list[Any]]]:
        layout = self._layout(kind)
        return layout, layout.read(rows) or []

    def _dict_values(self, rows: list[Mapping[str, Any]]) -> tuple[Layout, list[list[Any]]]:
        columns = dict(self._dicts.columns) if self._dicts is not None else {}
        for row in rows:
            if not row.keys() <= columns.keys():
                columns.update((key, Column(None)) for key in row if key not in columns)
        values: list[list[Any]] = []
        for name, column in columns.items():
            column_values = [row.get(name) for row in rows]
            kind, plain = _widen(name, column.type, column_values)
            values.append(plain)
            if kind is not column.type:
                columns[name] = Column(kind)
        if self._dicts is None or columns != self._dicts.columns:
            self._dicts = Layout(columns)
        return self._dicts, values


def _flat(rows: list[Any]) -> Iterator[Any]:
    """A yielded list is as many rows."""
    for row in rows:
        if isinstance(row, list | tuple):
            yield from row
        else:
            yield row


def _widen(
    name: Any, known: FieldType | None, values: list[Any]
) -> tuple[FieldType | None, list[Any]]:
    """The column's type once these values are in it, and the values as plain Python."""
    if not isinstance(name, str):
        raise TypeError(f"the column {name!r} is no str")
    found = set(map(type, values))
    found.discard(type(None))
    if not found <= TYPES.keys():
        values = [_plain(name, value) for value in values]
        found = set(map(type, values)) - {type(None)}
    types = {
        kind: FieldType.TIME if name == TIME and kind is int else TYPES[kind] for kind in found
    }
    kinds = set(types.values())
    if known is not None:
        kinds.add(known)
    if len(kinds) <= 1:
        return (kinds.pop() if kinds else None), values
    if kinds <= NUMBERS:
        return FieldType.FLOAT64, values
    present = [value for value in values if value is not None]
    first = known or types[type(present[0])]
    allowed = NUMBERS if first in NUMBERS else {first}
    odd = next(value for value in present if types[type(value)] not in allowed)
    expected = " or ".join(sorted(kind.value for kind in allowed & kinds))
    raise TypeError(f"the column {name!r} holds {expected}, not {odd!r} ({type(odd).__name__})")


def _plain(name: str, value: Any) -> Any:
    """A value of a subclass or of numpy as what it stands for."""
    if value is None or type(value) in TYPES:
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "item"):
        # datetime64 is told from its count of units by nobody who reads the bare number
        if getattr(value, "shape", ()) == () and dtype.kind not in "mMO":
            value = value.item()
    for kind, make in _PLAIN.items():
        if isinstance(value, kind):
            return make(value)
    raise TypeError(
        f"the column {name!r} cannot hold {value!r} ({type(value).__name__}); "
        "allowed: bool, int, float, str, datetime, dict, list, None"
    )


def _datetime(value: datetime) -> datetime | None:
    if value != value:
        return None  # the "not a time" of pandas
    return datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second,
        value.microsecond, value.tzinfo, fold=value.fold,
    )  # fmt: skip


# The base classes' own methods: an Enum that is a str or an int has another __str__.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    datetime: _datetime,
    Mapping: dict,
    list: list,
    tuple: list,
}
