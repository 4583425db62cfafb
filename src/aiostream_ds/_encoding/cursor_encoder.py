"""The encoder of a stream whose rows have a cursor: every packet knows its place.

    begin(position) ──▶ encode(rows) → packets with (epoch, prev, last) …

Rows that are not above the last one are duplicates of it or of one before: they are left out and
counted. A `Cursor` among the rows begins another numbering, or says that rows were left out.
Imports frames, telemetry and its own room.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby, pairwise
from operator import attrgetter, index, itemgetter
from typing import Any

import msgspec

from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.cursor import columns_of
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import CURSOR_LIMIT, Columns, Cursor

__all__ = ["CursorEncoder", "cursors_of"]

_BEGINNING = -1
_UNKNOWN = Schema(b"", "")


class CursorEncoder:
    """Where one channel's stream stands, once that is `known`. `column` holds its rows' cursors."""

    __slots__ = ("_column", "_counters", "_encoder", "_get", "epoch", "known", "last")

    def __init__(self, encoder: RowEncoder, column: str, counters: Counters) -> None:
        self._encoder = encoder
        self._column = column
        self._counters = counters
        self._get: dict[bool, Callable[[Any], Any]] = {
            True: itemgetter(column), False: attrgetter(column)
        }  # fmt: skip
        self.known = False
        self.epoch = ""
        self.last = _BEGINNING

    @property
    def position(self) -> Cursor:
        """Behind the last row."""
        return Cursor(self.epoch, self.last)

    @property
    def mark(self) -> Packet:
        """The same, as a packet without rows."""
        place = CursorRange(self.epoch, self.last, self.last)
        return Packet(self._encoder.schema or _UNKNOWN, b"", 0, place)

    def begin(self, position: Cursor) -> None:
        """The rows that follow come behind `position`."""
        if not _BEGINNING <= position.value < CURSOR_LIMIT:
            raise TypeError(f"{position!r} has a cursor outside -1 to {CURSOR_LIMIT - 1}")
        self.known = True
        if position.epoch != self.epoch or position.value > self.last:
            self.epoch, self.last = position

    def skip_to_first(self, rows: "Sequence[Any] | Columns[Any] | Frame") -> None:
        """Rows before these are gone: what follows does not join what was sent."""
        if isinstance(rows, Columns | Frame):
            cursors = cursors_of(rows, self._column)[:1]
        else:
            cursors = [self._cursor(row) for row in rows[:1]]
        for cursor in cursors:
            self.begin(Cursor(self.epoch, cursor - 1))

    def encode(self, rows: list[Any]) -> list[Packet]:
        """The packets of what was yielded, each with its place.

        Raises TypeError or ValueError, and then has changed nothing.
        """
        before = self.position
        packets: list[Packet] = []
        try:
            for kind, group in groupby(rows, key=_kind):
                part = list(group)
                if kind is Cursor:
                    for position in part:
                        self.begin(position)
                    packets.append(self.mark)
                elif kind is Status:
                    packets += self._encoder.encode(part)
                elif kind is _Row or kind is list:
                    flat = part if kind is _Row else [row for each in part for row in each]
                    packets += self._rows(flat)
                else:
                    for block in part:
                        packets += self._block(block)
        except Exception:
            self.epoch, self.last = before
            raise
        return packets

    def _rows(self, rows: list[Any]) -> list[Packet]:
        cursors = [self._cursor(row) for row in rows]
        new = self._new(cursors)
        if len(new) < len(rows):
            rows = [rows[place] for place in new]
            cursors = [cursors[place] for place in new]
        return self._placed(rows, cursors)

    def _block(self, block: "Columns[Any] | Frame") -> list[Packet]:
        cursors = cursors_of(block, self._column)
        new = self._new(cursors)
        if len(new) < len(cursors):
            block = _part(block, new)
            cursors = [cursors[place] for place in new]
        packets = self._encoder.encode([block]) if cursors else []
        return [self._put(packet, cursors[-1]) for packet in packets]

    def _placed(self, rows: list[Any], cursors: list[int]) -> list[Packet]:
        if not rows:
            return []
        packets = self._encoder.encode(rows)
        if not packets:
            return []
        if sum(packet.rows for packet in packets) == len(rows):
            counts = accumulate(packet.rows for packet in packets)
            lasts = [cursors[count - 1] for count in counts]
        else:  # the schema's policy has left rows out: the packets themselves tell which are there
            lasts = [*map(self._last_of, packets[:-1]), cursors[-1]]
        return list(map(self._put, packets, lasts))

    def _last_of(self, packet: Packet) -> int:
        place = columns_of(packet.schema).names.index(self._column)
        last: int = msgspec.json.decode(packet.data)["values"][place][-1]
        return last

    def _put(self, packet: Packet, last: int) -> Packet:
        place = CursorRange(self.epoch, self.last, last)
        self.last = last
        return Packet(packet.schema, packet.data, packet.rows, place)

    def _new(self, cursors: list[int]) -> Sequence[int]:
        """Which of these rows are above all before; the others are counted."""
        if cursors and cursors[0] > self.last and all(a < b for a, b in pairwise(cursors)):
            found: Sequence[int] = range(len(cursors))
        else:
            top, kept = self.last, []
            for place, cursor in enumerate(cursors):
                if cursor > top:
                    top = cursor
                    kept.append(place)
            self._counters.count_dropped("duplicate", len(cursors) - len(kept))
            found = kept
        if found:
            _check(self._column, cursors[found[0]], cursors[found[-1]])
        return found

    def _cursor(self, row: Any) -> int:
        try:
            return _whole(self._column, self._get[isinstance(row, dict)](row))
        except (KeyError, AttributeError):
            raise TypeError(f"{row!r} has no {self._column!r}, the cursor of its stream") from None


class _Row:
    """Stands for single rows, whatever their class."""


def _kind(yielded: Any) -> type:
    kind = type(yielded)
    if kind in (Cursor, Columns, Frame, Status):
        return kind
    return list if issubclass(kind, list | tuple) else _Row


def cursors_of(block: "Columns[Any] | Frame", column: str) -> list[int]:
    """The cursors of many rows at once. Raises TypeError when the block has none."""
    if isinstance(block, Columns):
        names = block.kind.__struct_fields__
        values = block.values[names.index(column)] if column in names else None
    else:
        values = next((field.values for field in block.fields if field.name == column), None)
    if values is None:
        raise TypeError(f"{block!r} has no column {column!r}, the cursor of its stream")
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    if set(map(type, plain)) <= {int}:
        return plain
    return [_whole(column, value) for value in plain]


def _whole(column: str, value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"the cursor {column!r} is {value!r}; allowed is a whole number")
    return index(value)


def _check(column: str, first: int, last: int) -> None:
    if first < 0 or last >= CURSOR_LIMIT:
        odd = first if first < 0 else last
        raise TypeError(f"the cursor {column!r} is {odd}; allowed is 0 to {CURSOR_LIMIT - 1}")


def _part(block: "Columns[Any] | Frame", places: Sequence[int]) -> "Columns[Any] | Frame":
    """These rows of a block."""

    def some(values: Any) -> Any:
        if hasattr(values, "dtype"):
            return values[list(places)]
        return [values[place] for place in places]

    if isinstance(block, Columns):
        names = block.kind.__struct_fields__
        return Columns(block.kind, dict(zip(names, map(some, block.values), strict=True)))
    fields = [
        Field(
            field.name, some(field.values), field.type, labels=field.labels, config=field.config,
            nullable=field.nullable, nanos=None if field.nanos is None else some(field.nanos),
        )
        for field in block.fields
    ]  # fmt: skip
    return Frame(*fields, name=block.name, ref_id=block.ref_id, meta=block.meta)
