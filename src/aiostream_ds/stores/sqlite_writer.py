"""The thread that writes a store: all appends that wait are committed in one transaction.

    append ─┐
    append ─┼─▶ queue ─▶ BEGIN, blocks, keys, retention, COMMIT ─▶ followers, callers
    delete ─┘

While nothing is appended it removes what is expired, in steps of some milliseconds.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import copy_error
from aiostream_ds.stores.channel_tables import ChannelTables, now_ms
from aiostream_ds.stores.retention import Retention
from aiostream_ds.stores.row_blocks import DamagedBlock, Piece, read_piece
from aiostream_ds.stores.row_followers import CommittedRows, Followers
from aiostream_ds.stores.sqlite_file import StoreFile, Sync, as_store_error
from aiostream_ds.stores.store import CURSOR_COLUMN, AppendResult, StoreError

__all__ = [
    "PendingAppend",
    "PendingDelete",
    "PendingNote",
    "PendingReplica",
    "ReplicaBatch",
    "ReplicaKey",
    "StoreWriter",
]

log = get_logger(__name__)

GROUP = 1_000
"""Appends that are committed in one transaction at most."""

GROUP_BYTES = 8 << 20
"""Encoded bytes after which a transaction is committed."""

_SWEEP_INTERVAL = 10.0
"""Seconds between two looks for expired rows."""

_FILE_INTERVAL = 1.0
"""Seconds between two looks whether the file was removed."""

_VACUUM_PAGES = 256
_FREE_PAGES = 4096  # free pages that are left for later rows


class PendingAppend(NamedTuple):
    """An append that waits. `done` is called in the thread of the writer, with the result or an
    error; `rows` are copies for followers, None if there were none."""

    channel: str
    pieces: list[Piece]
    key: bytes | None
    rows: list[dict[str, Any]] | None
    done: Callable[[AppendResult | StoreError], None]

    @property
    def size(self) -> int:
        return sum(len(piece.data) for piece in self.pieces)


class PendingDelete(NamedTuple):
    """A deletion that waits."""

    channel: str
    done: Callable[[bool | StoreError], None]
    size: int = 0


class PendingNote(NamedTuple):
    """A note that waits to be written."""

    name: str
    value: str
    done: Callable[[None | StoreError], None]
    size: int = 0


class ReplicaBatch(NamedTuple):
    """Rows of a channel whose cursors are known. `stored`: when the key was, in Unix ms."""

    channel: str
    first: int
    pieces: list[Piece]
    key: bytes | None
    stored: int

    @property
    def last(self) -> int:
        return self.first + sum(piece.rows for piece in self.pieces) - 1


class ReplicaKey(NamedTuple):
    """An idempotency key, the cursors of its rows, and when it was stored."""

    channel: str
    key: bytes
    first: int
    last: int
    stored: int


class PendingReplica(NamedTuple):
    """What the store has to have, after the batches of others: done as a whole, in this order.

    Attributes:
        rewind: channels, and the last cursor that each of them keeps.
        epoch: of all channels from now on; empty: as before.
        batches: rows that are there already are left out.
        keys: of rows that are there already.
        meta: what belongs to this, by name; None: removed.
        done: called with the number of cursors that no batch had.
    """

    rewind: Mapping[str, int]
    epoch: str
    batches: Sequence[ReplicaBatch]
    keys: Sequence[ReplicaKey]
    meta: Mapping[str, bytes | None]
    done: Callable[[int | StoreError], None]

    @property
    def size(self) -> int:
        return sum(len(piece.data) for batch in self.batches for piece in batch.pieces)


Pending = PendingAppend | PendingDelete | PendingNote | PendingReplica


class _Change(NamedTuple):
    """What followers get of an operation that was committed; None: the channel was deleted."""

    channel: str
    committed: CommittedRows | None


class StoreWriter(threading.Thread):
    """Writes a store until `close`. `database_lock` is held while the connection is used."""

    def __init__(
        self,
        file: StoreFile,
        retention: Retention,
        followers: Followers,
        database_lock: Any,
    ) -> None:
        super().__init__(name=f"store {file.path or 'in memory'}", daemon=True)
        self._file = file
        self._database = file.writer
        self._followers = followers
        self._database_lock = database_lock
        self._states = ChannelTables(file.writer, file.epoch, file.deletions, retention)
        self._condition = threading.Condition()
        self._queue: deque[Pending] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._is_closing = False
        self._has_more = True  # rows or keys to remove
        self._swept: str | None = ""  # the channels up to this name; None: all
        self._sweep_at = self._file_at = 0.0
        self._failure: str | None = None

    @property
    def bytes(self) -> int:
        """The bytes of all rows and keys."""
        return self._states.bytes

    @property
    def rows_removed(self) -> int:
        """The rows that retention has removed since the store was opened."""
        return self._states.rows_removed

    # -- called in any thread ------------------------------------------------------------------

    def submit(self, pending: Pending) -> bool:
        """Queue an operation. False: the writer is closed."""
        with self._condition:
            if self._is_closing:
                return False
            self._queue.append(pending)
            self._condition.notify()
            return True

    def configure(self, retention: Retention, sync: Sync) -> None:
        """Use other bounds and another policy from the next transaction on."""

        def apply() -> None:
            self._states.retention = retention
            self._database.execute(f"PRAGMA synchronous = {sync}")
            self._sweep_soon()

        self._call(apply)

    def retain(self, channel: str, retention: Retention | None) -> None:
        """See `Store.retain`."""

        def apply() -> None:
            if retention is None:
                self._states.retentions.pop(channel, None)
            else:
                self._states.retentions[channel] = retention
            self._sweep_soon()

        self._call(apply)

    def _call(self, function: Callable[[], None]) -> None:
        with self._condition:
            self._calls.append(function)
            self._condition.notify()

    def close(self) -> None:
        """Commit what waits, close the file, and end the thread. Blocks."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self.join()

    # -- the thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """Write until `close`."""
        try:
            while True:
                group, calls, is_closing = self._next()
                for call in calls:
                    with suppress(Exception):
                        call()
                if group:
                    self._write(group)
                elif is_closing:
                    return
                else:
                    self._maintain()
        finally:
            self._refuse_rest()
            with self._database_lock:
                self._file.close()

    def _refuse_rest(self) -> None:
        """Nothing is written any more: callers that wait get an error."""
        with self._condition:
            self._is_closing = True
            rest = list(self._queue)
            self._queue.clear()
        for pending in rest:
            pending.done(StoreError(f"the store {self._file.path or 'in memory'} is closed"))

    def _next(self) -> tuple[list[Pending], list[Callable[[], None]], bool]:
        """Wait for operations, calls or work of its own."""
        with self._condition:
            if not (self._queue or self._calls or self._is_closing or self._has_more):
                wait = max(self._sweep_at - time.monotonic(), 0.0)
                self._condition.wait(max(wait, 0.01))
            calls = list(self._calls)
            self._calls.clear()
            group: list[Pending] = []
            size = 0
            while self._queue and len(group) < GROUP and size < GROUP_BYTES:
                group.append(self._queue.popleft())
                size += group[-1].size
            return group, calls, self._is_closing

    def _write(self, group: list[Pending]) -> None:
        results: list[Any] = []
        changes: list[_Change] = []
        try:
            self._check_file()
            with self._database_lock:
                self._transaction(lambda: self._apply(group, results, changes))
        except Exception as error:
            failure = error if isinstance(error, StoreError) else self._store_error(error)
            self._log_failure(str(failure))
            for pending in group:
                pending.done(copy_error(failure))
            return
        self._failure = None
        for channel, committed in changes:
            self._followers.put(channel, committed)
        for pending, result in zip(group, results, strict=True):
            pending.done(result)

    def _store_error(self, error: Exception) -> StoreError:
        found = as_store_error(self._file.path, error)
        found.__cause__ = error
        return found

    def _log_failure(self, text: str) -> None:
        """One line for each failure that lasts."""
        if text != self._failure:
            self._failure = text
            log.error("rows are not stored: %s", text)

    def _check_file(self) -> None:
        now = time.monotonic()
        if now < self._file_at:
            return
        if self._file.is_replaced():
            raise StoreError(
                f"{self._file.path} was removed or replaced while it was open: rows would be lost;"
                " restart the plugin, or save the data source again"
            )
        self._file_at = now + _FILE_INTERVAL

    def _transaction(self, work: Callable[[], None]) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            self._states.begin()
            work()
            self._states.save()
            database.execute("COMMIT")
        except BaseException:
            self._states.abandon()
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._states.committed()

    def _apply(
        self,
        group: list[Pending],
        results: list[Any],
        changes: list[_Change],
    ) -> None:
        states, now = self._states, now_ms()
        for pending in group:
            if isinstance(pending, PendingNote):
                states.write_note(pending.name, pending.value)
                results.append(None)
                continue
            if isinstance(pending, PendingDelete):
                results.append(states.remove(pending.channel))
                changes.append(_Change(pending.channel, None))
                self._has_more = True
                continue
            if isinstance(pending, PendingReplica):
                results.append(self._replicate(pending, changes))
                continue
            channel, pieces, key, rows, _ = pending
            known = None if key is None else states.find_key(channel, key, now)
            if known is not None:
                results.append(AppendResult(*known, repeated=True))
                continue
            state = states.get_or_make(channel)
            rows = rows if state.last else None  # followers of a new one may know another epoch
            first = state.last + 1
            states.add(state, pieces)
            if key is not None:
                states.add_key(state, key, first, state.last, now)
            results.append(AppendResult(first, state.last))
            if pieces:
                changes.append(_Change(channel, _committed(rows, first, state.last)))
        states.write(now)
        if states.enforce():
            self._sweep_soon()

    def _replicate(self, pending: PendingReplica, changes: list[_Change]) -> int:
        """Returns the number of cursors that are left out."""
        states = self._states
        if pending.rewind:
            states.write(now_ms())
        for channel, last in pending.rewind.items():
            if states.rewind(channel, last):
                changes.append(_Change(channel, None))
        if pending.epoch:
            changes += [_Change(channel, None) for channel in states.set_epoch(pending.epoch)]
        missing = 0
        for batch in pending.batches:
            state = states.get_or_make(batch.channel)
            is_new = not state.last
            if batch.last <= state.last:
                continue
            if batch.first <= state.last:
                raise StoreError(
                    f"{self._file.path or 'the store in memory'}: {batch.channel!r} has the cursor"
                    f" {state.last}, expected {batch.first - 1}"
                )
            if batch.first > state.last + 1:
                states.write(now_ms())  # what was added before has consecutive cursors
                missing += states.skip(state, batch.first - 1)
                changes.append(_Change(batch.channel, None))
            states.add(state, batch.pieces)
            if batch.key is not None:
                states.add_key(state, batch.key, batch.first, batch.last, batch.stored)
            is_followed = batch.channel in self._followers
            rows = self._rows_of(batch) if is_followed and not is_new else None
            changes.append(_Change(batch.channel, _committed(rows, batch.first, batch.last)))
        for key in pending.keys:
            state = states.get_or_make(key.channel)
            states.add_key(state, key.key, key.first, key.last, key.stored)
        for name, value in pending.meta.items():
            states.write_meta(name, value)
        return missing

    def _rows_of(self, batch: ReplicaBatch) -> list[dict[str, Any]] | None:
        """None: followers read them from the store."""
        rows: list[dict[str, Any]] = []
        try:
            for piece in batch.pieces:
                rows += read_piece(piece, batch.first + len(rows))
        except DamagedBlock:
            return None
        return rows

    def _maintain(self) -> None:
        """One step of what is to be removed; a failure is logged, and tried again later."""
        self._has_more = False
        try:
            with self._database_lock:
                self._transaction(self._remove_step)
                self._vacuum()
        except Exception as error:
            self._log_failure(str(self._store_error(error)))
            self._has_more = False
            self._sweep_at = time.monotonic() + _SWEEP_INTERVAL

    def _remove_step(self) -> None:
        now = time.monotonic()
        if self._states.clean() or self._states.enforce():
            self._has_more = True
        if self._swept is None and now >= self._sweep_at:
            self._swept = ""
        if self._swept is not None:
            self._swept = self._states.sweep(now_ms(), self._swept)
            if self._swept is None:
                self._sweep_at = now + _SWEEP_INTERVAL
            else:
                self._has_more = True

    def _sweep_soon(self) -> None:
        self._has_more, self._swept = True, ""

    def _vacuum(self) -> None:
        """Give free pages back to the file system, if there are many."""
        free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
        pages = self._database.execute("PRAGMA page_count").fetchone()[0]
        if free > max(_FREE_PAGES, pages // 4):
            self._database.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
            self._has_more = True


def _committed(rows: list[dict[str, Any]] | None, first: int, last: int) -> CommittedRows | None:
    """None: a follower that came meanwhile reads the rows from the store."""
    if rows is None:
        return None
    for cursor, row in enumerate(rows, first):
        row[CURSOR_COLUMN] = cursor
    return CommittedRows(first, last, rows)
