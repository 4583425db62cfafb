"""The store of a source `push`: a file in a directory, or memory that outlives its settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiostream_ds.models import InstanceSettings
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.stores import Retention, SqliteStore, Store

__all__ = ["MEMORY_BYTES", "open_store"]

MEMORY_BYTES = 256_000_000
"""Bytes of all channels that are kept at most when the store is in memory."""

_STATE = "push.memory"

_DAY = 86_400.0


def retention_of(settings: PushSettings) -> Retention:
    """How many rows are kept."""
    size = settings.keep_bytes if settings.directory else min(settings.keep_bytes, MEMORY_BYTES)
    return Retention(
        seconds=settings.keep_days * _DAY, rows=settings.keep_rows, bytes=size, total_bytes=size
    )


@asynccontextmanager
async def open_store(
    settings: PushSettings, instance: InstanceSettings, state: dict[str, Any]
) -> AsyncGenerator[Store]:
    """The store of a data source, as long as the context lasts.

    Args:
        state: of the data source: it keeps rows in memory while the settings change.

    Raises:
        ConfigError: an admin must change the directory.
        UpstreamError: another process has the file open.
    """
    retention = retention_of(settings)
    if settings.directory:
        name = f"push-{instance.org_id}-{instance.uid}"
        async with SqliteStore(
            settings.directory, name=name, retention=retention, sync=settings.sync
        ) as store:
            yield store
        return
    shared: _MemoryStore = state.setdefault(_STATE, _MemoryStore(retention))
    try:
        yield await shared.enter(retention)
    finally:
        await shared.leave()


class _MemoryStore:
    """A store in memory, and how many instances of the data source use it."""

    def __init__(self, retention: Retention) -> None:
        self._store = SqliteStore(None, retention=retention)
        self._users = 0

    async def enter(self, retention: Retention) -> Store:
        self._users += 1
        self._store.set_retention(retention)
        return await self._store.__aenter__()

    async def leave(self) -> None:
        self._users -= 1
        if not self._users:
            await self._store.aclose()
