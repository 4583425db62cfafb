"""Where history and live rows meet: exact queries, positions, and the rows behind a cursor.

A stream whose rows have a cursor is read by its history hook; of another one the channel's ring has
what this process has seen. Either way rows and their last number come of one read.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec

from aiostream_ds._channels.log import Log, LogSlice
from aiostream_ds._channels.registry import ChannelKey, ChannelRegistry, Subscription
from aiostream_ds._encoding.cursor_encoder import cursors_of
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._frames import tables as table
from aiostream_ds._frames.cursor import cursor_object, exact_packet, short_hash, wire_epoch
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.packet import Schema
from aiostream_ds._grafana.exact_delivery import Feed, cursor_feed, ring_feed
from aiostream_ds._grafana.instances import Instance
from aiostream_ds._paths import channel as channel_name
from aiostream_ds._routing.plan import RESERVED_PATH, StreamPlan, split_exact
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import BadQuery, UpstreamError
from aiostream_ds.rows import CURSOR_LIMIT, Columns, Cursor, HistoryPage, HistoryRange

__all__ = [
    "EARLIEST",
    "INLINE_ROWS",
    "LATEST",
    "REPLAY_ROWS",
    "ChannelRequest",
    "RowReplay",
    "resolve_channel",
    "frame_of",
    "own",
]

log = logging.getLogger(__name__)

REPLAY_ROWS = 5_000
"""Most rows that one request for the rows behind a cursor is answered with."""

INLINE_ROWS = 10_000
"""Up to so many rows are worked on in the loop; more would hold up every stream."""

EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
"""The bounds of a span that is asked for by cursor, or has no end."""


class ChannelRequest(NamedTuple):
    """One path of an instance, its stream and the method's arguments."""

    instance: Instance
    stream: StreamPlan
    path: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> ChannelKey:
        """The channel's in the registry."""
        return ChannelKey(self.instance.key, self.path)


def resolve_channel(instance: Instance, channel_path: str) -> tuple[bool, ChannelRequest]:
    """Whether it is the exact view, and whose path it is. Raises NotFound for no stream's."""
    exact, path = split_exact(channel_path)
    stream, arguments = instance.source._plan.match(path)
    return exact, ChannelRequest(instance, stream, path, arguments)


class Read(NamedTuple):
    """Rows of one read, and the numbering's name: behind them the stream stands at `last`."""

    frame: Frame
    numbering: str
    last: int
    prev: int
    first: int | None = None
    truncated: bool = False
    more: bool = False


