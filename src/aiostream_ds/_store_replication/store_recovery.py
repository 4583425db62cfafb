"""Rows that a server has stored, and the log of the cluster has lost: as batches to write again."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._store_replication.store_chain import StoreLink
from aiostream_ds.stores import CURSOR_COLUMN
from aiostream_ds.stores.channel_tables import now_ms
from aiostream_ds.stores.row_blocks import Piece, split_rows
from aiostream_ds.stores.sqlite_store import SqliteStore

__all__ = ["RecoveredBatch", "StoredRun", "recovered_batches", "stored_run"]

_KEYS = 5_000  # keys that are read at once


class RecoveredBatch(msgspec.Struct, array_like=True, frozen=True):
    """A batch, and the cursor that its first row had. One that was pushed without a key gets one:
    several servers may write it again.

    Attributes:
        id: that it had in its entry; empty: it had a key.
        stored: the first cursor of the same rows in another entry, which counts meanwhile; 0: there
            is none.
    """

    channel: str
    first: int
    pieces: list[Piece]
    key: bytes | None
    id: bytes = b""
    stored: int = 0


async def recovered_batches(
    store: SqliteStore, links: Sequence[StoreLink], lasts: Mapping[str, int]
) -> list[RecoveredBatch]:
    """What the entries of these links have stored. Raises StoreError."""
    ends = dict(lasts)
    found: list[RecoveredBatch] = []
    for link in reversed(links):
        of_link: list[RecoveredBatch] = []
        for channel, first in link.first.items():
            of_link += await _of_entry(store, link, channel, ends.get(channel, 0))
            ends[channel] = first - 1
        found = of_link + found
    return found


async def _of_entry(
    store: SqliteStore, link: StoreLink, channel: str, last: int
) -> list[RecoveredBatch]:
    first = link.first[channel]
    keys = {key.first: key for key in await _keys_from(store, channel, first)}
    ids = dict(link.ids.get(channel, ()))
    starts = sorted({*keys, *ids})
    found: list[RecoveredBatch] = []
    while first <= last:
        key, id = keys.get(first), ids.get(first, b"")
        number = bisect_right(starts, first)
        next_start = starts[number] if number < len(starts) else last + 1
        end = min(next_start - 1, last) if key is None else key.last
        run = await stored_run(store, channel, first - 1, end, end - first + 1)
        if run.pieces:
            name = _key_of(link.tag, channel, first) if not id else _key_of(id, channel, 0)
            name = name if key is None else key.key
            found.append(RecoveredBatch(channel, run.first, run.pieces, name, id))
        first = end + 1
    return found


def _key_of(tag: bytes, channel: str, first: int) -> bytes:
    """The key of rows that were pushed without one: equal on each server that has the entry, or
    with the id of the batch as the tag, any entry with these rows."""
    return blake2b(b"%s %d %s" % (tag, first, channel.encode()), digest_size=16).digest()


async def _keys_from(store: SqliteStore, channel: str, first: int) -> list[Any]:
    """The keys of the rows from a cursor on."""
    found: list[Any] = []
    number = 0
    while page := await store.keys_after(channel, number, _KEYS):
        found += [key for key in page if key.first >= first]
        number = page[-1].number
    return found


class StoredRun(NamedTuple):
    """Rows with consecutive cursors, as they are stored.

    Attributes:
        first: the cursor of the first one; that after `upto` if there are none.
        pieces: the rows.
        oldest: the first cursor that the store still has: older rows were removed.
    """

    first: int
    pieces: list[Piece]
    oldest: int


async def stored_run(
    store: SqliteStore, channel: str, after: int, upto: int, limit: int
) -> StoredRun:
    """The first rows with after < cursor <= upto, up to the first cursor that has no row: the store
    may lack rows that were pushed while its server was away. Raises StoreError."""
    page = await store.rows_after(channel, after, limit, upto)
    cursors = [row.pop(CURSOR_COLUMN) for row in page.rows]
    if not cursors:
        return StoredRun(upto + 1, [], page.first)
    first = cursors[0]
    count = sum(cursor == number for number, cursor in enumerate(cursors, first))
    return StoredRun(first, split_rows(page.rows[:count], now_ms()), page.first)
