"""Reads rows from the tables: by cursor, or by time. Called in worker threads, in a transaction."""

from collections.abc import Iterator, Sequence
from heapq import nlargest
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from aiostream_ds._frames.config import Notice
from aiostream_ds.stores.channel_numbers import KEY_BYTES, epoch_of
from aiostream_ds.stores.row_blocks import DamagedBlock, RowSegment, read_block
from aiostream_ds.stores.store import CURSOR_COLUMN, StoredChannel, StoredRows

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "StoredKey",
    "find_keys",
    "read_channels",
    "read_keys",
    "read_meta",
    "read_note",
    "read_rows_after",
    "read_rows_between",
]

_CHANNEL = "SELECT id, epoch, first, last FROM channels WHERE name = ?"
_AFTER = (
    "SELECT first, rows, data FROM blocks WHERE channel = ?1 AND first >= coalesce((SELECT first"
    " FROM blocks WHERE channel = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1), ?2)"
    " ORDER BY first"
)
_BETWEEN = (
    "SELECT first, rows, data, low, high FROM blocks"
    " WHERE channel = ? AND high >= ? ORDER BY high DESC, first DESC"
)
_CHANNELS = (
    "SELECT name, rows, bytes + ? * coalesce("
    " (SELECT number FROM keys WHERE channel = channels.id ORDER BY number DESC LIMIT 1) + 1 -"
    " (SELECT number FROM keys WHERE channel = channels.id ORDER BY number LIMIT 1), 0),"
    " first, last,"
    " (SELECT low FROM blocks WHERE channel = channels.id ORDER BY first LIMIT 1),"
    " (SELECT high FROM blocks WHERE channel = channels.id ORDER BY high DESC LIMIT 1)"
    " FROM channels ORDER BY name"
)


class _Channel(NamedTuple):
    id: int
    epoch: str
    first: int
    last: int


def read_rows_after(
    database: "sqlite3.Connection",
    channel: str,
    after: int,
    limit: int,
    upto: int | None,
) -> StoredRows:
    """See `Store.rows_after`."""
    found = _channel(database, channel)
    if found is None:
        return StoredRows([], _new_epoch(database), 1, 0)
    low = max(after + 1, found.first)
    high = found.last if upto is None else min(upto, found.last)
    rows: list[dict[str, Any]] = []
    damaged: list[tuple[int, int]] = []
    if low <= high:
        for first, count, block in database.execute(_AFTER, (found.id, low)):
            if first > high or len(rows) >= limit:
                break
            for part in _rows_of(first, count, block, damaged):
                start = part[0][CURSOR_COLUMN]
                rows += part[max(low - start, 0) : max(high + 1 - start, 0)]
    return _stored(rows[:limit], found, damaged)


def read_rows_between(
    database: "sqlite3.Connection",
    channel: str,
    start: int,
    end: int,
    limit: int,
) -> StoredRows:
    """See `Store.rows_between`."""
    start, end = (max(-(1 << 63), min(bound, (1 << 63) - 1)) for bound in (start, end))
    found = _channel(database, channel)
    if found is None:
        return StoredRows([], _new_epoch(database), 1, 0)
    newest = _NewestRows(limit)
    damaged: list[tuple[int, int]] = []
    for first, count, block, low, high in database.execute(_BETWEEN, (found.id, start)):
        if newest.has_all_above(high):
            break
        if low > end or first + count <= found.first:
            continue
        for segment, cursor in _segments(first, count, block, damaged):
            times = segment.times()
            skip = max(found.first - cursor, 0)
            if skip >= len(times):
                continue
            rows = segment.to_dicts(cursor)
            if skip or low < start or high > end:
                kept = [n for n in range(skip, len(times)) if start <= times[n] <= end]
                rows, times = [rows[n] for n in kept], [times[n] for n in kept]
            newest.add(rows, times)
    return _stored(newest.rows(), found, damaged)


def read_channels(database: "sqlite3.Connection") -> list[StoredChannel]:
    """See `Store.channels`."""
    return [StoredChannel(*row) for row in database.execute(_CHANNELS, (KEY_BYTES,))]


def read_note(database: "sqlite3.Connection", name: str) -> str | None:
    """A text that was written with this name."""
    statement = "SELECT value FROM meta WHERE name = ?"
    row = database.execute(statement, (f"note {name}",)).fetchone()
    return None if row is None else str(row[0])


class StoredKey(NamedTuple):
    """An idempotency key, and the cursors of its rows. `number`: keys are in their order."""

    number: int
    key: bytes
    first: int
    last: int
    stored: int