class RowReplay:
    """Answers what exact panels ask, for the channels of one registry."""

    def __init__(self, registry: ChannelRegistry, counters: Counters) -> None:
        self._registry = registry
        self._counters = counters

    # -- where a stream stands -----------------------------------------------------------------

    def ring(self, at: ChannelRequest) -> Log:
        """The ring of a path whose rows have no cursor, made when there is none."""
        return self._registry.open_log(at.key, at.stream.options.replay, at.instance.generation)

    async def position(self, at: ChannelRequest) -> Cursor:
        """Behind the newest row of a stream with a cursor. Raises what the hook raises."""
        page = await self.page(at, HistoryRange(start=EARLIEST, end=LATEST, limit=1))
        frame = await self._frame(at, page)
        return Cursor(page.epoch, _last_of(at, frame, page))

    def epoch(self, at: ChannelRequest, name: str, schema: Schema | None) -> str:
        """The epoch's text: these settings, the author's name of the numbering, the columns."""
        return wire_epoch(self._numbering(at, name), schema)

    async def initial(self, at: ChannelRequest) -> bytes:
        """What a subscriber of the exact view is told first: where the stream stands. Nothing when
        the log cannot be read now: whoever may follow the path is let in all the same."""
        encoder = self.encoder(at)
        if at.stream.options.cursor is None:
            ring = self.ring(at)
            numbering, last = ring.epoch, ring.last
        else:
            running = self._registry.peek(at.key)
            place = running.cursors if running is not None else None
            if place is not None:
                name, last = place.epoch, place.last
            else:
                try:
                    name, last = await self.position(at)
                except UpstreamError as error:
                    log.warning("%s: where it stands is not known yet: %s", at.path, error)
                    return b""
            numbering = self._numbering(at, name)
        return exact_packet(cursor_object(wire_epoch(numbering, encoder.schema), last, last))

    def feed(self, at: ChannelRequest, reader: Subscription) -> Feed:
        """What makes an exact view's payloads, for a reader that has just joined."""
        encoder = self.encoder(at)
        if at.stream.options.cursor is None:
            return ring_feed(self.ring(at), reader, lambda: encoder.schema)
        running = self._registry.peek(at.key)
        return cursor_feed(
            lambda name, schema: self.epoch(at, name, schema),
            at.stream.options.cursor,
            running.cursors if running is not None else None,
            lambda: encoder.schema,
        )

    def encoder(self, at: ChannelRequest) -> RowEncoder:
        """What makes the packets and frames of this path."""
        return at.instance.encoder(at.stream, at.path, self._counters)

    # -- queries -------------------------------------------------------------------------------

    async def history(self, at: ChannelRequest, span: HistoryRange) -> Frame:
        """The rows of a span; of a stream without history what the ring has."""
        if at.stream.history is not None:
            page = await self.page(at, span)
            return await self._frame(at, page)
        if self._registry.has_log(at.key):
            return (await self._ring_span(at, span)).frame
        return self.encoder(at).frame([])

    async def exact_history(
        self, at: ChannelRequest, span: HistoryRange
    ) -> tuple[Frame, dict[str, Any]]:
        """The rows of a span, and what `meta.custom.cursor` says: where they end."""
        if at.stream.options.cursor is None:
            read = await self._ring_span(at, span)
        else:
            read = await self._read_span(at, span)
        said: dict[str, Any] = {
            "channel": channel_name(at.instance.source.instance.uid, f"{RESERVED_PATH}/{at.path}"),
            "epoch": wire_epoch(read.numbering, _schema(read.frame)),
            "last": read.last,
        }
        return read.frame, said | _ids(at, read.frame)

    async def _read_span(self, at: ChannelRequest, span: HistoryRange) -> Read:
        page = await self.page(at, span)
        frame = await self._frame(at, page)
        if not frame.rows and page.last is None:
            # Where it stands has to be known before it is certain that the span has no rows.
            before = await self.position(at)
            page = await self.page(at, span)
            frame = await self._frame(at, page)
            if not frame.rows and page.epoch == before.epoch:
                return Read(frame, self._numbering(at, page.epoch), before.value, before.value)
        last = _last_of(at, frame, page)
        return Read(frame, self._numbering(at, page.epoch), last, last)

    async def _ring_span(self, at: ChannelRequest, span: HistoryRange) -> Read:
        ring = self.ring(at)
        kept = await ring.after(ring.first - 1, self._registry.loop.time())
        start, end = span.start.timestamp() * 1000, span.end.timestamp() * 1000
        frame = table.rows_between(await self._kept(at, kept), start, end, span.limit)
        return Read(frame, ring.epoch, kept.last, kept.last)

    # -- the rows behind a cursor --------------------------------------------------------------

    async def rows_after(self, at: ChannelRequest, after: int, upto: int | None) -> bytes:
        """The answer of the resource `replay/rows`.

        Raises BadQuery for cursors that cannot be, and what the history hook raises.
        """
        if not -1 <= after < CURSOR_LIMIT or (upto is not None and not after <= upto):
            raise BadQuery(f"after is {after} and upto {upto}; allowed is -1 <= after <= upto")
        if at.stream.options.cursor is None:
            read = await self._ring_after(at, after, upto)
        else:
            read = await self._read_after(at, after, upto)
        frame = read.frame
        epoch = wire_epoch(read.numbering, _schema(frame))
        cursor: dict[str, Any] = {"epoch": epoch, "prev": read.prev, "last": read.last} | _ids(
            at, frame
        )
        answer: dict[str, Any] = {"cursor": cursor, "more": read.more, "truncated": read.truncated}
        running = self._registry.peek(at.key)
        if running is not None and running.status is not None:
            answer["status"] = running.status
        if frame.rows:
            answer["data"] = msgspec.Raw(json.data(frame.fields))
            answer["first"] = read.first
        return msgspec.json.encode(answer)

    async def _read_after(self, at: ChannelRequest, after: int, upto: int | None) -> Read:
        span = HistoryRange(
            start=EARLIEST, end=LATEST, limit=REPLAY_ROWS + 1, after=after, upto=upto
        )
        page = await self.page(at, span)
        frame = await self._frame(at, page)
        column = _cursor(at)
        cursors = cursors_of(frame, column) if frame.rows else []
        if cursors and (cursors[0] <= after or (upto is not None and cursors[-1] > upto)):
            asked = f"{after} < {column} <= {upto if upto is not None else CURSOR_LIMIT}"
            raise TypeError(
                f"{at.stream.history} was asked for rows with {asked}, and gave {cursors[0]} to"
                f" {cursors[-1]}"
            )
        more = len(cursors) > REPLAY_ROWS
        if more:
            frame = table.slice_rows(frame, 0, REPLAY_ROWS)
            cursors = cursors[:REPLAY_ROWS]
        prev = cursors[0] - 1 if page.truncated and cursors else after
        last = cursors[-1] if cursors else after
        if not more and page.last is not None:
            last = max(last, page.last if upto is None else min(page.last, upto))
        first = cursors[0] if cursors else None
        return Read(frame, self._numbering(at, page.epoch), last, prev, first, page.truncated, more)

    async def _ring_after(self, at: ChannelRequest, after: int, upto: int | None) -> Read:
        ring = self.ring(at)
        kept = await ring.after(after, self._registry.loop.time(), upto)
        more = kept.last - kept.prev > REPLAY_ROWS
        last = kept.prev + REPLAY_ROWS if more else kept.last
        frame = table.slice_rows(await self._kept(at, kept), 0, last - kept.prev)
        return Read(frame, ring.epoch, last, kept.prev, kept.prev + 1, kept.truncated, more)

    async def _kept(self, at: ChannelRequest, kept: LogSlice) -> Frame:
        rows, schema = kept.last - kept.prev, self.encoder(at).schema
        if rows > INLINE_ROWS:
            frame = await anyio.to_thread.run_sync(table.join_packets, kept.packets, schema)
        else:
            frame = table.join_packets(kept.packets, schema)
        return table.slice_rows(frame, kept.skip, kept.skip + rows)

    # -- reading -------------------------------------------------------------------------------

    async def page(self, at: ChannelRequest, span: HistoryRange) -> HistoryPage:
        """What the history hook gives. Raises what it raises."""
        rows = await getattr(at.instance.source, str(at.stream.history))(span, **at.arguments)
        page = rows if isinstance(rows, HistoryPage) else HistoryPage(rows)
        if not isinstance(page.rows, Frame | Columns | Sequence):
            raise TypeError(
                f"{at.stream.history} returned {rows!r}; allowed: a Frame, Columns, a list of rows,"
                " a HistoryPage of one of them"
            )
        return page

    async def _frame(self, at: ChannelRequest, page: HistoryPage) -> Frame:
        return await frame_of(self.encoder(at), page.rows)

    def _numbering(self, at: ChannelRequest, name: str) -> str:
        return _numbering(at.instance.numbering, name)


