"""Reads the rows of channels for exact panels: histories with a cursor, and rows after a cursor.

The rows of a stream with a cursor come from its history hook; those of a stream without one come
from the channel's log, which has the rows of this process. A frame and its cursor are of one read.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from msgspec.structs import replace

from aiostream_ds._author_threads import call_method
from aiostream_ds._channels.log import Log, LogSlice
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._encoding.cursor_encoder import has_lost_rows
from aiostream_ds._encoding.cursor_kinds import BEGINNING, CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import rows_of_history
from aiostream_ds._encoding.table_rows import history_rows
from aiostream_ds._encoding.values import VALUE_ERRORS
from aiostream_ds._encoding.yielded import copy_rows
from aiostream_ds._frames import frame_rows, json
from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.cursor import (
    column_conflict,
    cursor_object,
    exact_packet,
    short_hash,
    wire_epoch,
)
from aiostream_ds._frames.dataframes import is_table
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.packet import Schema
from aiostream_ds._frames.times import EPOCH
from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds._grafana.exact_delivery import (
    PacketEncoder,
    cursor_packet_encoder,
    log_packet_encoder,
)
from aiostream_ds._grafana.history_columns import COLUMNS_ROWS, HistoryColumns
from aiostream_ds._grafana.range_reading import (
    LIVE_FACTOR,
    DrawnRows,
    HistoryRead,
    RangeRows,
    draw_range,
    read_range,
)
from aiostream_ds._grafana.table_reading import INLINE_ROWS, read_table
from aiostream_ds._loggers import get_logger
from aiostream_ds._paths import channel as channel_name
from aiostream_ds._routing.plan import RESERVED_PATH
from aiostream_ds._short_repr import short_repr
from aiostream_ds._telemetry import Counters
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.errors import BadQuery, UpstreamError
from aiostream_ds.rows import Columns, Cursor, HistoryPage, HistoryRange

if TYPE_CHECKING:
    from aiostream_ds._cluster.shared_log import SharedLog
    from aiostream_ds._grafana.shared_streams import SharedStreams

__all__ = [
    "OPEN_END",
    "REPLAY_ROWS",
    "RowReplay",
    "copy_frame",
    "frame_of",
    "shared_streams",
]

log = get_logger(__name__)

REPLAY_ROWS = 5_000
"""Most rows in one answer of the resource `replay/rows`."""

_NUMBERS = CursorKind("")
"""The numbers of rows in a log: those of a stream whose rows have no cursor."""

EARLIEST = EPOCH
"""The start of the time range of a read by cursor: not every upstream system has earlier times."""

OPEN_END = timedelta(days=1)
"""How far an open range reaches into the future: the clock that stamps the rows may be fast."""


def shared_streams(request: ChannelRequest) -> "SharedStreams | None":
    """The cluster with which the stream is shared, if it is."""
    cluster: SharedStreams | None = request.instance.cluster
    if cluster is None or not cluster.shares(request):
        return None
    return cluster


class ReplayedRows(NamedTuple):
    """The rows of one read, with the range of cursors that they cover: prev < cursor <= last.

    `epoch` is the wire epoch without its columns, `first` the cursor of the first row. `truncated`:
    rows between the requested cursor and `first` are lost. `more`: there are rows after `last`.
    """

    frame: Frame
    epoch: str
    prev: int
    last: int
    first: int | None = None
    truncated: bool = False
    more: bool = False


class RowReplay:
    """Answers the queries and replay requests of exact panels, for the channels of one registry."""

    def __init__(self, registry: ChannelRegistry, counters: Counters) -> None:
        self._registry = registry
        self._counters = counters
        self._columns = HistoryColumns(registry)

    def log(self, request: ChannelRequest) -> Log:
        """The log of a channel whose rows have no cursor; created if there is none."""
        replay, instance = request.stream.options.replay, request.instance
        shared = shared_streams(request)
        make_log = None if shared is None else partial(shared.log, instance)
        return self._registry.open_log(request.key, replay, instance.generation, make_log)

    async def refreshed_log(self, request: ChannelRequest) -> Log:
        """The same, as it is now in the cluster."""
        found = self.log(request)
        await found.refresh()
        return found

    def schema(self, request: ChannelRequest) -> Schema | None:
        """The schema of the channel's next rows. That of a shared stream comes from its owner."""
        if shared_streams(request) is not None:
            running = self._registry.peek(request.key)
            if running is not None and running.schema is not None and running.schema.body:
                return running.schema
            if request.stream.options.cursor is None:
                read = cast("SharedLog", self.log(request)).schema
                if read is not None and read.body:
                    return read
        return self.row_encoder(request).schema

    def row_encoder(self, request: ChannelRequest) -> RowEncoder:
        """The encoder of the channel's packets and frames."""
        return request.instance.encoder(request.stream, request.path, self._counters)

    # -- subscriptions -------------------------------------------------------------------------

    async def newest_cursor(self, request: ChannelRequest) -> Cursor:
        """The cursor of the newest row of a stream with a cursor. Raises what the hook raises."""
        if request.stream.last is not None:
            return await self._ask_last(request, request.stream.last)
        page, frame = await self._read_newest(request)
        return Cursor(page.epoch, _last_cursor(request, frame, page))

    async def _read_newest(self, request: ChannelRequest) -> tuple[HistoryPage, Frame]:
        """The newest row; with those before it if the columns are unknown, unless the rows cannot
        be in one table. Raises what the hook raises."""
        if self.schema(request) is None:
            page = await self.read_history(request, _any_time(limit=COLUMNS_ROWS))
            with suppress(*VALUE_ERRORS):
                return page, await self._frame(request, page)
        page = await self.read_history(request, _any_time(limit=1))
        return page, await self._frame(request, page)

    async def learn_columns(self, request: ChannelRequest) -> None:
        """Read the newest rows of a stream with a cursor if its columns are not known and nothing
        else has to read them: the epoch covers the columns, and a panel that gets another epoch
        loads its history again. See `HistoryColumns.read`."""
        if request.stream.options.cursor is None:
            return
        if request.stream.last is None and shared_streams(request) is None:
            return  # the run reads them
        await self._columns.read(
            request.key,
            lambda: self._read_newest(request),
            lambda: self.schema(request) is not None,
        )

    async def _ask_last(self, request: ChannelRequest, name: str) -> Cursor:
        last = await call_method(request.instance.source, name, **request.arguments)
        if last is None:
            return Cursor("", BEGINNING)
        kind = _kind(request)
        if isinstance(last, Cursor):
            return kind.cursor_from_author(last)
        try:
            return Cursor("", kind.from_author(last, f"what {name} returns"))
        except TypeError as error:
            raise TypeError(f"{name} must return a Cursor, its value or None: {error}") from None

    async def initial_data(self, request: ChannelRequest) -> bytes:
        """The initial data of a subscription to an exact channel: a packet with the newest cursor.

        Empty when the log cannot be read: the subscription is accepted all the same.
        """
        if request.stream.options.cursor is None:
            row_log = await self.refreshed_log(request)
            epoch, last = row_log.epoch, row_log.last
        else:
            running = self._registry.peek(request.key)
            cursors = running.cursors if running is not None else None
            if cursors is not None:
                author_epoch, last = cursors.epoch, cursors.last
            else:
                try:
                    author_epoch, last = await self.newest_cursor(request)
                except UpstreamError as error:
                    log.warning("%s: the newest cursor is unknown: %s", request.path, error)
                    return b""
            epoch = _settings_epoch(request, author_epoch)
            await self.learn_columns(request)
        shown = _kind(request).to_wire(last)
        return exact_packet(cursor_object(wire_epoch(epoch, self.schema(request)), shown, shown))

    def packet_encoder(self, request: ChannelRequest, subscription: Subscription) -> PacketEncoder:
        """The encoder of an exact channel's packets, for a subscription that was just made."""
        encoder = self.row_encoder(request)
        schema: Callable[[], Schema | None] = lambda: encoder.schema  # noqa: E731
        running = self._registry.peek(request.key)
        current = running.cursors if running is not None else None
        if shared_streams(request) is not None:
            schema = partial(self.schema, request)
            if request.stream.options.cursor is None:
                return cursor_packet_encoder(wire_epoch, _NUMBERS, current, schema)
        elif request.stream.options.cursor is None:
            return log_packet_encoder(self.log(request), subscription, schema)
        return cursor_packet_encoder(
            lambda epoch, schema: wire_epoch(_settings_epoch(request, epoch), schema),
            _kind(request),
            current,
            schema,
        )

    # -- queries -------------------------------------------------------------------------------

    async def history(self, request: ChannelRequest, history_range: HistoryRange) -> DrawnRows:
        """The rows of a time range; of a stream without a history hook those in the log."""
        if request.stream.history is not None:
            drawn = (await self._read_range(request, history_range)).drawn
            self._check_columns(request, drawn.frame, _schema_of(drawn.frame))
            return drawn
        if self._registry.has_log(request.key) or shared_streams(request) is not None:
            row_log = await self.refreshed_log(request)
            rows = await row_log.after(row_log.first - 1, self._registry.loop.time())
            return await self._draw_log(request, rows, history_range)
        return DrawnRows(self.row_encoder(request).frame([]), False, False)

    async def exact_history(
        self, request: ChannelRequest, history_range: HistoryRange
    ) -> tuple[Frame, dict[str, Any]]:
        """The rows of a time range, and the object `meta.custom.cursor`."""
        others: dict[str, Any] = {}
        if request.stream.options.cursor is None:
            row_log = await self.refreshed_log(request)
            rows = await row_log.after(row_log.first - 1, self._registry.loop.time())
            drawn = await self._draw_log(request, rows, history_range)
            epoch, last = row_log.epoch, rows.last
            schema = _schema_of(drawn.frame)
        else:
            drawn, author_epoch, last = await self._history_range(request, history_range)
            epoch = _settings_epoch(request, author_epoch)
            schema = _schema_of(drawn.frame)
            self._check_columns(request, drawn.frame, schema)
            others = {"upstream": request.instance.settings_digest}
        if drawn.can_thin:
            others["thinned"] = LIVE_FACTOR
        uid = request.instance.source.instance.uid
        cursor: dict[str, Any] = {
            "channel": channel_name(uid, f"{RESERVED_PATH}/{request.path}"),
            "epoch": wire_epoch(epoch, schema),
            "last": _kind(request).to_wire(last),
        }
        return drawn.frame, cursor | others | _cursor_column(request, drawn.frame)

    async def _history_range(
        self, request: ChannelRequest, history_range: HistoryRange
    ) -> tuple[DrawnRows, str, int]:
        """The rows of a range, the author's epoch, and the cursor up to which they are complete."""
        drawn, page, last = await self._read_range(request, history_range)
        if not drawn.frame.rows and page.last is None:
            # An empty range has no cursor. Read the newest one first, then the range again: rows
            # that were written between the two are in the range.
            before = await self.newest_cursor(request)
            drawn, page, last = await self._read_range(request, history_range)
            if not drawn.frame.rows and page.epoch == before.epoch:
                return drawn, page.epoch, before.value
        return drawn, page.epoch, last if page.last is None else max(last, page.last)

    async def _read_range(self, request: ChannelRequest, wanted: HistoryRange) -> RangeRows:
        async def read_page(history_range: HistoryRange) -> HistoryRead:
            page = await self.read_history(request, history_range)
            frame = await self._frame(request, page)
            count = page.rows.rows if isinstance(page.rows, Columns | Frame) else len(page.rows)
            return HistoryRead(page, frame, max(count, frame.rows))

        return await read_range(read_page, wanted, request.stream.cursor)

    async def _draw_log(
        self, request: ChannelRequest, rows: LogSlice, history_range: HistoryRange
    ) -> DrawnRows:
        start, end = history_range.start.timestamp() * 1000, history_range.end.timestamp() * 1000
        frame = frame_rows.rows_between(await self._decode(request, rows), start, end)
        return await draw_range(frame, history_range)

    # -- rows after a cursor -------------------------------------------------------------------

    async def rows_after(self, request: ChannelRequest, after: str, upto: str | None) -> bytes:
        """The JSON answer of the resource `replay/rows`; the cursors are as on the wire.

        Raises BadQuery for invalid cursors, and what the history hook raises.
        """
        kind = _kind(request)
        start = _from_wire(kind, "after", after)
        end = None if upto is None else _from_wire(kind, "upto", upto)
        if end is not None and end < start:
            raise BadQuery(f"upto must be at least after = {after}, got {upto}")
        if request.stream.options.cursor is None:
            rows = await self._log_after(request, start, end)
        else:
            rows = await self._history_after(request, start, end)
        frame = rows.frame
        epoch = wire_epoch(rows.epoch, _schema_of(frame))
        cursor: dict[str, Any] = {
            "epoch": epoch,
            "prev": kind.to_wire(rows.prev),
            "last": kind.to_wire(rows.last),
        }
        answer: dict[str, Any] = {
            "cursor": cursor | _cursor_column(request, frame),
            "more": rows.more,
            "truncated": rows.truncated,
        }
        running = self._registry.peek(request.key)
        if running is not None and running.status is not None:
            answer["status"] = running.status
        if frame.rows:
            answer["data"] = msgspec.Raw(json.data(frame.fields))
            answer["first"] = None if rows.first is None else kind.to_wire(rows.first)
        return msgspec.json.encode(answer)

    async def read_after(
        self, request: ChannelRequest, after: int, limit: int, upto: int | None = None
    ) -> HistoryPage:
        """The oldest `limit` rows after a cursor, from the history hook. Raises what it raises."""
        return await self.read_history(request, _any_time(limit=limit, after=after, upto=upto))

    async def _history_after(
        self, request: ChannelRequest, after: int, upto: int | None
    ) -> ReplayedRows:
        page = await self.read_after(request, after, REPLAY_ROWS + 1, upto)
        frame = await self._frame(request, page)
        if not frame.rows and not frame.fields:
            await self.learn_columns(request)
            frame = await self._frame(request, page)
        kind = _kind(request)
        cursors = kind.of_block(frame) if frame.rows else []
        count = page.rows.rows if isinstance(page.rows, Columns | Frame) else len(page.rows)
        if cursors and (cursors[0] <= after or (upto is not None and cursors[-1] > upto)):
            bounds = (after, kind.limit - 1 if upto is None else upto, cursors[0], cursors[-1])
            low, high, first, last = map(kind.to_author, bounds)
            raise TypeError(
                f"{request.stream.history} must return rows with {low} <"
                f" {', '.join(kind.columns)} <= {high}, got {first} to {last}"
            )
        more = count > REPLAY_ROWS  # of series, several rows may be one
        if len(cursors) > REPLAY_ROWS:
            frame = frame_rows.slice_rows(frame, 0, REPLAY_ROWS)
            cursors = cursors[:REPLAY_ROWS]
        truncated = has_lost_rows(page, after, cursors)
        prev = cursors[0] - 1 if truncated and cursors else after
        last = cursors[-1] if cursors else after
        if not more and page.last is not None:
            last = max(last, page.last if upto is None else min(page.last, upto))
        first = cursors[0] if cursors else None
        epoch = _settings_epoch(request, page.epoch)
        return ReplayedRows(frame, epoch, prev, last, first, truncated, more)

    async def _log_after(
        self, request: ChannelRequest, after: int, upto: int | None
    ) -> ReplayedRows:
        row_log = await self.refreshed_log(request)
        rows = await row_log.after(after, self._registry.loop.time(), upto)
        more = rows.last - rows.prev > REPLAY_ROWS
        last = rows.prev + REPLAY_ROWS if more else rows.last
        frame = frame_rows.slice_rows(await self._decode(request, rows), 0, last - rows.prev)
        return ReplayedRows(
            frame, row_log.epoch, rows.prev, last, rows.prev + 1, rows.truncated, more
        )

    async def _decode(self, request: ChannelRequest, rows: LogSlice) -> Frame:
        count, schema = rows.last - rows.prev, self.schema(request)
        if count > INLINE_ROWS:
            frame = await run_in_thread(frame_rows.join_packets, rows.packets, schema)
        else:
            frame = frame_rows.join_packets(rows.packets, schema)
        return frame_rows.slice_rows(frame, rows.skip, rows.skip + count)

    # -- the history hook ----------------------------------------------------------------------

    async def read_history(
        self, request: ChannelRequest, history_range: HistoryRange
    ) -> HistoryPage:
        """Call the history hook. Raises what it raises, and TypeError for another result."""
        hook, kind = str(request.stream.history), _kind(request)
        if request.stream.options.store is not None:
            return await request.instance.source.row_store.history(request.path, history_range)
        result = await call_method(
            request.instance.source,
            hook,
            kind.range_to_author(history_range),
            **request.arguments,
        )
        page = result if isinstance(result, HistoryPage) else HistoryPage(result)
        total = page.total
        if total is not None and (type(total) is not int or total < 0):
            raise TypeError(
                f"{hook}: HistoryPage.total must be an int of at least 0, got {short_repr(total)}"
            )
        page = kind.page_from_author(page)
        if is_table(type(page.rows)):
            threads = request.instance.source.threads
            return replace(page, rows=await read_table(history_rows, page.rows, threads))
        try:
            rows = rows_of_history(page.rows)
        except TypeError as error:
            raise TypeError(f"{request.stream.history}: {error}") from None
        return replace(page, rows=rows)

    def _check_columns(self, request: ChannelRequest, frame: Frame, schema: Schema) -> None:
        """Report a history that cannot be joined with the live rows: a notice, and one log line."""
        running = self._registry.peek(request.key)
        sent = running.schema if running is not None else None
        if sent is None or not sent.body or not frame.rows:
            return
        encoder = self.row_encoder(request)
        conflict = column_conflict(schema, encoder.live_schema(sent))
        if conflict is None:
            return
        frame_rows.add_notices(frame, [Notice(severity="warning", text=f"{conflict}.")])
        if not encoder.has_column_conflict:
            encoder.has_column_conflict = True
            log.warning("%s, %s: %s", request.path, request.stream.history, conflict)

    async def _frame(self, request: ChannelRequest, page: HistoryPage) -> Frame:
        frame = await frame_of(self.row_encoder(request), page.rows)
        frame_rows.add_notices(frame, page.notices)
        return frame


