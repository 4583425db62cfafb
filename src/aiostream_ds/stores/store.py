"""The interface of a store of rows, and what a stream and its history read from it.

    append(channel, rows, key) ──▶ cursors 1, 2, 3 …      rows_after   by cursor, oldest first
                                                          rows_between by time, the newest ones

Each channel is a log of its own. `follow`, `history` and `newest` are the three methods of a
stream with the cursor `CURSOR_COLUMN`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.times import EPOCH, MILLISECOND
from aiostream_ds.errors import UpstreamError
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange
from aiostream_ds.stores.retention import Retention

__all__ = [
    "CURSOR_COLUMN",
    "AppendResult",
    "Store",
    "StoreError",
    "StoredChannel",
    "StoredRows",
]

CURSOR_COLUMN = "cursor"
"""The column of the cursor in rows that a store returns; rows that are stored must not have it."""


class StoreError(UpstreamError):
    """The store cannot be read or written; the message names its path and the cure."""


class AppendResult(NamedTuple):
    """The cursors of the rows of an `append`: first <= cursor <= last. No rows: first > last.

    `repeated`: the key was known, nothing was stored, and the cursors are those of the first call.
    """

    first: int
    last: int
    repeated: bool = False


class StoredRows(NamedTuple):
    """Rows of a channel, oldest first, with the column `CURSOR_COLUMN`.

    `first` is the cursor of the oldest row that the channel still has, `last` that of the newest;
    `first` is `last` + 1 if it has none. Both are of the moment at which the rows were read.
    """

    rows: list[dict[str, Any]]
    epoch: str
    first: int
    last: int
    notices: tuple[Notice, ...] = ()


class StoredChannel(NamedTuple):
    """What a store has of one channel. The times, of the rows themselves, are Unix milliseconds."""

    channel: str
    rows: int
    bytes: int
    first: int
    last: int
    oldest: int | None
    """The earliest time in the oldest rows; None without rows."""
    newest: int | None
    """The latest time; None without rows."""


class Store(ABC):
    """Durable logs of rows, one for each channel, for sources and for authors.

    A row is a dict with a column `time`: Unix milliseconds, or an aware datetime. Without one, its
    time is its first datetime. Each row gets a
    cursor, an integer above that of the row before it, which is never used again: neither after
    retention has removed all rows, nor after a restart or a crash.

    Methods are called in an event loop, of any thread. Re-entrant.
    """

    # -- to be implemented ---------------------------------------------------------------------

    @abstractmethod
    async def append(
        self, channel: str, rows: Sequence[Mapping[str, Any]], key: str | None = None
    ) -> AppendResult:
        """Store rows; when it returns, they are committed.

        The rows have consecutive cursors, and are stored all or none, with their key. They are
        read at the call: the caller may change them afterwards.

        Cancellation: the rows may be stored; call it again with the same key.

        Args:
            channel: any text that is not empty; made by its first row.
            rows: best some hundred or thousand. Without rows nothing is stored, not even the key.
            key: identifies this batch in the channel. If one with the same key was stored, of the
                last `KEY_SECONDS` and `KEYS` ones, nothing is stored.

        Raises:
            TypeError, ValueError: a row cannot be stored; nothing is. The message names its index.
            StoreError: the rows are not stored, as on a full disk.
        """

    @abstractmethod
    async def rows_after(
        self, channel: str, after: int, limit: int, upto: int | None = None
    ) -> StoredRows:
        """The oldest `limit` rows with after < cursor, and <= `upto` unless it is None.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    async def rows_between(self, channel: str, start: int, end: int, limit: int) -> StoredRows:
        """The newest `limit` rows with start <= time <= end, in Unix milliseconds; newest by time,
        and returned in the order of their cursors.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    def follow(
        self, channel: str, after: Cursor | None = None
    ) -> AsyncGenerator[list[dict[str, Any]] | Cursor, None]:
        """The rows after a cursor, as they are stored; never ends. For a stream to yield:

            async for rows in self.store.follow(path, after):
                yield rows

        A `Cursor` among them has a new epoch, of a channel that was deleted and made again, or
        stands for rows that retention has removed. None: begin after the newest row. Waits without
        polling. A follower that is slow reads from the store: it loses no row, and holds none.

        Safe to cancel. Raises:
            StoreError: the store cannot be read, or is closed.
        """

    @abstractmethod
    async def newest(self, channel: str) -> Cursor:
        """The cursor of the newest row, also if that is removed; 0 before the first one. For a
        `last` hook. Does not make the channel."""

    @abstractmethod
    async def channels(self) -> list[StoredChannel]:
        """All channels, by name. Raises StoreError."""

    @abstractmethod
    async def delete(self, channel: str) -> bool:
        """Remove a channel with its rows and keys; whether there was one. Followers get a new
        epoch, and panels reload. Raises StoreError."""

    @abstractmethod
    def retain(self, channel: str, retention: Retention | None) -> None:
        """Bounds of one channel, instead of those of the store; `total_bytes` is not used. Not
        stored: call it again after a restart. None: those of the store."""

    # -- for hooks -----------------------------------------------------------------------------

    async def history(self, channel: str, history_range: HistoryRange) -> HistoryPage:
        """The rows that a `history` hook returns for this range. Raises StoreError."""
        if history_range.after is None:
            start, end = _ms(history_range.start), _ms(history_range.end)
            found = await self.rows_between(channel, start, end, history_range.limit)
        else:
            found = await self.rows_after(
                channel, history_range.after, history_range.limit, history_range.upto
            )
        last: int | None = found.last
        if history_range.after is not None:
            full = len(found.rows) >= history_range.limit
            last = None if full else max(found.last, history_range.after)
        return HistoryPage(
            found.rows, epoch=found.epoch, first=found.first, last=last, notices=found.notices
        )


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND
