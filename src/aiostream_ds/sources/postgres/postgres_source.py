"""The source `postgres`: tables that grow, by an increasing key, and payloads of NOTIFY."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import anyio
from msgspec import Meta

from aiostream_ds._channels.policy import Buffer, Retry, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import ConfigError, NotFound, UpstreamError
from aiostream_ds.models import Health, User
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange
from aiostream_ds.sources.capabilities import DeclaredCapabilities
from aiostream_ds.sources.decoding import MessageDecoder, MessageErrors, with_labels
from aiostream_ds.sources.gaps import Gaps
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus
from aiostream_ds.sources.postgres.database import Database
from aiostream_ds.sources.postgres.filters import filter_text, read_filter
from aiostream_ds.sources.postgres.keys import Pair
from aiostream_ds.sources.postgres.listener import (
    NotificationListener,
    Wakeups,
    check_channels,
)
from aiostream_ds.sources.postgres.postgres_settings import PostgresSettings
from aiostream_ds.sources.postgres.save_and_test import check_source
from aiostream_ds.sources.postgres.statements import CURSOR_COLUMNS
from aiostream_ds.sources.postgres.table_error import retried
from aiostream_ds.sources.postgres.table_reader import TableReader
from aiostream_ds.sources.postgres.table_run import TableRun

__all__ = ["Postgres"]

EXAMPLE_ROWS = 10_000
"""Newest rows whose values are suggested for filters."""

HEALTH_TIMEOUT = 20.0
"""Seconds that "Save & test" may take: Grafana waits for half a minute."""

SLOW = 5.0
"""Seconds after which a panel shows that the server has not answered yet."""

Row = dict[str, Any]

TableName = Annotated[str, Meta(description="A name in the setting tables")]
Filter = Annotated[
    str | None,
    Meta(description="Only rows with these values, as site=paris&device=7"),
]
ChannelName = Annotated[str, Meta(description="A channel of NOTIFY in the setting channels")]


class Postgres(DataSource[PostgresSettings]):
    """Tables and notifications of PostgreSQL.

    Query type `rows`, fields `table`, a name in the settings, and `filter`, such as `site=paris`;
    query type `notifications`, field `channel`.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "rows": {"event_time": True, "resume": "exact with a transaction column"},
        "notifications": {"event_time": "of payloads with a time"},
    }

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Check the settings. Connections are opened when they are first needed."""
        settings = self.settings
        self._errors = MessageErrors()
        self._gaps = Gaps("PostgreSQL keeps no notifications")
        MessageDecoder(settings, self._errors)  # checks its settings
        async with (
            Database(settings).opened() as self._database,
            NotificationListener(self._database, settings) as self._listener,
            anyio.create_task_group() as tasks,
        ):
            self._wakeups = Wakeups(self._listener, tasks)
            self._readers = {
                name: TableReader(name, table, self._database, settings, self.threads)
                for name, table in settings.tables.items()
            }
            self._check_names()
            yield
            tasks.cancel_scope.cancel()

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings) if stream == "notifications" else declared

    def _check_names(self) -> None:
        for name in self.settings.tables:
            if Postgres.rows.pattern.match(f"rows/{name}/-") is None:
                raise ConfigError(
                    f"tables: a name must have letters, digits and _ - = . only, got {name!r}"
                )
        check_channels(self.settings)

    async def health(self) -> Health:
        """Connect, read each table, listen, and list the tables that the role may read."""
        try:
            with anyio.fail_after(HEALTH_TIMEOUT):
                return await check_source(
                    self.settings,
                    self._database,
                    self._readers,
                    self._listener,
                    self._wakeups,
                    self._errors,
                    self._gaps,
                )
        except TimeoutError:
            settings = self.settings
            raise UpstreamError(
                f"PostgreSQL {settings.host}:{settings.port} has not answered all questions within"
                f" {HEALTH_TIMEOUT:g} s"
            ) from None

    # -- tables --------------------------------------------------------------------------------

    @stream(
        "rows/{table}/{filter:any?}",
        cursor=CURSOR_COLUMNS,
        retry=Retry(fill=False, max_delay=10.0),
        schema=SchemaPolicy(conflict="text"),
        buffer=Buffer(full="block"),  # the rows wait in the table
    )
    async def rows(
        self, after: Cursor[Pair], table: TableName, filter: Filter = None
    ) -> Rows[list[Row] | Cursor[Pair] | Status]:
        """The rows of a table as it grows."""
        reader, filters = self._find(table, filter)
        run = TableRun(reader, filters, after)
        with self._wakeups.of(reader.table.notify) as wakeup:
            while True:
                wakeup.reset()
                async with run.started_read() as read:
                    while not await read.answered(SLOW):
                        yield run.waiting(SLOW)
                    for item in run.items(read.result()):
                        yield item
                if not run.has_more:
                    with anyio.move_on_after(reader.table.poll):
                        await wakeup.wait()

    @rows.last
    async def newest_row(self, table: str, filter: str | None = None) -> Cursor[Pair]:
        """The cursor of the newest row of the table."""
        reader, filters = self._find(table, filter)
        with retried(has_filters=bool(filters)):
            epoch, last = await reader.newest()
        return Cursor(epoch, last)

    @rows.history
    async def rows_history(
        self, history_range: HistoryRange[Pair], table: str, filter: str | None = None
    ) -> HistoryPage[Pair]:
        """The rows of a time range, or those after a cursor."""
        reader, filters = self._find(table, filter)
        return await reader.history(history_range, filters)

    @rows.subscribe
    async def may_read(self, user: User | None, table: str, filter: str | None = None) -> None:
        """Refuse a name that is not in the settings."""
        self._find(table, filter)

    @rows.suggest("table")
    async def tables(self, typed: str) -> list[str]:
        """The names in the settings."""
        return [name for name in self._readers if typed in name]

    @rows.suggest("filter")
    async def filters(self, typed: str, table: str | None) -> list[str]:
        """Values of the newest rows."""
        reader = self._readers.get(table or "")
        if reader is None:
            return []
        found = [
            filter_text(column, value)
            for column in reader.table.filters
            for value in await reader.examples(column, EXAMPLE_ROWS)
        ]
        return [text for text in found if typed in text]

    def _find(self, table: str, filter: str | None) -> tuple[TableReader, Mapping[str, str]]:
        reader = self._readers.get(table)
        if reader is None:
            names = ", ".join(self._readers) or "none"
            raise NotFound(f"expected a name in the setting tables ({names}), got {table!r}")
        return reader, read_filter(filter, reader.table.filters)

    # -- notifications -------------------------------------------------------------------------

    @stream("notifications/{channel:any}", schema=SchemaPolicy(conflict="text"))
    async def notifications(self, channel: ChannelName) -> Rows[Row | list[Row] | Status]:
        """The payloads of NOTIFY, decoded to rows. There is no history."""
        self._check_channel(channel)
        decoder = MessageDecoder(self.settings, self._errors)
        status = PanelStatus()
        is_listening = False
        try:
            async with self._listener.follow(channel) as payloads:
                is_listening = True
                if (gap := self._gaps.end(channel)) is not None:
                    status.set("gap", Status("warning", gap.text), SHOWN)
                if (changed := status.change()) is not None:
                    yield changed
                while True:
                    payload = await status.next_message(payloads)
                    if payload is not None and (rows := decoder.rows(payload, address=channel)):
                        yield rows
                    status.set("decoding", decoder.status())
                    if (changed := status.change()) is not None:
                        yield changed
        except UpstreamError:
            self._gaps.begin(channel, self._listener.received_until if is_listening else None)
            raise
        except BaseException:
            self._gaps.forget(channel)
            raise

    @notifications.subscribe
    async def may_listen(self, user: User | None, channel: str) -> None:
        """Refuse a channel that is not in the settings."""
        self._check_channel(channel)

    @notifications.suggest("channel")
    async def channels(self, typed: str) -> list[str]:
        """The channels in the settings."""
        return [channel for channel in self.settings.channels if typed in channel]

    def _check_channel(self, channel: str) -> None:
        if channel not in self.settings.channels:
            names = ", ".join(self.settings.channels) or "none"
            raise NotFound(f"expected a channel in the setting channels ({names}), got {channel!r}")
