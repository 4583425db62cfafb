"""The encoder of a channel: dicts, Rows, Columns and Frames that an author yields, as packets."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, repeat
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import BATCH_ROWS, PACKET_BYTES, SchemaPolicy
from aiostream_ds._channels.status import Status, status_packet
from aiostream_ds._encoding.field_names import disambiguate_fields
from aiostream_ds._encoding.hidden_columns import hide_fields
from aiostream_ds._encoding.packet_size import encode_rows
from aiostream_ds._encoding.row_columns import TIME
from aiostream_ds._encoding.row_kinds import (
    flatten,
    is_typed_dict,
    not_a_row,
    opener,
    row_kind,
    rows_of_history,
)
from aiostream_ds._encoding.row_layout import FrameLayout, Misfit, RowLayout, now, row_layout
from aiostream_ds._encoding.schema_inference import SchemaInference
from aiostream_ds._encoding.table_rows import history_rows, is_table, live_rows
from aiostream_ds._encoding.time_check import TimeCheck
from aiostream_ds._encoding.values import VALUE_ERRORS
from aiostream_ds._frames import frame_rows, json
from aiostream_ds._frames.common_columns import only_type
from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.cursor import extends
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._short_repr import short_repr
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Columns

if TYPE_CHECKING:
    from aiostream_ds._channels.channel import Channel

__all__ = ["RowEncoder"]

_Table = tuple[RowLayout, list[list[Any]], int]
"""Rows of one kind: their layout, their values by column, and their number."""

_DEFAULT_POLICY = SchemaPolicy()
_DROPPED = {
    "columns": "values of columns beyond the limit are left out",
    "conflict": "values or rows are left out: they do not have the type of their column",
    "series": "rows of series beyond the limit are left out",
}
"""The text of a history's notice about values that the policy has dropped, by reason."""

_NO_COLUMNS: frozenset[str] = frozenset()
_NO_LAYOUTS: dict[type, RowLayout] = {}

_SMALL_BLOCK = 16  # rows up to which the overhead of a block exceeds the cost of its values


