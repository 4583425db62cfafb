"""The store of a source `push`: a file in a directory, or memory that outlives its settings."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiostream_ds.models import InstanceSettings
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.stores import Retention, SqliteStore

__all__ = ["MEMORY_BYTES", "open_store"]

MEMORY_BYTES = 256_000_000
"""Bytes of all channels that are kept at most when the store is in memory."""

_STATE = {False: "push.memory", True: "push.shared memory"}

_DAY = 86_400.0


def retention_of(settings: PushSettings) -> Retention:
    """How many rows are kept."""
    size = settings.keep_bytes if settings.directory else min(settings.keep_bytes, MEMORY_BYTES)
    return Retention(
        seconds=settings.keep_days * _DAY, rows=settings.keep_rows, bytes=size, total_bytes=size
    )


@asynccontextmanager
async def open_store(
    settings: PushSettings,
    instance: InstanceSettings,
    state: dict[str, Any],
    *,
    tenant: str = "",
    is_shared: bool = False,
) -> AsyncGenerator[SqliteStore]:
    """The store of a data source, as long as the context lasts.

    Args:
        tenant: the organization, or a namespace: organizations of several have the same ids.
        is_shared: whether it is one that several servers share, whose rows have other cursors.
        state: of the data source: it keeps rows in memory while the settings change.

    Raises:
        ConfigError: an admin must change the directory.
        UpstreamError: another process has the file open.
    """
    retention = retention_of(settings)
    if settings.directory:
        kind = "push-shared" if is_shared else "push"
        async with SqliteStore(
            settings.directory,
            name=_file_name(kind, instance, tenant),
            retention=retention,
            sync=settings.sync,
            is_replica=is_shared,
        ) as store:
            yield store
        return
    shared: _MemoryStore = state.setdefault(_STATE[is_shared], _MemoryStore(retention, is_shared))
    try:
        yield await shared.enter(retention)
    finally:
        await shared.leave()


class _MemoryStore:
    """A store in memory, and how many instances of the data source use it."""

    def __init__(self, retention: Retention, is_shared: bool) -> None:
        self._store = SqliteStore(None, retention=retention, is_replica=is_shared)
        self._users = 0

    async def enter(self, retention: Retention) -> SqliteStore:
        self._users += 1
        self._store.set_retention(retention)
        return await self._store.__aenter__()

    async def leave(self) -> None:
        self._users -= 1
        if not self._users:
            await self._store.aclose()


def _file_name(kind: str, instance: InstanceSettings, tenant: str) -> str:
    name = f"{kind}-{instance.org_id}-{instance.uid}"
    if tenant in ("", str(instance.org_id)):
        return name
    return f"{kind}-{re.sub('[^A-Za-z0-9._-]', '-', tenant)[:40]}-{instance.org_id}-{instance.uid}"