def find_keys(
    database: "sqlite3.Connection", wanted: Sequence[tuple[str, bytes]], oldest: int
) -> dict[tuple[str, bytes], tuple[int, int]]:
    """The cursors that were stored with keys of channels, from a time on."""
    statement = (
        "SELECT first, last FROM keys WHERE channel = (SELECT id FROM channels WHERE name = ?)"
        " AND key = ? AND stored >= ?"
    )
    found = {pair: database.execute(statement, (*pair, oldest)).fetchone() for pair in wanted}
    return {pair: row for pair, row in found.items() if row is not None}


def read_keys(
    database: "sqlite3.Connection", channel: str, after: int, limit: int
) -> list[StoredKey]:
    """The oldest keys of a channel with number > after."""
    statement = (
        "SELECT number, key, first, last, stored FROM keys WHERE channel ="
        " (SELECT id FROM channels WHERE name = ?) AND number > ? ORDER BY number LIMIT ?"
    )
    return [StoredKey(*row) for row in database.execute(statement, (channel, after, limit))]


def read_meta(database: "sqlite3.Connection", prefix: str) -> dict[str, bytes]:
    """What `PendingReplica.meta` has written, by names that begin with a text."""
    statement = "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ?"
    return dict(database.execute(statement, (len(prefix), prefix)).fetchall())


class _NewestRows:
    """The rows with the latest times, of those that are added; about twice as many at most."""

    __slots__ = ("_at", "_count", "_found", "_limit", "_threshold")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: list[tuple[list[int], list[dict[str, Any]]]] = []
        self._count = 0
        self._threshold: int | None = None  # the limit-th latest time, as far as it is known
        self._at = limit  # number of rows at which it is computed again

    def add(self, rows: list[dict[str, Any]], times: list[int]) -> None:
        self._found.append((times, rows))
        self._count += len(rows)
        if self._count >= self._at:
            times = list(chain.from_iterable(times for times, _ in self._found))
            self._threshold = nlargest(self._limit, times)[-1] if self._limit else None
            if self._count >= 2 * self._limit:
                kept = self.rows_with_times()
                self._found = [([time for time, _ in kept], [row for _, row in kept])]
                self._count = len(kept)
            self._at = self._count + max(self._limit // 4, 1)

    def has_all_above(self, high: int) -> bool:
        """Whether rows up to this time cannot be among the newest ones."""
        if not self._limit:
            return True
        return self._threshold is not None and high <= self._threshold

    def rows_with_times(self) -> list[tuple[int, dict[str, Any]]]:
        """The newest rows, in the order of their cursors."""
        found = [
            (time, row)
            for times, rows in self._found
            for time, row in zip(times, rows, strict=True)
        ]
        if len(found) > self._limit:
            found.sort(key=_time_and_cursor)
            found = found[len(found) - self._limit :]
        found.sort(key=_cursor)
        return found

    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self.rows_with_times()]


def _time_and_cursor(item: tuple[int, dict[str, Any]]) -> tuple[int, int]:
    return item[0], item[1][CURSOR_COLUMN]


def _cursor(item: tuple[int, dict[str, Any]]) -> int:
    cursor: int = item[1][CURSOR_COLUMN]
    return cursor


def _channel(database: "sqlite3.Connection", channel: str) -> _Channel | None:
    row = database.execute(_CHANNEL, (channel,)).fetchone()
    return None if row is None else _Channel(*row)


def _new_epoch(database: "sqlite3.Connection") -> str:
    """The epoch of a channel that does not exist yet."""
    meta = dict(database.execute("SELECT name, value FROM meta"))
    return epoch_of(meta["epoch"], meta["deletions"])


def _segments(
    first: int, count: int, block: bytes, damaged: list[tuple[int, int]]
) -> Iterator[tuple[RowSegment, int]]:
    """The segments of a block, each with the cursor of its first row."""
    try:
        segments = read_block(block)
    except DamagedBlock:
        damaged.append((first, first + count - 1))
        return
    for segment in segments:
        yield segment, first
        first += segment.rows


def _rows_of(
    first: int, count: int, block: bytes, damaged: list[tuple[int, int]]
) -> Iterator[list[dict[str, Any]]]:
    for segment, cursor in _segments(first, count, block, damaged):
        yield segment.to_dicts(cursor)


def _stored(
    rows: list[dict[str, Any]], channel: _Channel, damaged: list[tuple[int, int]]
) -> StoredRows:
    text = "Rows {} to {} are damaged in the store, and are missing."
    notices = tuple(Notice(severity="error", text=text.format(*pair)) for pair in damaged[:5])
    return StoredRows(rows, channel.epoch, channel.first, channel.last, notices)
