"""The encoder of a stream whose rows have a cursor: each packet has the range of its cursors.

begin(cursor) ──▶ encode(rows) → packets with (epoch, prev, last) …
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby, pairwise
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.blocks import Block, take_block
from aiostream_ds._encoding.cursor_kinds import BEGINNING, CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import flatten, not_a_row, row_kind
from aiostream_ds._encoding.table_rows import is_table, live_rows
from aiostream_ds._encoding.values import with_text_keys
from aiostream_ds._frames.cursor import columns_of
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._short_repr import short_repr
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Columns, Cursor, HistoryPage

__all__ = ["CursorEncoder", "has_lost_rows"]

_UNKNOWN = Schema(b"", "")


class CursorEncoder:
    """Adds cursor ranges to the packets of a `RowEncoder`. `kind` reads the cursors of rows.

    Rows whose cursor is not above the last one are duplicates: they are dropped and counted. A
    `Cursor` among the rows starts another epoch, or is a gap in the rows. `has_begun` is false
    until `begin` was called.
    """

    __slots__ = ("_counters", "_encoder", "_getters", "epoch", "has_begun", "kind", "last")

    def __init__(self, encoder: RowEncoder, kind: CursorKind, counters: Counters) -> None:
        self._encoder = encoder
        self._counters = counters
        self._getters: dict[type, Callable[[Any], Any]] = {}  # by the class of the row
        self.kind = kind
        self.has_begun = False
        self.epoch = ""
        self.last = BEGINNING

    @property
    def cursor(self) -> Cursor:
        """The cursor of the last row."""
        return Cursor(self.epoch, self.last)

    @property
    def cursor_packet(self) -> Packet:
        """A packet without rows, with the cursor of the last row."""
        cursors = CursorRange(self.epoch, self.last, self.last)
        return Packet(self._encoder.schema or _UNKNOWN, b"", 0, cursors)

    def begin(self, cursor: Cursor) -> None:
        """The rows that follow come after `cursor`. A cursor that was passed already is ignored."""
        self.has_begun = True
        if cursor.epoch != self.epoch or cursor.value > self.last:
            self.epoch, self.last = cursor

    def resume(self, cursor: Cursor) -> None:
        """The rows that follow come after `cursor`, also if later ones were encoded: these have not
        reached anybody."""
        self.has_begun = True
        self.epoch, self.last = cursor

    def skip_to(self, cursor: int) -> None:
        """The rows before this one are lost: leave a gap between the last packet and the next."""
        self.begin(Cursor(self.epoch, cursor - 1))

    def first_new(self, item: Any) -> int | None:
        """The cursor of the first row of a yield that is not a duplicate; None without one.

        Raises:
            TypeError: a row has no cursor, or an invalid one.
        """
        for row in flatten([item]):
            kind = _kind(row)
            if kind is Cursor or kind is Status:
                continue
            cursors = [self._cursor(row)] if kind is _SingleRow else self._cursors(row)
            for cursor in cursors:
                if cursor > self.last:
                    return cursor
        return None

    def rows_before(
        self, rows: "Sequence[Any] | Block", before: int | None
    ) -> tuple["Sequence[Any] | Block", list[int]]:
        """The rows of a history whose cursor is below `before`, and the cursors of all of them."""
        cursors = self._cursors(rows)
        count = len(cursors) if before is None else bisect_left(cursors, before)
        if count == len(cursors):
            return rows, cursors
        if isinstance(rows, Columns | Frame):
            return take_block(rows, range(count)), cursors
        return rows[:count], cursors

    def _cursors(self, rows: "Sequence[Any] | Block") -> list[int]:
        if isinstance(rows, Columns | Frame):
            return self.kind.of_block(rows) if rows.rows else []
        return [self._cursor(row) for row in rows]

    def encode(self, rows: list[Any]) -> list[Packet]:
        """The packets of what was yielded, each with its range of cursors.

        Raises:
            TypeError, ValueError: a row cannot be encoded, or its cursor is invalid. The encoder
                has not changed, and nothing is counted: the rows are encoded again, one by one.
        """
        before, counted = self.cursor, self._counters.dropped.copy()
        packets: list[Packet] = []
        try:
            for kind, group in groupby(flatten(rows), key=_kind):
                part = list(group)
                if kind is Cursor:
                    for cursor in part:
                        self.begin(self.kind.cursor_from_author(cursor))
                    packets.append(self.cursor_packet)
                elif kind is Status:
                    packets += self._encoder.encode(part)
                elif kind is _SingleRow:
                    packets += self._row_packets(part)
                else:
                    for block in part:
                        packets += self._block_packets(block)
        except BaseException:
            self.epoch, self.last = before
            self._counters.dropped = counted
            raise
        return packets

    def _row_packets(self, rows: list[Any]) -> list[Packet]:
        cursors = [self._cursor(row) for row in rows]
        new = self._new_rows(cursors)
        if len(new) < len(rows):
            rows = [rows[row] for row in new]
            cursors = [cursors[row] for row in new]
        if not rows:
            return []
        return self._packets_with_cursors(self._encoder.encode(rows), cursors)

    def _block_packets(self, block: Block) -> list[Packet]:
        cursors = self.kind.of_block(block)
        new = self._new_rows(cursors)
        if not new:
            return []
        if len(new) < len(cursors):
            block = take_block(block, new)
            cursors = [cursors[row] for row in new]
        return self._packets_with_cursors(self._encoder.encode([block]), cursors)

    def _packets_with_cursors(self, packets: list[Packet], cursors: list[int]) -> list[Packet]:
        """The packets of rows with these cursors."""
        if not packets:
            return []
        if len(packets) == 1:  # also if the schema policy has dropped rows
            return [self._with_cursors(packets[0], cursors[-1])]
        if sum(packet.rows for packet in packets) == len(cursors):
            counts = accumulate(packet.rows for packet in packets)
            lasts = [cursors[count - 1] for count in counts]
        else:  # the schema policy has dropped rows: read the remaining cursors from the packets
            lasts = [*map(self._last_cursor, packets[:-1]), cursors[-1]]
        return list(map(self._with_cursors, packets, lasts))

    def _last_cursor(self, packet: Packet) -> int:
        values = msgspec.json.decode(packet.data)["values"]
        return self.kind.of_last(columns_of(packet.schema).names, values)

    def _with_cursors(self, packet: Packet, last: int) -> Packet:
        cursors = CursorRange(self.epoch, self.last, last)
        self.last = last
        return Packet(packet.schema, packet.data, packet.rows, cursors, packet.continues)

    def _new_rows(self, cursors: list[int]) -> Sequence[int]:
        """The indexes of rows whose cursor is above those of all rows before; counts the others."""
        if cursors and cursors[0] > self.last and all(a < b for a, b in pairwise(cursors)):
            found: Sequence[int] = range(len(cursors))
        else:
            top, new = self.last, []
            for row, cursor in enumerate(cursors):
                if cursor > top:
                    top = cursor
                    new.append(row)
            self._counters.count_dropped("duplicate", len(cursors) - len(new))
            found = new
        if found:
            self.kind.check_range(cursors[found[0]], cursors[found[-1]])
        return found

    def _cursor(self, row: Any) -> int:
        get = self._getters.get(type(row)) or self._getter(row)
        try:
            return self.kind.of_value(get(row))
        except (KeyError, AttributeError):
            shown = short_repr(row)
            raise TypeError(f"a row must have the cursor {self.kind.label}, got {shown}") from None

    def _getter(self, row: Any) -> Callable[[Any], Any]:
        """A function that returns the cursor of rows of the class of this one."""
        kind, columns = row_kind(type(row)), self.kind.columns
        if kind is None:
            if is_table(type(row)):
                live_rows(row)  # raises the error of this table
            raise TypeError(not_a_row(row))
        get: Callable[[Any], Any] = attrgetter(*columns)
        if kind.names is None:
            to_dict, read = kind.to_dict, itemgetter(*columns)

            def get(row: Any) -> Any:
                values = row if to_dict is None else to_dict(row)
                try:
                    return read(values)
                except KeyError:
                    return read(with_text_keys(values))

        self._getters[type(row)] = get
        return get


class _SingleRow:
    """Represents all classes of single rows in `_kind`."""


def _kind(yielded: Any) -> type:
    kind = type(yielded)
    return kind if kind in (Cursor, Columns, Frame, Status) else _SingleRow


def has_lost_rows(page: HistoryPage, after: int, cursors: Sequence[int]) -> bool:
    """Whether rows after a cursor can no longer be read; `cursors` are those of the page's rows.

    Nothing precedes the first row of a numbering, which may begin with 0 or 1.
    """
    oldest = [*cursors[:1], *([] if page.first is None else [page.first])]
    if after == BEGINNING and oldest and min(oldest) <= 1:
        return False
    return page.truncated or (page.first is not None and after < page.first - 1)