class RowEncoder:
    """Encodes the rows of one channel, and remembers its columns.

    Rows of a class that declares its fields have declared types. The columns of dicts, and of other
    rows that are read by key, are inferred from the values, see `SchemaInference`; the policy
    decides about values that do not fit, limits the number of columns, and names the labels of
    series.

    Args:
        row: the class of the rows, if it is known. The columns of a TypedDict are those that its
            dicts begin with.
        policy: how rows become columns.
        counters: count the values of live rows that the policy drops, as "columns" and "conflict".
            A history is read many times: what is dropped from it is not counted, but a notice of
            its frame has the number.
        common: the columns that belong to no series and do not count against the limit: the
            stream's cursor. Panels do not draw them.

    Raises:
        TypeError: `row` has a field that no column can have, or a label is not a str field of it.
    """

    __slots__ = (
        "_common",
        "_counters",
        "_declared",
        "_dict_layout",
        "_frame_encoder",
        "_frame_layout",
        "_inference",
        "_last_layout",
        "_row_layouts",
        "_time_check",
        "has_column_conflict",
    )

    def __init__(
        self,
        row: type | None = None,
        policy: SchemaPolicy = _DEFAULT_POLICY,
        counters: Counters | None = None,
        *,
        common: Collection[str] = (),
    ) -> None:
        self._counters = counters
        self.has_column_conflict = False  # reported
        self._common = frozenset(common) or _NO_COLUMNS  # one object for all
        self._inference = SchemaInference(policy, common)
        self._declared: type | None = None  # the class of rows with declared fields
        self._row_layouts = _NO_LAYOUTS  # replaced, never changed: channels share it
        self._time_check = TimeCheck()
        self._dict_layout: RowLayout | None = None  # a copy of _inference.layout
        self._last_layout: RowLayout | FrameLayout | None = None
        self._frame_encoder: json.FrameEncoder | None = None  # made for the first frame
        self._frame_layout: tuple[Schema, FrameLayout] | None = None
        if row is not None:
            self._inference.check(row)
            if is_typed_dict(row):
                self._dict_layout = self._last_layout = self._inference.declare(row)
            elif not self._inference.has_series:
                self._declared = row
                self._last_layout = row_layout(row, self._common)

    def attach(self, channel: "Channel") -> None:
        """A run of this channel begins. Called for encoders with a status column."""

    @property
    def schema(self) -> Schema | None:
        """The schema of the next rows, as far as it is known."""
        return self._last_layout.schema if self._last_layout is not None else None

    def live_schema(self, sent: Schema) -> Schema:
        """The schema of the next live rows, if the last ones had the schema `sent`: the columns of
        dicts may have grown since."""
        grown = self._dict_layout
        return grown.schema if grown is not None and extends(grown.schema, sent) else sent

    def copy(self) -> "RowEncoder":
        """Another encoder with the same columns. It may be used in another thread."""
        found = RowEncoder(counters=self._counters)
        found._common, found._inference = self._common, self._inference.copy()
        found._row_layouts = self._row_layouts
        found._dict_layout, found._last_layout = self._dict_layout, self._last_layout
        return found

    def adopt(self, other: "RowEncoder") -> bool:
        """Add the columns of another encoder after the known ones. True if `schema` has changed.

        A known column keeps its type unless the other type is wider.
        """
        before, known = self.schema, self._dict_layout
        self._row_layouts = {**other._row_layouts, **self._row_layouts}
        self._inference.adopt(other._inference)
        self._dict_layout = self._inference.layout
        if self._last_layout is None:
            is_dict = other._last_layout is other._dict_layout
            self._last_layout = self._dict_layout if is_dict else other._last_layout
        elif self._last_layout is known:
            self._last_layout = self._dict_layout
        after = self.schema
        if before is None or after is None:
            return before is not after
        return before.fingerprint != after.fingerprint

    def learn(self, schema: Schema) -> None:
        """Begin with the columns of a schema that another process has encoded for this channel.

        For columns that are inferred; those that this encoder knows and the schema does not have
        come after them.
        """
        is_inferred = self._last_layout is None or self._last_layout is self._dict_layout
        if is_inferred and not self._inference.has_series:
            self._inference.learn(schema)
            self._dict_layout = self._last_layout = self._inference.layout

    def encode(self, rows: list[Any], stamps: list[int] | None = None) -> list[Packet]:
        """The packets of these rows in order; there are several if the kind of row changes.

        `stamps` are the times of what has none, in milliseconds; left out, it is that of this call.

        Raises:
            TypeError, ValueError: a row cannot be encoded. The encoder has not changed.
        """
        if len(rows) == 1 and stamps is None:  # the common case of a slow stream
            row = rows[0]
            kind = row.__class__
            layout = self._dict_layout if kind is dict else self._row_layouts.get(kind)
            if layout is None:
                if kind is Columns and not self._inference.has_series:
                    return self._block_packets(rows)
                if kind is self._declared:
                    layout = self._first_layout(row)
            if layout is not None:
                data = layout.row(row)
                if data is not None:
                    self._last_layout = layout
                    return [Packet(layout.schema, data, 1)]
        only = only_type(rows)
        if only is None or opener(only) is not None:
            rows, stamps = _single_rows(rows, stamps)
            only = only_type(rows)
        if only is not None:
            packets = self._encode_known(only, rows, stamps)
            if packets is not None:
                return packets
        return self._encode_any(rows, stamps)

    def _encode_any(self, rows: list[Any], stamps: list[int] | None = None) -> list[Packet]:
        """Encode rows of any kinds, which may change the columns."""
        before = (self._dict_layout, self._last_layout)
        self._inference.dropped = {}
        try:
            packets = self._any_packets(rows) if stamps is None else self._joined(rows, stamps)
        except BaseException:
            self._restore(*before)
            raise
        if self._counters is not None:
            for reason, count in self._inference.dropped.items():
                self._counters.count_dropped(reason, count)
        return packets

    def _any_packets(self, rows: list[Any]) -> list[Packet]:
        packets: list[Packet] = []
        for is_status, group in groupby(rows, key=_is_status):
            if is_status:
                packets += map(status_packet, group)
                continue
            part = self._inference.split(group)
            packet = self._one_row(part) if self._inference.has_series else None
            if packet is not None:
                packets.append(packet)
                continue
            for table in self._split_tables(part):
                if not self._time_check.is_done:
                    self._check_times(table)
                packets += self._packets(table)
        return packets

    def _one_row(self, rows: Any) -> Packet | None:
        """The packet of one row with the columns of its series. None: not the common case."""
        layout = self._dict_layout
        if layout is None or len(rows) != 1 or not self._time_check.is_done:
            return None
        if rows[0].__class__ is not dict or self._inference.has_forgotten:
            return None
        data = layout.row(rows[0])
        if data is None:
            return None
        self._last_layout = layout
        return Packet(layout.schema, data, 1)

    def _joined(self, rows: list[Any], stamps: list[int]) -> list[Packet]:
        """The packets of rows of several times. Consecutive tables of the same columns are one."""
        packets: list[Packet] = []
        layout: RowLayout | None = None
        values: list[list[Any]] = []
        is_copy = False
        times: list[int] = []

        def finish() -> None:
            nonlocal layout
            if layout is not None:
                packets.extend(_table_packets(layout, values, len(times), times))
            layout = None

        pairs = groupby(
            zip(rows, stamps, strict=True), key=lambda each: (_is_status(each[0]), each[1])
        )
        for (is_status, stamp), group in pairs:
            part = [row for row, _ in group]
            if is_status:
                finish()
                packets += map(status_packet, part)
                continue
            for table in self._tables(part):
                if not self._time_check.is_done:
                    self._check_times(table)
                if isinstance(table, Frame):
                    finish()
                    packets += self._frame_packets([table])
                elif table[0] is layout and {type(each) for each in table[1]} == {list}:
                    if not is_copy:  # the values of Columns are the author's
                        values, is_copy = list(map(list, values)), True
                    for own, more in zip(values, table[1], strict=True):
                        own += more
                    times += [stamp] * table[2]
                else:
                    finish()
                    layout, values, times = table[0], table[1], [stamp] * table[2]
                    is_copy = False
        finish()
        return packets

    def _restore(self, dicts: RowLayout | None, last: RowLayout | FrameLayout | None) -> None:
        self._dict_layout = self._inference.layout = dicts
        self._last_layout = last

    def _encode_known(
        self, kind: type, rows: list[Any], stamps: list[int] | None
    ) -> list[Packet] | None:
        """The common case: rows of one kind that do not change the columns. None: another case."""
        if kind is Frame:
            return None if self._inference.has_series else self._frame_packets(rows)
        if kind is Columns:
            return self._encode_blocks(rows, stamps)
        layout = self._dict_layout if kind is dict else self._row_layouts.get(kind)
        values = layout.read(rows) if layout is not None else None
        if layout is None or values is None:
            return None
        try:
            packets = _table_packets(layout, values, len(rows), stamps)
        except Misfit:
            return None
        except VALUE_ERRORS:
            if kind is dict and self._inference.is_lenient:
                return None
            raise
        self._last_layout = layout
        return packets

    def _encode_blocks(
        self, blocks: list[Columns[Any]], stamps: list[int] | None
    ) -> list[Packet] | None:
        if self._inference.has_series:
            return None
        if stamps is not None:
            layouts = map(self._layout, {block.kind for block in blocks})
            if any(layout.needs_stamps for layout in layouts):
                return None
        return self._block_packets(blocks)

    def _frame_packets(self, frames: list[Frame]) -> list[Packet]:
        packets = []
        for frame in frames:

            def encode(start: int, stop: int, frame: Frame = frame) -> Packet:
                return self._frame_packet(frame_rows.slice_rows(frame, start, stop))

            packets += encode_rows(frame.rows, encode)
        if self._frame_layout is not None:
            self._last_layout = self._frame_layout[1]
        return packets

    def _frame_packet(self, frame: Frame) -> Packet:
        if self._frame_encoder is None:
            self._frame_encoder = json.FrameEncoder()
        packet = self._frame_encoder.packet(frame)
        if self._frame_layout is None or packet.schema is not self._frame_layout[0]:
            self._check_times(frame)
            self._frame_layout = packet.schema, FrameLayout(frame, packet.schema, self._common)
        schema = self._frame_layout[1].schema
        return packet if packet.schema is schema else replace(packet, schema=schema)

    def _block_packets(self, blocks: list[Columns[Any]]) -> list[Packet]:
        if len(blocks) > 1:
            packets = self._small_block_packets(blocks)
            if packets:
                return packets
        packets = []
        kind = blocks[0].kind
        layout = self._layout(kind)
        if not self._time_check.is_done:
            self._check_times((layout, blocks[0].values, blocks[0].rows))
        for block in blocks:
            if block.kind is not kind:
                kind = block.kind
                layout = self._layout(kind)
            values, rows = block.values, block.rows
            if rows > BATCH_ROWS:
                packets += _table_packets(layout, values, rows)
                continue
            packet = Packet(layout.schema, layout.data(values, rows), rows)
            if len(packet.data) <= PACKET_BYTES:  # in fewer steps than `_table_packets`
                packets.append(packet)
            else:
                packets += _table_packets(layout, values, rows, whole=packet)
        self._last_layout = layout
        return packets

    def _small_block_packets(self, blocks: list[Columns[Any]]) -> list[Packet]:
        """The packets of many blocks of few numbers. Empty: not that case."""
        kind = blocks[0].kind
        counts = [block.rows for block in blocks]
        if {block.kind for block in blocks} != {kind} or sum(counts) > _SMALL_BLOCK * len(blocks):
            return []
        layout = self._layout(kind)
        single = counts.count(1) == len(counts)
        found = layout.many([block.values for block in blocks], single=single)
        if found is None:
            return []
        self._last_layout = layout
        return list(map(Packet, repeat(layout.schema), found, counts))

    def _layout(self, kind: type) -> RowLayout:
        layout = self._row_layouts.get(kind)
        if layout is None:
            found = _layouts(kind, self._common)
            self._row_layouts = {**self._row_layouts, **found} if self._row_layouts else found
            layout = found[kind]
        return layout

    def _first_layout(self, row: Any) -> RowLayout:
        """The layout of the declared class, of which this is the first row."""
        if not self._time_check.is_done:
            self._time_check.notice(TIME, (getattr(row, TIME, None),))
        return self._layout(row.__class__)

    def frame(self, rows: "Sequence[Any] | Columns[Any] | Frame") -> Frame:
        """The rows of a history as one frame, with the columns of the live rows.

        Raises:
            TypeError, ValueError: the rows are of several kinds, have no time, or cannot be
                encoded. The encoder has not changed.
        """
        return self._frame(rows_of_history(rows), needs_time=True)

    def table(self, rows: "list[Any] | Columns[Any]") -> Frame:
        """The rows that a query has returned as one frame. They need not have a time.

        Raises:
            TypeError, ValueError: the rows are of several kinds, or cannot be encoded.
        """
        return self._frame(rows, needs_time=False)

    def _frame(self, rows: "list[Any] | Columns[Any] | Frame", *, needs_time: bool) -> Frame:
        before = (self._dict_layout, self._last_layout)
        self._inference.dropped = {}
        parts = [rows] if isinstance(rows, Columns | Frame) else list(flatten(rows))
        try:
            frame = self._frame_of_rows(parts, needs_time)
        except BaseException:
            self._restore(*before)
            raise
        dropped = self._inference.dropped.items()
        notices = [_notice_of_dropped(*item) for item in dropped]
        seconds = self._check_times(frame)
        if seconds is not None:
            notices.append(seconds)
        if notices:  # the author may return the same frame again
            frame = Frame(*frame.fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)
        frame_rows.add_notices(frame, notices)
        return frame

    def _frame_of_rows(self, rows: list[Any], needs_time: bool) -> Frame:
        if not needs_time:
            _check_no_tables(rows)
        tables = list(self._tables(rows, is_history=True))
        if len(tables) > 1:
            what = "a history" if needs_time else "a list of rows"
            raise TypeError(
                f"{what} must have rows of one kind, or one Frame, got {len(tables)} kinds or"
                " Frames"
            )
        if not tables:
            return self._last_layout.empty() if self._last_layout is not None else Frame()
        table = tables[0]
        if isinstance(table, Frame):
            table = hide_fields(table, self._common)
            self._last_layout = FrameLayout(table, json.make_schema(table))
            return disambiguate_fields(table)
        layout, values, count = table
        if layout.is_stamped and not needs_time:
            return Frame(*layout.fields(values, count)[1:])
        if layout.is_stamped:
            raise TypeError(
                f"rows of a history must have a column {TIME!r}, got {short_repr(rows[0])}"
            )
        return Frame(*layout.fields(values, count))

    def _check_times(self, table: "Frame | _Table") -> Notice | None:
        """A notice if the times of rows or of a frame are in seconds."""
        if not isinstance(table, Frame):
            layout, values, _ = table
            return self._time_check.notice(TIME, layout.times(values))
        times = next((field for field in table.fields if field.type is FieldType.TIME), None)
        return None if times is None else self._time_check.notice(times.name, times.values)

    def _packets(self, table: "Frame | _Table") -> list[Packet]:
        if isinstance(table, Frame):
            return self._frame_packets([table])
        return _table_packets(*table)

    def _tables(self, rows: list[Any], *, is_history: bool = False) -> "Iterator[Frame | _Table]":
        """Consecutive rows of one kind as a table; each Frame and Columns by itself."""
        return self._split_tables(
            self._inference.split(rows, is_history=is_history), is_history=is_history
        )

    def _split_tables(
        self, rows: Iterable[Any], *, is_history: bool = False
    ) -> "Iterator[Frame | _Table]":
        """As `_tables`, for rows with the columns of their series."""
        for kind, group in groupby(rows, key=type):
            part = list(group)
            if issubclass(kind, Frame):
                yield from part
                continue
            if kind is Columns:
                for block in part:
                    self._last_layout = layout = self._layout(block.kind)
                    yield layout, block.values, block.rows
                continue
            found = row_kind(kind)
            if is_table(kind):
                read = history_rows if is_history else live_rows
                read_tables = [each for each in map(read, part) if isinstance(each, Frame)]
                yield from self._tables(read_tables, is_history=is_history)
                continue
            if found is None:
                raise TypeError(not_a_row(part[0]))
            if found.names is not None:
                layout = self._layout(kind)
                values, count = layout.read(part) or [], len(part)
            else:
                if found.to_dict is not None:
                    part = list(map(found.to_dict, part))
                table = self._inference.read(part)
                if table is None:
                    continue
                layout, values, count = table
                self._dict_layout = layout
            self._last_layout = layout
            yield layout, values, count