@lru_cache(maxsize=1024)
def _numbering(settings: str, name: str) -> str:
    return f"{settings}{short_hash(name.encode())}"


def own(frame: Frame) -> Frame:
    """The same columns in a frame of ours: an author may keep a frame and answer twice with it."""
    return Frame(*frame.fields, name=frame.name, meta=frame.meta)


async def frame_of(encoder: RowEncoder, rows: "Frame | Columns[Any] | Sequence[Any]") -> Frame:
    """History's rows as a frame of ours, with the columns that the stream's packets have."""
    if isinstance(rows, Frame):
        return own(encoder.frame(rows))
    if (rows.rows if isinstance(rows, Columns) else len(rows)) <= INLINE_ROWS:
        return encoder.frame(rows)
    apart = encoder.copy()
    frame = await anyio.to_thread.run_sync(apart.frame, rows)
    encoder.adopt(apart)
    return frame


def _cursor(at: ChannelRequest) -> str:
    return str(at.stream.options.cursor)


def _last_of(at: ChannelRequest, frame: Frame, page: HistoryPage) -> int:
    found = max(cursors_of(frame, _cursor(at))) if frame.rows else -1
    return found if page.last is None else max(found, page.last)


def _schema(frame: Frame) -> Schema:
    body = json.schema(Frame(*frame.fields))
    return Schema(body, "")


def _ids(at: ChannelRequest, frame: Frame) -> dict[str, Any]:
    """Which column has the numbers."""
    if at.stream.options.cursor is None:
        return {}
    names = [field.name for field in frame.fields]
    return {"column": names.index(_cursor(at))} if _cursor(at) in names else {}
