"""Rows become columns: what an author yields (dict, Row, Columns, list of them, Frame) as packets.

One encoder serves one channel; it remembers the columns that it has seen. Column types of dicts are
found from their values and only ever widen (unknown → any, int → float, a new key → a new column);
the SchemaPolicy says what becomes of a value that fits neither, how many columns there may be, and
whether rows are of several series. `encode` is all or nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._channels.status import Status, status_packet
from aiostream_ds._encoding.field_names import Shape, disambiguate_fields
from aiostream_ds._encoding.row_layout import TIME, Layout, row_layout
from aiostream_ds._encoding.schema_inference import SchemaInference
from aiostream_ds._encoding.values import ODD
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Columns, Row

if TYPE_CHECKING:
    from aiostream_ds._channels.channel import Channel

__all__ = ["RowEncoder"]

_Part = tuple[Layout, list[list[Any]], int]
"""Rows of one kind: their columns, their values by column, and how many they are."""

_USUAL = SchemaPolicy()
_SMALL = 16  # rows up to which a block costs more by itself than by its values


class RowEncoder:
    """Encodes the rows of one channel.

    Args:
        row: the class they are of, when that is known.
        policy: how they become columns.
        counters: where values that the policy leaves out of live rows are counted, as "columns"
            and "conflict"; what it leaves out of a history is not counted.
        common: the columns that belong to no series although the policy has labels, and that are
            there whatever the policy says: the stream's cursor.

    Raises:
        TypeError: `row` has a field that no column can have, or the labels are no texts of it.
    """

    __slots__ = ("_counters", "_dicts", "_framed", "_frames_like", "_governor", "_last", "_rows")

    def __init__(
        self,
        row: type[Row] | None = None,
        policy: SchemaPolicy = _USUAL,
        counters: Counters | None = None,
        *,
        common: Collection[str] = (),
    ) -> None:
        self._counters = counters
        self._governor = SchemaInference(policy, common)
        self._rows: dict[type[Row], Layout] = {}
        self._dicts: Layout | None = None  # the governor's
        self._last: Layout | Shape | None = None
        self._frames_like = json.FrameEncoder()
        self._framed: tuple[Schema, Shape] | None = None
        if row is not None:
            self._governor.check(row)
            if not self._governor.has_series:
                self._last = self._rows[row] = row_layout(row)

    def attach(self, channel: "Channel") -> None:
        """A run begins, in this channel; told to encoders that tell how it is doing."""

    @property
    def schema(self) -> Schema | None:
        """The schema of the next rows as far as it is known."""
        return self._last.schema if self._last is not None else None

    def copy(self) -> "RowEncoder":
        """Another encoder that knows what this one does: for a history, also in a thread."""
        found = RowEncoder(counters=self._counters)
        found._governor = self._governor.copy()
        found._rows = dict(self._rows)
        found._dicts, found._last = self._dicts, self._last
        return found

    def adopt(self, other: "RowEncoder") -> bool:
        """Take over the columns that `other` knows, behind those known here; whether `schema` is
        another one now. A type that differs stays as it is here unless the other one is wider."""
        before, known = self.schema, self._dicts
        self._rows = {**other._rows, **self._rows}
        self._governor.adopt(other._dicts)
        self._dicts = self._governor.layout
        if self._last is None:
            self._last = self._dicts if other._last is other._dicts else other._last
        elif self._last is known:
            self._last = self._dicts
        after = self.schema
        if before is None or after is None:
            return before is not after
        return before.fingerprint != after.fingerprint

    def encode(self, rows: list[Any]) -> list[Packet]:
        """The packets of these rows, in order: more than one when the kind of row changes.

        Raises TypeError or ValueError, and then has changed nothing.
        """
        if len(rows) == 1:  # the usual case of a slow stream: one more row like those before
            kind = rows[0].__class__
            layout = self._dicts if kind is dict else self._rows.get(kind)
            data = layout.row(rows[0]) if layout is not None else None
            if layout is not None and data is not None:
                self._last = layout
                return [Packet(layout.schema, data, 1)]
        kinds = set(map(type, rows))
        if len(kinds) == 1:
            packets = self._encode_alike(kinds.pop(), rows)
            if packets is not None:
                return packets
        return self._encode_new(rows)

    def _encode_new(self, rows: list[Any]) -> list[Packet]:
        """The careful way, in which anything may be new."""
        before = (self._dicts, self._last)
        self._governor.lost = {}
        try:
            packets: list[Packet] = []
            for said, group in groupby(rows, key=_is_status):
                if said:
                    packets += map(status_packet, group)
                else:
                    for part in self._frames(list(group)):
                        packets += self._packets(part)
        except Exception:
            self._put_back(*before)
            raise
        if self._counters is not None:
            for reason, count in self._governor.lost.items():
                self._counters.count_dropped(reason, count)
        return packets

    def _put_back(self, dicts: Layout | None, last: Layout | Shape | None) -> None:
        self._dicts = self._governor.layout = dicts
        self._last = last

    def _encode_alike(self, kind: type, rows: list[Any]) -> list[Packet] | None:
        """The usual case: rows of one kind that bring nothing new. None: look closer."""
        if kind is Frame and not self._governor.has_series:
            return self._frame_packets(rows)
        if kind is Columns and not self._governor.has_series:
            return self._blocks(rows)
        layout = self._dicts if kind is dict else self._rows.get(kind)
        values = layout.read(rows) if layout is not None else None
        if layout is None or values is None:
            return None
        try:
            packet = Packet(layout.schema, layout.data(values, len(rows)), len(rows))
        except ODD:
            if kind is dict and self._governor.is_lenient:
                return None
            raise
        self._last = layout
        return [packet]

    def _frame_packets(self, frames: list[Frame]) -> list[Packet]:
        packets = []
        for frame in frames:
            packet = self._frames_like.packet(frame)
            if self._framed is None or packet.schema is not self._framed[0]:
                self._framed = packet.schema, _shape(frame, packet.schema)
            schema = self._framed[1].schema
            packets.append(packet if packet.schema is schema else replace(packet, schema=schema))
        self._last = self._framed[1] if self._framed is not None else self._last
        return packets

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

    def frame(self, rows: "Sequence[Any] | Columns[Any] | Frame") -> Frame:
        """A history's rows as one frame, for a query's answer: with the columns of the live rows.

        Raises TypeError when they are of several kinds, or have no time of their own.
        """
        if isinstance(rows, Columns | Frame):
            rows = [rows]
        if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
            raise TypeError(f"a history is a Frame, Columns or a list of rows, not {rows!r}")
        before = (self._dicts, self._last)
        try:
            return self._one_frame(list(rows))
        except Exception:
            self._put_back(*before)
            raise

    def _one_frame(self, rows: list[Any]) -> Frame:
        parts = list(self._frames(rows))
        if len(parts) > 1:
            raise TypeError("a history is rows of one kind, or one Frame")
        if not parts:
            return self._last.empty() if self._last is not None else Frame()
        part = parts[0]
        if isinstance(part, Frame):
            body = json.schema(part)
            self._last = _shape(part, Schema(body, json.fingerprint(body)))
            return disambiguate_fields(part)
        if isinstance(self._last, Layout) and self._last.stamped:
            raise TypeError(
                f"rows of a history need a time of their own: no {TIME!r} in {rows[0]!r}"
            )
        layout, values, count = part
        return Frame(*layout.fields(values, count))

    def _packets(self, part: "Frame | _Part") -> list[Packet]:
        if isinstance(part, Frame):
            return self._frame_packets([part])
        layout, values, rows = part
        return [Packet(layout.schema, layout.data(values, rows), rows)]

    def _frames(self, rows: list[Any]) -> "Iterator[Frame | _Part]":
        for kind, group in groupby(self._governor.split(_flat(rows)), key=type):
            part = list(group)
            if issubclass(kind, Frame):
                yield from part
                continue
            if kind is Columns:
                for block in part:
                    self._last = layout = self._layout(block.kind)
                    yield layout, block.values, block.rows
                continue
            if issubclass(kind, Row):
                layout = self._layout(kind)
                values, count = layout.read(part) or [], len(part)
            elif issubclass(kind, Mapping):
                found = self._governor.read(part)
                if found is None:
                    continue
                layout, values, count = found
                self._dicts = layout
            else:
                raise TypeError(
                    "a stream yields a dict, a Row, Columns, a Frame, a list of rows or a Status, "
                    f"not {part[0]!r}"
                )
            self._last = layout
            yield layout, values, count


def _is_status(row: Any) -> bool:
    return isinstance(row, Status)


def _shape(frame: Frame, schema: Schema) -> Shape:
    found = disambiguate_fields(frame)
    if found is not frame:
        body = json.schema(found)
        schema = Schema(body, json.fingerprint(body))
    return Shape(found, schema)


def _flat(rows: list[Any]) -> Iterator[Any]:
    """A yielded list is as many rows."""
    for row in rows:
        if isinstance(row, list | tuple):
            yield from row
        else:
            yield row
