"""The source `redis`: streams, channels and keyspace events of Redis or Valkey."""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from heapq import merge as merge_sorted
from operator import itemgetter
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
from msgspec import Meta

from aiostream_ds._channels.policy import Retry, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import Notice
from aiostream_ds._redis.redis_connection import MissingRight
from aiostream_ds._redis.servers import Call, keep_fresh
from aiostream_ds._telemetry import current_counters
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import BadQuery, UpstreamError
from aiostream_ds.models import Health
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.decoding import MessageDecoder, MessageErrors, with_labels
from aiostream_ds.sources.event_lag import KnownLags
from aiostream_ds.sources.gaps import Gaps
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus
from aiostream_ds.sources.redis.entry_reader import EntryBatch
from aiostream_ds.sources.redis.entry_rows import ID_COLUMNS, EntryRows
from aiostream_ds.sources.redis.history import newest_rows, rows_after
from aiostream_ds.sources.redis.live_entries import live_entries
from aiostream_ds.sources.redis.positions import BEGINNING, Change, Id, Position, read_info
from aiostream_ds.sources.redis.pubsub import PublishedMessage, PubSub, PubSubKey, keyspace
from aiostream_ds.sources.redis.redis_health import (
    check_server,
    events_warning,
    keyspace_warning,
)
from aiostream_ds.sources.redis.redis_names import (
    channel_names,
    escape_glob,
    patterns_of,
    stream_names,
)
from aiostream_ds.sources.redis.redis_settings import RedisSettings, servers_of
from aiostream_ds.sources.redis.resumption import Resumption
from aiostream_ds.sources.redis.stream_set import STREAMS, StreamSet, split_names

__all__ = ["Redis"]

EXPAND = 10.0
"""Seconds between two searches for new streams that match a pattern."""

SEARCH_SHARE = 20
"""How many times as long as a search the time until the next one is at least."""

POSITIONS = 1_000
"""Streams whose last position is remembered, to count entries that are trimmed."""

StreamName = Annotated[str, Meta(description="The key of the stream, such as orders:eu")]
StreamNames = Annotated[
    str,
    Meta(description="Keys of streams with commas between them, or patterns such as sensors:*"),
]
ChannelName = Annotated[str, Meta(description="The name of the channel, such as news:eu")]
ChannelPattern = Annotated[str, Meta(description="A pattern of channels, such as news:*")]
KeyPattern = Annotated[str, Meta(description="A pattern of keys, such as user:*; * for all")]


