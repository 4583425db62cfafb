"""A store in a SQLite file, or in memory. One file is opened once in a process, and shared."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import call_in
from aiostream_ds._short_repr import short_repr
from aiostream_ds._thread_limits import count_active_calls_of, run_in_thread
from aiostream_ds.errors import copy_error
from aiostream_ds.rows import Cursor
from aiostream_ds.stores.channel_tables import now_ms
from aiostream_ds.stores.retention import KEY_SECONDS, Retention
from aiostream_ds.stores.row_blocks import Piece, split_rows
from aiostream_ds.stores.row_followers import Followers
from aiostream_ds.stores.sqlite_file import (
    StoreFile,
    Sync,
    as_store_error,
    check_name,
    connect,
    open_file,
)
from aiostream_ds.stores.sqlite_reader import (
    StoredKey,
    find_keys,
    read_channels,
    read_keys,
    read_meta,
    read_note,
    read_rows_after,
    read_rows_between,
)
from aiostream_ds.stores.sqlite_writer import (
    PendingAppend,
    PendingDelete,
    PendingNote,
    PendingReplica,
    ReplicaBatch,
    ReplicaKey,
    StoreWriter,
)
from aiostream_ds.stores.store import (
    CURSOR_COLUMN,
    AppendResult,
    Store,
    StoredChannel,
    StoredRows,
    StoreError,
)

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteStore", "check_batch", "key_digest", "pieces_of"]

log = get_logger(__name__)

T = TypeVar("T")
_Bytes = bytes  # the class has an attribute of this name

FOLLOW_ROWS = 5_000
"""Rows that a follower reads from the store at once."""

INLINE_ROWS = 5_000
"""Rows of one append that are encoded in the event loop; more are encoded in a thread."""

PENDING_BYTES = 64 << 20
"""Encoded bytes of appends that wait for their commit; further appends wait for these."""


class SqliteStore(Store):
    """A store in the file `<directory>/<name>.sqlite`, or in memory.

        async with SqliteStore(self.settings.directory, name=self.instance.uid) as self.store:
            yield

    Several objects of one process that name the same file share it, as the instances of a data
    source do while its settings change; the one that was entered last sets the bounds. Another
    process cannot open it meanwhile. A directory on a network file system is not safe.

    Args:
        directory: made if it does not exist. None or "": the rows are kept in memory, within the
            same bounds, and are gone when the store is closed.
        name: letters, digits, '.', '_' and '-'.
        retention: how many rows are kept.
        sync: what a commit waits for. "normal": the operating system: a crash of the process loses
            no row, a power cut may lose the last seconds. "full": the disk.

    Raises:
        ValueError: an invalid name or `sync`.
        ConfigError: from `async with`; an admin must change the directory or the file.
        UpstreamError: from `async with`; another process has the file open.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        name: str = "rows",
        retention: Retention | None = None,
        sync: Sync = "normal",
        is_replica: bool = False,
    ) -> None:
        if sync not in ("normal", "full"):
            raise ValueError(f"sync must be 'normal' or 'full', got {sync!r}")
        check_name(name)
        self.path = Path(directory).absolute() / f"{name}.sqlite" if directory else None
        self._retention = retention or Retention()
        self._sync: Sync = sync
        self._is_replica = is_replica
        self._shared: _SharedStore | None = None
        self._use: _Use | None = None
        self._opening = anyio.Lock()
        self._logged: set[tuple[str, str]] = set()

    @property
    def is_durable(self) -> bool:
        """Whether the rows outlive the process."""
        return self.path is not None

    @property
    def bytes(self) -> int:
        """The bytes of all rows and keys, as `Retention.total_bytes` counts them."""
        return self._open.writer.bytes

    @property
    def rows_removed(self) -> int:
        """The rows that retention has removed since the file was opened."""
        return self._open.writer.rows_removed

    @property
    def _open(self) -> "_SharedStore":
        if self._shared is None:
            raise _closed(self.path)
        return self._shared

    def set_retention(self, retention: Retention) -> None:
        """Use other bounds from now on."""
        self._retention = retention
        if self._shared is not None:
            self._shared.writer.configure(retention, self._sync)

    def same(self) -> "SqliteStore":
        """Another object for the same file; this one if the rows are in memory."""
        if self.path is None:
            return self
        return SqliteStore(
            self.path.parent,
            name=self.path.stem,
            retention=self._retention,
            sync=self._sync,
            is_replica=self._is_replica,
        )

    async def __aenter__(self) -> Self:
        async with self._opening:
            if self._shared is None:
                use = _Use()
                try:
                    await run_in_thread(
                        use.begin, self.path, self._retention, self._sync, self._is_replica
                    )
                except asyncio.CancelledError:  # the thread goes on, and opens the file
                    use.end_in_background()
                    raise
                self._shared, self._use = use.shared, use
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Commit appends that wait, and close the store: followers get a StoreError. Idempotent."""
        use, self._use, self._shared = self._use, None, None
        if use is not None:
            try:
                with anyio.CancelScope(shield=True):
                    await run_in_thread(use.end)
            except asyncio.CancelledError:  # by asyncio, perhaps while no thread is free
                use.end_in_background()
                raise

    async def append(
        self, channel: str, rows: Sequence[Mapping[str, Any]], key: str | None = None
    ) -> AppendResult:
        """See `Store.append`."""
        shared = self._open
        check_batch(channel, key)
        if not rows:
            last = (await self.newest(channel)).value
            return AppendResult(last + 1, last)
        pieces = await pieces_of(rows)
        copies = [dict(row) for row in rows] if channel in shared.followers else None
        digest = None if key is None else key_digest(key)
        size = sum(len(piece.data) for piece in pieces)
        while shared.pending_bytes > PENDING_BYTES:
            await shared.wait_for_commit()
        shared.add_pending(size)
        result: AppendResult = await shared.submit(
            lambda done: PendingAppend(channel, pieces, digest, copies, done), size
        )
        return result

    async def delete(self, channel: str) -> bool:
        """See `Store.delete`."""
        was_there: bool = await self._open.submit(partial(PendingDelete, channel), 0)
        return was_there

    async def rows_after(
        self, channel: str, after: int, limit: int, upto: int | None = None
    ) -> StoredRows:
        """See `Store.rows_after`."""
        found = await self._open.read(read_rows_after, channel, after, limit, upto)
        self._log_damage(channel, found)
        return found

    async def rows_between(self, channel: str, start: int, end: int, limit: int) -> StoredRows:
        """See `Store.rows_between`."""
        found = await self._open.read(read_rows_between, channel, start, end, limit)
        self._log_damage(channel, found)
        return found

    def _log_damage(self, channel: str, found: StoredRows) -> None:
        """One line for each damaged block, also if no panel shows the notice."""
        for notice in found.notices:
            if (channel, notice.text) not in self._logged:
                self._logged.add((channel, notice.text))
                log.error("%s, channel %s: %s", self.path, channel, notice.text)

    async def newest(self, channel: str) -> Cursor:
        """See `Store.newest`."""
        found = await self.rows_after(channel, 0, 0)
        return Cursor(found.epoch, found.last)

    async def channels(self) -> list[StoredChannel]:
        """See `Store.channels`."""
        return await self._open.read(read_channels)

    async def note(self, name: str) -> str | None:
        """A text that `write_note` has stored; None without one. Raises StoreError."""
        return await self._open.read(read_note, name)

    async def write_note(self, name: str, value: str) -> None:
        """Store a text under a name, for what is not a row. Raises StoreError."""
        await self._open.submit(partial(PendingNote, name, value), 0)

    async def replicate(
        self,
        batches: Sequence[ReplicaBatch],
        meta: Mapping[str, _Bytes | None],
        *,
        epoch: str = "",
        keys: Sequence[ReplicaKey] = (),
        rewind: Mapping[str, int] | None = None,
    ) -> int:
        """Store rows whose cursors another store has chosen. Returns how many cursors are left out,
        since no batch had them. See `PendingReplica`. Raises StoreError; nothing is stored then.
        """
        make = partial(PendingReplica, rewind or {}, epoch, batches, keys, meta)
        size = sum(len(piece.data) for batch in batches for piece in batch.pieces)
        self._open.add_pending(size)
        missing: int = await self._open.submit(make, size)
        return missing

    async def read_meta(self, prefix: str) -> dict[str, _Bytes]:
        """What `replicate` has stored, by names that begin with a text. Raises StoreError."""
        return await self._open.read(read_meta, prefix)

    async def find_keys(
        self, wanted: Sequence[tuple[str, _Bytes]]
    ) -> dict[tuple[str, _Bytes], tuple[int, int]]:
        """The cursors that were stored with keys of channels, see `key_digest`."""
        return await self._open.read(find_keys, wanted, now_ms() - int(KEY_SECONDS * 1000))

    async def keys_after(self, channel: str, number: int, limit: int) -> list[StoredKey]:
        """The oldest keys of a channel after a number. Raises StoreError."""
        return await self._open.read(read_keys, channel, number, limit)

    def retain(self, channel: str, retention: Retention | None) -> None:
        """See `Store.retain`."""
        self._open.writer.retain(channel, retention)

    async def follow(
        self, channel: str, after: Cursor | None = None
    ) -> AsyncGenerator[list[dict[str, Any]] | Cursor, None]:
        """See `Store.follow`."""
        with self._open.followers.follower(channel) as follower:
            epoch, last = await self.newest(channel) if after is None else after
            must_read = True
            while True:
                if follower.error is not None:
                    raise copy_error(follower.error)
                recent, is_complete = follower.take()
                must_read = must_read or not is_complete
                while must_read:
                    page = await self.rows_after(channel, last, FOLLOW_ROWS)
                    if page.epoch != epoch:
                        epoch, last = page.epoch, page.first - 1
                        yield Cursor(epoch, last)
                        continue
                    if page.first - 1 > last:
                        last = page.first - 1
                        yield Cursor(epoch, last)
                    must_read = len(page.rows) == FOLLOW_ROWS
                    if page.rows:
                        last = page.rows[-1][CURSOR_COLUMN]
                        yield page.rows
                    if not must_read:
                        last = max(last, page.last)  # not every cursor has a row
                for committed in recent:
                    if committed.last <= last:
                        continue
                    must_read = committed.first != last + 1
                    if must_read:
                        break
                    last = committed.last
                    yield committed.rows
                if not must_read:
                    await follower.wait()


class _SharedStore:
    """An open file, and those who use it."""

    def __init__(self, path: Path | None, file: StoreFile, retention: Retention) -> None:
        self.path = path
        self.users = 1
        self.followers = Followers()
        # SQLite in memory has one connection, which readers and the writer share
        self._database_lock = threading.Lock()
        self._memory = file.writer if path is None else None
        self.writer = StoreWriter(file, retention, self.followers, self._database_lock)
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self.pending_bytes = 0
        self.active_calls = 0  # operations whose callers wait for the thread of the writer
        self._waiters: list[asyncio.Future[None]] = []
        count_active_calls_of(self)
        self.writer.start()

    # -- writing -------------------------------------------------------------------------------

    def add_pending(self, size: int) -> None:
        with self._lock:
            self.pending_bytes += size

    async def wait_for_commit(self) -> None:
        """Wait until some append has been committed."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:
            if self.pending_bytes <= PENDING_BYTES:
                return
            self._waiters.append(waiter)
        await waiter

    async def submit(self, make: Callable[[Callable[[Any], None]], Any], size: int) -> Any:
        """Queue an operation, and wait for its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(result: Any) -> None:
            self._forget_pending(size)
            call_in(loop, _resolve, future, result)

        if not self.writer.submit(make(done)):
            self._forget_pending(size)
            raise _closed(self.path)
        self._count_call(1)
        try:
            return await future
        finally:
            self._count_call(-1)

    def _count_call(self, number: int) -> None:
        with self._lock:
            self.active_calls += number

    def _forget_pending(self, size: int) -> None:
        with self._lock:
            self.pending_bytes -= size
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            call_in(waiter.get_loop(), _resolve, waiter, None)

    # -- reading -------------------------------------------------------------------------------

    async def read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function with a connection and the arguments, in a worker thread."""
        return await run_in_thread(self._read, function, arguments)

    def _read(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        import sqlite3

        try:
            with self._reader() as database:
                database.execute("BEGIN")  # one snapshot of a channel and its rows
                try:
                    return function(database, *arguments)
                finally:
                    if database.in_transaction:
                        database.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise as_store_error(self.path, error) from error

    @contextmanager
    def _reader(self) -> Iterator["sqlite3.Connection"]:
        if self._memory is not None:
            with self._database_lock:
                if self._is_closed:
                    raise _closed(self.path)
                yield self._memory
            return
        with self._lock:
            if self._is_closed:
                raise _closed(self.path)
            database = self._readers.pop() if self._readers else None
        if database is None:
            database = connect(self.path)
        try:
            yield database
        except BaseException:
            database.close()
            raise
        with self._lock:
            if not self._is_closed:
                self._readers.append(database)
                return
        database.close()

    def close(self) -> None:
        """Commit what waits, and close the file. Blocks."""
        self.followers.end(_closed(self.path))
        with self._lock:
            readers, self._readers = self._readers, []
            self._is_closed = True
        for reader in readers:
            reader.close()
        self.writer.close()


class _Use:
    """One user of an open file, from `begin` to `end`; both block. They may be called in threads at
    the same time: the file is released once, whichever comes last."""

    def __init__(self) -> None:
        self.shared: _SharedStore | None = None
        self._owned: list[_SharedStore] = []  # `pop` is atomic
        self._is_ended = False

    def begin(self, path: Path | None, retention: Retention, sync: Sync, is_replica: bool) -> None:
        """Open the file, or share it. Raises ConfigError, UpstreamError."""
        self.shared = _acquire(path, retention, sync, is_replica)
        self._owned.append(self.shared)
        if self._is_ended:
            self.end()

    def end(self) -> None:
        """Release the file; if it is not open yet, as soon as it is. Idempotent."""
        self._is_ended = True
        with suppress(IndexError):
            _release(self._owned.pop())

    def end_in_background(self) -> None:
        """`end` in a thread of its own, for which the process waits."""
        threading.Thread(target=self.end, name="store that is closed").start()


def check_batch(channel: str, key: str | None) -> None:
    """Raises ValueError for what cannot be the name of a channel, or a key."""
    if not isinstance(channel, str) or not channel or not _is_valid(channel):
        shown = short_repr(channel)
        raise ValueError(f"the channel must be a text that is not empty, got {shown}")
    if key is not None and not (isinstance(key, str) and _is_valid(key)):
        raise ValueError(f"the key must be a text, got {short_repr(key)}")


async def pieces_of(rows: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """Rows as they are stored. Raises TypeError, ValueError."""
    if len(rows) <= INLINE_ROWS:
        return split_rows(rows, now_ms())
    # some 100 ms for 100,000 rows
    return await run_in_thread(split_rows, [*rows], now_ms())


def key_digest(key: str, part: int = 0) -> bytes:
    """A key as it is stored; of a part of a batch that is stored in several: that of no other key,
    whatever its text."""
    return blake2b(key.encode(), digest_size=16, salt=part.to_bytes(4, "big")).digest()


def _is_valid(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which UTF-8 cannot have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _closed(path: Path | None) -> StoreError:
    return StoreError(f"the store {path or 'in memory'} is not open; use it in `async with`")


_stores: dict[Path, _SharedStore] = {}
_opening = threading.Lock()


def _acquire(path: Path | None, retention: Retention, sync: Sync, is_replica: bool) -> _SharedStore:
    if path is None:
        return _SharedStore(None, open_file(None, sync, is_replica=is_replica), retention)
    path = path.parent.resolve() / path.name
    with _opening:
        found = _stores.get(path)
        if found is not None:
            found.users += 1
            found.writer.configure(retention, sync)
            return found
        found = _stores[path] = _SharedStore(
            path, open_file(path, sync, is_replica=is_replica), retention
        )
        return found


def _release(shared: _SharedStore) -> None:
    with _opening:
        shared.users -= 1
        if shared.users:
            return
        if shared.path is not None:
            del _stores[shared.path]
        shared.close()
