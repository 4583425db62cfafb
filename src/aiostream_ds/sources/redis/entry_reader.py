"""Reads new entries of streams by XREAD."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import anyio

from aiostream_ds._redis.redis_connection import Connection
from aiostream_ds.errors import BadQuery
from aiostream_ds.sources.redis.positions import (
    LARGEST,
    Change,
    Id,
    Position,
    format_id,
    parse_id,
    read_info,
)

__all__ = [
    "BLOCK",
    "PAGE_BYTES",
    "PAGE_ENTRIES",
    "EntryBatch",
    "Entry",
    "EntryReader",
    "PageSize",
    "last_id",
]

BLOCK = 2.0
"""Seconds that one XREAD waits for entries."""

CHECK = 10.0
"""Seconds between two checks whether a stream was trimmed or its ids restarted."""

CHECK_WHILE_FULL = 1.0
"""The same while each read is full: entries may be trimmed before they are read."""

PAGE_ENTRIES = 1_000
"""Maximum number of entries of a stream that are read at a time."""

PAGE_BYTES = 1 << 20
"""Bytes of values that are read at a time, once the size of the entries is known."""

Entry = list[Any]
"""An entry as Redis sends it: the id, and a list of fields and values in turn, all bytes."""


def last_id(entries: list[Entry]) -> Id:
    """The id of the last entry.

    Raises:
        BadQuery: a cursor cannot contain it.
    """
    id = parse_id(entries[-1][0])
    if max(id) > LARGEST:
        raise BadQuery(
            f"the numbers of an id must be at most {LARGEST}, got {entries[-1][0].decode()}"
        )
    return id


class PageSize:
    """How many entries are asked for at a time: fewer if they are large.

    The first page is small, since the entries may have any size.
    """

    __slots__ = ("_limit", "count")

    def __init__(self, limit: int = PAGE_ENTRIES) -> None:
        self._limit = limit
        self.count = min(10, limit)

    def adapt(self, entries: list[Entry]) -> None:
        """A page of `count` entries was read."""
        size = sum(sum(map(len, values)) for _, values in entries if values)
        if size > PAGE_BYTES:
            self.count = max(1, self.count * PAGE_BYTES // size)
        elif size < PAGE_BYTES // 8 and len(entries) >= self.count:
            self.count = min(self._limit, self.count * 4)


class EntryBatch(NamedTuple):
    """What one read has found in one stream. `change` comes before the entries; `is_missing`: the
    key does not exist (yet)."""

    key: bytes
    entries: list[Entry]
    change: Change | None = None
    is_missing: bool = False


class EntryReader:
    """Reads the entries after a position in each of some streams, which one server has.

    Args:
        connection: it is used by this reader only.
        positions: the position in each stream by its key; they move as entries are read.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        positions: Mapping[bytes, Position],
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._connection = connection
        self._positions = positions
        self._clock = clock
        self._page = PageSize(max(10, PAGE_ENTRIES // max(1, len(positions))))
        self._checked = -CHECK
        self._is_full = False

    async def read(self) -> list[EntryBatch]:
        """Wait up to `BLOCK` seconds for entries.

        If it is cancelled, the connection has to be closed; no entry is lost, because the positions
        have not moved.

        Raises:
            PluginError: the connection is lost, or one key cannot be read.
        """
        changes = await self._check()
        if changes:
            return changes
        words: list[str | bytes | int] = ["XREAD", "COUNT", self._page.count]
        words += ["BLOCK", round(BLOCK * 1_000), "STREAMS", *self._positions]
        words += [format_id(position.id) for position in self._positions.values()]
        found = await self._connection.call(*words, wait=BLOCK)
        batches = [EntryBatch(key, entries) for key, entries in found or ()]
        self._is_full = False
        for key, entries, *_ in batches:
            self._positions[key].advance(last_id(entries), len(entries))
            self._is_full |= len(entries) >= self._page.count
            self._page.adapt(entries)
        return batches

    async def _check(self) -> list[EntryBatch]:
        """What has changed in a way that XREAD does not show."""
        now = self._clock()
        if now - self._checked < (CHECK_WHILE_FULL if self._is_full else CHECK):
            return []
        self._checked = now
        found = []
        for key, position in self._positions.items():
            info = await read_info(self._connection.call, key)
            if info is None:
                position.added = 0
                found.append(EntryBatch(key, [], is_missing=True))
            elif (change := position.compare(info)) is not None:
                found.append(EntryBatch(key, [], change))
        return found