class Redis(DataSource[RedisSettings]):
    """Streams, channels and keyspace events of Redis or Valkey.

    Query types: `entries` with the field `stream`, the key of a stream: history and exact panels.
    `streams` with the field `streams`: several streams as series. `channel`, `pattern` and `keys`
    with fields of these names: what is published to a channel, to all channels that match a
    pattern, and the keyspace events of keys.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "entries": {"event_time": True},
        "streams": {"event_time": True, "resume": True},
        "channel": {"event_time": "if messages have one"},
        "pattern": {"event_time": "if messages have one"},
    }

    def __init__(self) -> None:
        self.errors = MessageErrors()
        self._positions: OrderedDict[str, Position] = OrderedDict()
        self._lags = KnownLags()
        self._resets: dict[str, int] = {}
        self._resume: Resumption[StreamSet] = Resumption()
        self._gaps = Gaps("Redis keeps nothing of what it publishes")
        self._lost_entries = 0

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Nothing is connected before it is needed."""
        MessageDecoder(self.settings, self.errors)  # raises for invalid settings
        self._servers = await anyio.to_thread.run_sync(
            servers_of, self.settings, limiter=self.threads
        )
        if not self._servers.is_fixed:
            self.tasks.start_soon(keep_fresh, self._servers)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._servers.close)
            self._pubsub = await stack.enter_async_context(PubSub(self._servers))
            self._events = self._pubsub
            if self._servers.has_several_primaries:
                events = PubSub(self._servers, every_primary=True)
                self._events = await stack.enter_async_context(events)
            yield

    # -- one stream ----------------------------------------------------------------------------

    @stream(
        "entries/{stream:any}",
        cursor=ID_COLUMNS,
        retry=Retry(fill=False),
        schema=SchemaPolicy(conflict="null"),
    )
    async def entries(
        self, after: Cursor[Id], stream: StreamName
    ) -> Rows[dict[str, Any] | list[dict[str, Any]] | Cursor[Id] | Status]:
        """The entries of a stream after a cursor; waits for a stream that does not exist yet."""
        rows, status = EntryRows(self.settings, self.errors, series=False), PanelStatus()
        key = stream.encode()
        position = self._position(stream, after.value)
        async with live_entries(self._servers, {key: position}) as batches:
            async for found in batches:
                for batch in found:
                    self._show(batch, stream, status)
                    if batch.change is not None and batch.change.is_reset:
                        self._resets[stream] = self._resets.get(stream, 0) + 1
                        yield Cursor(self._epoch(stream), position.id)
                    elif batch.change is not None and batch.change.upto is not None:
                        # a gap in the rows, which exact panels ask the history about
                        yield Cursor(self._epoch(stream), batch.change.upto)
                    if batch.entries:
                        yield rows.with_ids(stream, batch.entries)
                status.set("decoding", rows.status)
                if (changed := status.change()) is not None:
                    yield changed

    @entries.last
    async def newest_id(self, stream: str) -> Cursor[Id]:
        """The id of the newest entry."""
        info = await read_info(self._call(stream), stream.encode())
        return Cursor(self._epoch(stream), BEGINNING if info is None else info.last)

    @entries.history
    async def entries_history(self, span: HistoryRange[Id], stream: str) -> HistoryPage[Id]:
        """The entries of a time range, by the times of their ids, or those after an id."""
        call, key = self._call(stream), stream.encode()
        bad = self.errors.messages
        rows = EntryRows(self.settings, self.errors, series=False)
        decode = partial(rows.with_ids, stream)
        is_truncated = False
        if span.after is None:
            lag = self._lags.of(stream)
            found = await newest_rows(call, key, span, decode, lag)
            self._lags.add(stream, rows.lag)
        else:
            found = await rows_after(call, key, span.after, span, decode)
            is_truncated = await self._is_truncated(stream, span.after)
        notices = [*found.notices, *self._new_errors(bad)]
        if found.last is None and await read_info(call, key) is None:
            notices.append(_warning(f"no stream {stream!r} yet; rows appear when it exists"))
        return HistoryPage(
            found.rows,
            epoch=self._epoch(stream),
            truncated=is_truncated,
            last=found.last,
            notices=tuple(notices),
        )

    @entries.suggest("stream")
    async def suggest_streams(self, typed: str) -> list[str]:
        """The keys of streams that contain the typed text."""
        return await stream_names(self._servers, f"*{escape_glob(typed)}*")

    # -- several streams -----------------------------------------------------------------------

    @stream(
        "streams/{streams:any}",
        schema=SchemaPolicy(conflict="null", labels=("stream",), columns=1_000),
    )
    async def streams(self, streams: StreamNames) -> Rows[list[dict[str, Any]] | Status]:
        """The entries of several streams, each a series. After an outage it goes on after the last
        entries that were read."""
        rows, status = EntryRows(self.settings, self.errors), PanelStatus()
        selected = self._resume.take(streams) or StreamSet(self._servers, split_names(streams))
        try:
            while True:
                await selected.update()
                status.set("refused", _refused(selected))
                async with aclosing(self._read_set(selected)) as batches:
                    async for batch in batches:
                        if batch is not None:
                            name = batch.key.decode()
                            self._show(batch, name, status)
                            if batch.entries and (new := rows.with_name(name, batch.entries)):
                                yield new
                        status.set("decoding", rows.status)
                        if (changed := status.change()) is not None:
                            yield changed
        except (BadQuery, MissingRight) as error:  # of one key: the next run leaves it out
            self._resume.keep(streams, selected)
            raise UpstreamError(error.message) from error
        except UpstreamError:
            self._resume.keep(streams, selected)
            raise

    async def _read_set(self, selected: StreamSet) -> AsyncGenerator[EntryBatch | None]:
        """What is read until there are other streams to read; None now and then."""
        if not selected.positions:
            yield None
            await anyio.sleep(EXPAND)
            return
        search_at = anyio.current_time() + EXPAND
        async with live_entries(self._servers, selected.positions) as found:
            async for batches in found:
                for batch in batches:
                    yield batch
                yield None
                now = anyio.current_time()
                if now >= search_at:
                    if await selected.update():
                        return
                    search_at = now + max(EXPAND, SEARCH_SHARE * (anyio.current_time() - now))

    @streams.history
    async def streams_history(self, span: HistoryRange, streams: str) -> HistoryPage:
        """The newest entries of all streams in a time range, in order of time."""
        bad = self.errors.messages
        selected = StreamSet(self._servers, split_names(streams))
        rows: list[dict[str, Any]] = []
        notices: list[Notice] = []
        for name in await selected.keys():
            key = name.encode()
            new = EntryRows(self.settings, self.errors)
            decode, lag = partial(new.with_name, name), self._lags.of(name)
            try:
                found = await newest_rows(self._servers.caller(key), key, span, decode, lag)
            except (BadQuery, MissingRight) as error:
                notices.append(_warning(error.message))
                continue
            self._lags.add(name, new.lag)
            rows = list(merge_sorted(rows, found.rows, key=_time))[-span.limit :]
            notices += found.notices
        if selected.is_cut:
            notices.append(_warning(_CUT))
        notices += self._new_errors(bad)
        return HistoryPage(rows, notices=tuple(notices))

    @streams.suggest("streams")
    async def suggest_several(self, typed: str) -> list[str]:
        """Keys of streams and patterns, for the last one that is typed."""
        before, comma, last = typed.rpartition(",")
        names = await self.suggest_streams(last.strip())
        return [f"{before}{comma}{name}" for name in (*patterns_of(names), *names)]

    # -- what is published ---------------------------------------------------------------------

    @stream("channel/{channel:any}", schema=SchemaPolicy(conflict="null"))
    async def channel(self, channel: ChannelName) -> Rows[list[dict[str, Any]] | Status]:
        """What is published to a channel from now on."""
        decoder = MessageDecoder(self.settings, self.errors)

        def decode(message: PublishedMessage) -> list[dict[str, Any]]:
            return decoder.rows(message.payload, received=message.received, address=channel)

        async with aclosing(self._published(PubSubKey(channel), decode, decoder)) as found:
            async for rows in found:
                yield rows

    @channel.suggest("channel")
    async def suggest_channels(self, typed: str) -> list[str]:
        """Channels that have subscribers and contain the typed text."""
        return await channel_names(self._servers, f"*{escape_glob(typed)}*")

    @stream(
        "pattern/{pattern:any}",
        schema=SchemaPolicy(conflict="null", labels=("channel",), columns=1_000),
    )
    async def pattern(self, pattern: ChannelPattern) -> Rows[list[dict[str, Any]] | Status]:
        """What is published to all channels that match a pattern; each channel is a series."""
        decoder = MessageDecoder(self.settings, self.errors)

        def decode(message: PublishedMessage) -> list[dict[str, Any]]:
            name = message.channel.decode(errors="replace")
            return decoder.rows(message.payload, {"channel": name}, message.received, address=name)

        key = PubSubKey(pattern, is_pattern=True)
        async with aclosing(self._published(key, decode, decoder)) as found:
            async for rows in found:
                yield rows

    @pattern.suggest("pattern")
    async def suggest_patterns(self, typed: str) -> list[str]:
        """Patterns of channels that have subscribers."""
        return patterns_of(await self.suggest_channels(typed.rstrip("*")))

    @stream("keys/{keys:any}", schema=SchemaPolicy(conflict="text"))
    async def keys(self, keys: KeyPattern) -> Rows[list[dict[str, Any]] | Status]:
        """The keyspace events of the keys that match a pattern: the key and the event."""
        start = len(f"__keyspace@{self.settings.database}__:")

        def decode(message: PublishedMessage) -> list[dict[str, Any]]:
            key, event = message.channel[start:], message.payload
            row = {"time": message.received, "key": _text(key), "event": _text(event)}
            return [row]

        key = keyspace(self.settings.database, keys)
        warning = await keyspace_warning(self._servers)
        async with aclosing(self._published(key, decode, warning=warning)) as found:
            async for rows in found:
                yield rows

    async def _published(
        self,
        key: PubSubKey,
        decode: Callable[[PublishedMessage], list[dict[str, Any]]],
        decoder: MessageDecoder | None = None,
        warning: str = "",
    ) -> AsyncGenerator[list[dict[str, Any]] | Status]:
        """The rows of what is published, with the status of gaps and bad messages; until the first
        message also a warning."""
        status = PanelStatus()
        status.set("warning", Status("warning", warning))
        pubsub = self._events if key.is_event else self._pubsub
        is_subscribed = False
        try:
            async with pubsub.follow(key) as messages:
                is_subscribed = True
                if (gap := self._gaps.end(str(key))) is not None:
                    status.set("gap", Status("warning", gap.text), SHOWN)
                if (changed := status.change()) is not None:
                    yield changed
                while True:
                    message = await status.next_message(messages)
                    if message is not None:
                        if not status.is_empty:
                            status.set("warning", Status())
                        if rows := decode(message):
                            yield rows
                    if decoder is not None:
                        status.set("decoding", decoder.status())
                    if (changed := status.change()) is not None:
                        yield changed
        except UpstreamError:
            self._gaps.begin(str(key), pubsub.received_until if is_subscribed else None)
            raise

    # -- Save & test ---------------------------------------------------------------------------

    async def health(self) -> Health:
        """Dial, log in and try the commands; report what the source can do and what is missing."""
        check = await check_server(self._servers)
        problems = []
        if check.missing:
            listed = "; ".join(f"{name} ({what})" for name, what in check.missing.items())
            problems.append(f"{self._servers.login.shown} lacks rights: {listed}")
        if check.events is not None and (warning := events_warning(check.events)):
            problems.append(warning)
        problems += [self.errors.text(), self._gaps.text()]
        if self._lost_entries:
            problems.append(f"{self._lost_entries:,} entries were removed before they were read")
        details = {
            "missing": check.missing,
            "notify_keyspace_events": check.events,
            "gaps": self._gaps.details(),
            "entries_lost": self._lost_entries,
            **self.errors.details(),
        }
        is_usable = not {"XREAD", "SUBSCRIBE"} <= check.missing.keys()
        more = _abilities(type(self))
        tls = "with" if self.settings.tls else "without"
        return health_report([f"{check.text} {tls} TLS"], problems, more, details, ok=is_usable)

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings) if stream in _LABELLED else declared

    # -- helpers -------------------------------------------------------------------------------

    def _call(self, stream: str) -> Call:
        return self._servers.caller(stream.encode())

    def _epoch(self, stream: str) -> str:
        """The name of the numbering of a stream's ids."""
        resets = self._resets.get(stream, 0)
        return str(resets) if resets else ""

    def _position(self, stream: str, id: Id) -> Position:
        """Where a run starts: with the count of entries, if the last run ended there."""
        known = self._positions.pop(stream, None)
        position = Position(id, known.added if known is not None and known.id == id else None)
        self._positions[stream] = position
        while len(self._positions) > POSITIONS:
            self._positions.popitem(last=False)
        return position

    async def _is_truncated(self, stream: str, after: Id) -> bool:
        """Whether entries after an id were removed."""
        info = await read_info(self._call(stream), stream.encode())
        if info is None or info.last <= after or (info.first is not None and info.first <= after):
            return False
        if info.added is not None:
            known = self._positions.get(stream)
            if after == BEGINNING:
                return info.added > info.length
            if known is not None and known.id == after and known.added is not None:
                return info.added - info.length != known.added
        return after != BEGINNING

    def _show(self, batch: EntryBatch, name: str, status: PanelStatus) -> None:
        """Set the status that follows from a batch."""
        if batch.is_missing:
            text = f"no stream {name!r} yet; rows appear when it exists"
            status.set(f"missing {name}", Status("info", text))
        elif not status.is_empty:
            status.set(f"missing {name}", Status())
        if batch.change is not None:
            counters, lost = current_counters(), batch.change.lost or 0
            counters.gaps += 1
            counters.rows_missing += lost
            self._lost_entries += lost
            status.set(f"lost {name}", Status("warning", _lost(batch.change, name)), SHOWN)

    def _new_errors(self, before: int) -> list[Notice]:
        """The notice of bad messages, if there are more than before."""
        notice = self.errors.notice() if self.errors.messages > before else None
        return [] if notice is None else [notice]


_CUT = f"more than {STREAMS} streams match; the first {STREAMS} are read"


def _abilities(kind: type[Redis]) -> list[str]:
    """What the query types can do, for each different answer."""
    found: dict[str, list[str]] = {}
    for name, can in stream_capabilities(kind).items():
        found.setdefault(can.text(), []).append(name)
    return [f"{', '.join(names)} {text}" for text, names in found.items()]


_LABELLED = frozenset({"streams", "channel", "pattern"})
"""The streams whose rows get the labels of the settings; one with a cursor has no labels."""

_time = itemgetter("time")


def _refused(selected: StreamSet) -> Status:
    parts = [f"{name}: {why}" for name, why in selected.refused.items()]
    if selected.is_cut:
        parts.append(_CUT)
    return Status("warning", "; ".join(parts))


def _lost(change: Change, name: str) -> str:
    if change.is_reset:
        return f"the ids of {name!r} restarted: its newest entries are gone"
    if change.lost is None:
        return f"entries of {name!r} may be missing: the stream was trimmed or made again"
    return f"{change.lost:,} entries of {name!r} were removed before they were read"


def _warning(text: str) -> Notice:
    return Notice(severity="warning", text=text)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
