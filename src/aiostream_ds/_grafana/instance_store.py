"""The store of a data source whose streams are recorded: opened before its lifespan."""

import re
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from typing import Any

from aiostream_ds._frames.cursor import short_hash
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import NotFound
from aiostream_ds.stores import Retention, SqliteStore, Store

__all__ = ["open_row_store"]

_STATE = "aiostream_ds.row_store"
"""The key of the store in `DataSource.state`, if its rows are in memory: they outlive a change of
the settings."""


@asynccontextmanager
async def open_row_store(source: DataSource[Any], key: tuple[str, ...]) -> AsyncGenerator[None]:
    """Make `source.row_store` usable as long as the context lasts. `key` identifies the data
    source: it is the name of the file.

    Raises:
        ConfigError: an admin must change the directory.
        UpstreamError: another process has the file open.
    """
    retention = _retention(source)
    directory = source.store_directory
    store = SqliteStore(directory, name=_name(key), retention=retention)
    if not directory:
        store = source.state.setdefault(_STATE, store)
    async with _shared(store):
        source._row_store = store
        await _retain(source, store)
        yield


_users: dict[Hashable, int] = {}


@asynccontextmanager
async def _shared(store: SqliteStore) -> AsyncGenerator[None]:
    """Open a store that several instances may share; the last one closes it."""
    _users[store] = _users.get(store, 0) + 1
    try:
        await store.__aenter__()
        yield
    finally:
        _users[store] -= 1
        if not _users[store]:
            del _users[store]
            await store.aclose()


def _retention(source: DataSource[Any]) -> Retention:
    """Bounds of the store that keep what each of its streams keeps."""
    streams = source._ds_plan.streams.values()
    found = [stream.options.store for stream in streams if stream.options.store is not None]
    return Retention(
        seconds=max(each.seconds for each in found),
        rows=max(each.rows for each in found),
        bytes=max(each.bytes for each in found),
        total_bytes=max(each.total_bytes for each in found),
    )


async def _retain(source: DataSource[Any], store: Store) -> None:
    """Set the bounds of the channels that are in the store, also of those that do not run."""
    for channel in await store.channels():
        try:
            stream, _ = source._ds_plan.match(channel.channel)
        except NotFound:
            continue  # of a stream that the class does not have any more
        if stream.options.store is not None:
            store.retain(channel.channel, stream.options.store)


def _name(key: tuple[str, ...]) -> str:
    """A name that is one of a file, and differs for each data source."""
    text = "-".join(key)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:70] or "rows"
    return f"{name}-{short_hash(repr(key).encode())}"
