"""The source `push`: rows that programs, devices and agents send over HTTP, kept in a store."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds._channels.policy import Retry, SchemaPolicy
from aiostream_ds._frames.config import Notice
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, resource, stream
from aiostream_ds.models import Health, Request, Response
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.push.push_channels import PushChannels
from aiostream_ds.sources.push.push_health import push_health
from aiostream_ds.sources.push.push_intake import PushIntake
from aiostream_ds.sources.push.push_rows import SERIES_LABELS
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.sources.push.push_store import open_store
from aiostream_ds.sources.push.tag_columns import with_tag_columns
from aiostream_ds.stores import CURSOR_COLUMN, Store

__all__ = ["Pushed"]

ChannelPath = Annotated[
    str, Meta(description="The path that rows are pushed to, such as lab/run-1")
]


class Pushed(DataSource[PushSettings]):
    """Rows that any program pushes over HTTP, with history and without a database.

    `POST /api/datasources/uid/<uid>/resources/push/<path>` with the token of a service account.
    Query types `rows` and `table` with the field `path`: in `rows` each set of labels is a series,
    in `table` labels are columns.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "rows": {"event_time": "if rows have one", "publish": "over HTTP"},
        "table": {"event_time": "if rows have one", "publish": "over HTTP"},
    }

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Open the store."""
        channels = PushChannels(self.instance.uid, self.settings.max_channels)
        async with self._opened_store() as self._store:
            self._channels = channels
            self._intake = PushIntake(self.settings, self._store, channels, self.threads)
            await channels.load(self._store)
            yield

    @asynccontextmanager
    async def _opened_store(self) -> AsyncGenerator[Store]:
        """The store of this server, or the one that it shares with others."""
        share = self._share_store if self.settings.share else None
        is_shared = share is not None
        async with open_store(
            self.settings, self.instance, self.state, tenant=self._tenant, is_shared=is_shared
        ) as store:
            if share is None:
                yield store
                return
            async with share(store) as shared:
                yield shared

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        if stream != "rows":
            return declared
        return replace(declared, labels=tuple(self.settings.labels) or SERIES_LABELS)

    async def health(self) -> Health:
        """Report where rows are kept, what there is, and what was refused."""
        found = stream_capabilities(type(self))
        return await push_health(self.settings, self._store, self._intake.audit, found)

    # -- pushes --------------------------------------------------------------------------------

    @resource("push/{path:rest}", method="POST")
    async def push(self, path: str, request: Request) -> Response:
        """Store the rows of a body; answered when they are committed."""
        return await self._intake.answer(path, request)

    # -- panels --------------------------------------------------------------------------------

    # a value that does not fit its column is left out: one row must not end the stream
    @stream(
        "rows/{path:rest}",
        cursor=CURSOR_COLUMN,
        retry=Retry(fill=False),
        schema=SchemaPolicy(conflict="null", series=2_000, columns=5_000),
    )
    async def rows(self, after: Cursor, path: ChannelPath) -> Rows[list[dict[str, Any]] | Cursor]:
        """The rows of a path; rows with labels have columns for each series."""
        async with aclosing(self._store.follow(path, after)) as found:
            async for part in found:
                yield part

    @rows.last
    async def newest_row(self, path: str) -> Cursor:
        """The cursor of the newest row."""
        return await self._store.newest(path)

    @rows.history
    async def rows_history(self, span: HistoryRange, path: str) -> HistoryPage:
        """The rows of a time range, or those after a cursor."""
        return await self._noted(await self._store.history(path, span), path)

    @rows.suggest("path")
    async def suggest_paths(self, typed: str) -> list[str]:
        """The paths that have rows and contain the typed text."""
        await self._refresh(typed)
        return self._channels.matching(typed)

    @stream(
        "table/{path:rest}",
        cursor=CURSOR_COLUMN,
        retry=Retry(fill=False),
        schema=SchemaPolicy(conflict="null"),
    )
    async def table(self, after: Cursor, path: ChannelPath) -> Rows[list[dict[str, Any]] | Cursor]:
        """The rows of a path, each as it was pushed: labels are columns."""
        async with aclosing(self._store.follow(path, after)) as found:
            async for part in found:
                yield part if isinstance(part, Cursor) else with_tag_columns(part)

    @table.last
    async def newest_table_row(self, path: str) -> Cursor:
        """The cursor of the newest row."""
        return await self._store.newest(path)

    @table.history
    async def table_history(self, span: HistoryRange, path: str) -> HistoryPage:
        """The rows of a time range, or those after a cursor."""
        page = await self._noted(await self._store.history(path, span), path)
        return replace(page, rows=with_tag_columns(page.rows))

    @table.suggest("path")
    async def suggest_table_paths(self, typed: str) -> list[str]:
        """The paths that have rows and contain the typed text."""
        await self._refresh(typed)
        return self._channels.matching(typed)

    async def _refresh(self, path: str) -> None:
        """Look for a path that was first pushed to at another server."""
        if self.settings.share:
            await self._channels.refresh(self._store, path)

    async def _noted(self, page: HistoryPage, path: str) -> HistoryPage:
        """The page with a notice, if nothing was pushed to this path yet."""
        if not page.rows:
            await self._refresh(path)
        if page.rows or path in self._channels:
            return page
        text = f"nothing was pushed to {path!r} yet; rows appear when it is"
        return replace(page, notices=(*page.notices, Notice(severity="info", text=text)))