@lru_cache(maxsize=1024)
def _layouts(row: type, hidden: frozenset[str]) -> dict[type, RowLayout]:
    """The layout of a class by the class, in one object for all channels: do not change it."""
    return {row: row_layout(row, hidden)}


def _check_no_tables(rows: list[Any]) -> None:
    """Check that no row of one table is a table itself. Raises TypeError."""
    kinds = {kind for kind in set(map(type, rows)) if issubclass(kind, Frame) or is_table(kind)}
    if kinds:
        found = next(row for row in rows if type(row) in kinds)
        raise TypeError(
            "a list within the result of a query must have rows and no tables, got"
            f" {short_repr(found)}; return a list of tables, or a dict of tables by name"
        )


def _notice_of_dropped(reason: str, count: int) -> Notice:
    text = f"{count:,} {_DROPPED[reason]}"
    return Notice(severity="warning", text=text)


def _table_packets(
    layout: RowLayout,
    values: list[list[Any]],
    rows: int,
    stamps: list[int] | None = None,
    *,
    whole: Packet | None = None,
) -> list[Packet]:
    if stamps is None and layout.is_stamped:
        stamps = now(rows)

    def encode(start: int, stop: int) -> Packet:
        if stop - start == rows:
            return Packet(layout.schema, layout.data(values, rows, stamps), rows)
        part = [column[start:stop] for column in values]
        data = layout.data(part, stop - start, stamps and stamps[start:stop])
        return Packet(layout.schema, data, stop - start)

    return encode_rows(rows, encode, whole)


def _single_rows(rows: list[Any], stamps: list[int] | None) -> tuple[list[Any], list[int] | None]:
    """The rows, with those of lists and arrays one by one, and the time of each."""
    flat = flatten(rows)
    if stamps is None or flat is rows:
        return list(flat), stamps
    singles: list[Any] = []
    times: list[int] = []
    for row, stamp in zip(rows, stamps, strict=True):
        part = flatten([row])
        singles += part
        times += [stamp] * len(part)
    return singles, times


def _is_status(row: Any) -> bool:
    return isinstance(row, Status)