def _any_time(limit: int, after: int | None = None, upto: int | None = None) -> HistoryRange:
    end = datetime.now(UTC) + OPEN_END
    return HistoryRange(start=EARLIEST, end=end, limit=limit, after=after, upto=upto)


def copy_frame(frame: Frame) -> Frame:
    """A new frame with the same fields: an author may return the same frame object twice."""
    copy = Frame(name=frame.name, meta=frame.meta)
    copy.fields = frame.fields  # they were checked
    return copy


async def frame_of(encoder: RowEncoder, rows: "Frame | Columns[Any] | Sequence[Any]") -> Frame:
    """A history's rows as a new frame, with the columns of the stream's packets."""
    if isinstance(rows, Frame):
        return copy_frame(encoder.frame(rows))
    if (rows.rows if isinstance(rows, Columns) else len(rows)) <= INLINE_ROWS:
        return encoder.frame(rows)
    if isinstance(rows, list):
        rows = copy_rows(rows)  # the author may change them meanwhile
    thread_encoder = encoder.copy()
    frame = await run_in_thread(thread_encoder.frame, rows)
    encoder.adopt(thread_encoder)
    return frame


def _settings_epoch(request: ChannelRequest, author_epoch: str) -> str:
    """The wire epoch without its columns: it covers the settings and the author's epoch."""
    return _join_epochs(request.instance.settings_digest, author_epoch)


@lru_cache(maxsize=1024)
def _join_epochs(settings: str, author_epoch: str) -> str:
    return f"{settings}{short_hash(author_epoch.encode())}"


def _kind(request: ChannelRequest) -> CursorKind:
    """The kind of the channel's cursors: of its rows, or of their numbers in its log."""
    return request.stream.cursor or _NUMBERS


def _from_wire(kind: CursorKind, name: str, text: str) -> int:
    try:
        return kind.from_wire(text)
    except ValueError as error:
        raise BadQuery(f"{name} {error}, got {text[:40]!r}") from None


def _last_cursor(request: ChannelRequest, frame: Frame, page: HistoryPage) -> int:
    last = max(_kind(request).of_block(frame)) if frame.rows else BEGINNING
    return last if page.last is None else max(last, page.last)


def _schema_of(frame: Frame) -> Schema:
    return Schema(json.schema(Frame(*frame.fields)), "")


def _cursor_column(request: ChannelRequest, frame: Frame) -> dict[str, Any]:
    """The key `column` of a cursor object: the index of each column that holds the cursors."""
    kind = request.stream.cursor
    names = [field.name for field in frame.fields]
    if kind is None or not set(kind.columns) <= set(names):
        return {}
    return {"column": kind.indexes(names)}
