"""The channels of a store: how rows are added to them and removed."""

import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from aiostream_ds.stores.channel_numbers import (
    KEY_BYTES,
    Block,
    BlockTail,
    ChannelNumbers,
    Contents,
    Keys,
    epoch_of,
)
from aiostream_ds.stores.retention import KEY_SECONDS, KEYS, Retention
from aiostream_ds.stores.row_blocks import Piece, read_block, split_rows
from aiostream_ds.stores.store import CURSOR_COLUMN

if TYPE_CHECKING:
    import sqlite3

__all__ = ["ChannelTables", "now_ms"]

STEP = 200
"""Blocks or keys that are removed in one transaction."""

TAIL_BYTES = 8 << 10
"""Encoded bytes up to which the newest block is written again with further rows."""

TAILS = 1_000
"""Channels whose newest block can get further rows: they are kept in memory."""

BLOCK_BYTES = 64 << 10
"""Encoded bytes of small pieces that are one block at most."""

BLOCK_ROWS = 5_000
"""Rows of small pieces that are one block at most."""

_AGE_SCAN = 256
"""Oldest blocks of a channel among which an expired one is looked for."""

_FEW = 8
"""Blocks or keys that are looked at first: mostly one is removed."""

_TAIL_AGE = 64
"""The newest block gets rows for at most this part of the time for which they are kept."""


_CHANNELS = (
    "SELECT id, name, epoch, first, last, rows, bytes,"
    " (SELECT number FROM keys WHERE channel = channels.id ORDER BY number LIMIT 1),"
    " (SELECT number FROM keys WHERE channel = channels.id ORDER BY number DESC LIMIT 1)"
    " FROM channels"
)
_NEWEST = (
    "SELECT name FROM channels WHERE id = (SELECT channel FROM blocks ORDER BY id DESC LIMIT 1)"
)


class ChannelTables:
    """The channels of a store. Used by the thread of the writer, in a transaction.

    Each transaction is `begin`, changes, `write`, `enforce`, `save`, and `committed`, or
    `abandon` if it fails.
    """

    def __init__(
        self, database: "sqlite3.Connection", epoch: str, deletions: int, retention: Retention
    ) -> None:
        self._database = database
        self._epoch = epoch
        self._deletions = deletions
        self._states: dict[str, ChannelNumbers] = {}
        self._changed: dict[str, ChannelNumbers] = {}
        self._tails: dict[int, ChannelNumbers] = {}  # with a tail; that of the last append is last
        self.retention = retention
        self.retentions: dict[str, Retention] = {}
        self.bytes = 0
        self.rows_removed = 0  # in transactions that are committed
        self._rows_removing = 0  # in this one
        self._newest: ChannelNumbers | None = None  # of the last rows
        self._must_reload = True
        self.begin()

    def begin(self) -> None:
        """A transaction begins: read all channels again if the last one has failed."""
        self._rows_removing = 0
        if not self._must_reload:
            return
        self._changed.clear()
        self._tails.clear()
        self._states = {}
        self.bytes = 0
        for *numbers, oldest, newest in self._database.execute(_CHANNELS):
            state = ChannelNumbers(*numbers)
            if newest is not None:
                state.keys = Keys(oldest, newest)
            self._states[state.name] = state
            self.bytes += state.size
        row = self._database.execute(_NEWEST).fetchone()
        self._newest = None if row is None else self._states.get(row[0])
        statement = "SELECT value FROM meta WHERE name = 'deletions'"
        self._deletions = self._database.execute(statement).fetchone()[0]
        self._must_reload = False

    def committed(self) -> None:
        """The transaction is committed."""
        self.rows_removed += self._rows_removing
        self._rows_removing = 0

    def abandon(self) -> None:
        """The transaction has failed."""
        self._must_reload = True

    def get_or_make(self, name: str) -> ChannelNumbers:
        """The channel; it is made if there is none."""
        found = self._states.get(name)
        if found is None:
            epoch = epoch_of(self._epoch, self._deletions)
            row = (name, epoch, 1, 0, 0, 0)
            statement = (
                "INSERT INTO channels (name, epoch, first, last, rows, bytes) VALUES (?,?,?,?,?,?)"
            )
            number = self._database.execute(statement, row).lastrowid
            found = self._states[name] = ChannelNumbers(number or 0, name, epoch, 1, 0, 0, 0)
        return found

    def skip(self, state: ChannelNumbers, last: int) -> int:
        """Go on after a cursor that no row has. Returns how many cursors are left out."""
        missing = max(last - state.last, 0)
        if missing:
            state.last = state.written = last
            state.tail = None
            self._tails.pop(state.id, None)
            if not state.rows:
                state.first = last + 1
            self._changed[state.name] = state
        return missing

    def set_epoch(self, epoch: str) -> list[str]:
        """Give all channels, also later ones, another epoch. Returns the names of those that are
        changed."""
        database = self._database
        database.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
        database.execute("UPDATE meta SET value = 0 WHERE name = 'deletions'")
        self._epoch, self._deletions = epoch, 0
        changed = [state for state in self._states.values() if state.epoch != epoch]
        if changed:
            database.execute("UPDATE channels SET epoch = ?", (epoch,))
        for state in changed:
            state.epoch = epoch
        return [state.name for state in changed]

    def rewind(self, name: str, last: int) -> bool:
        """Remove the rows of a channel after a cursor, and their keys. Whether there were some."""
        state = self._states.get(name)
        if state is None or state.last <= last:
            return False
        database = self._database
        found = database.execute(
            "SELECT id, first, rows, size, data FROM blocks WHERE channel = ? AND first + rows > ?",
            (state.id, last + 1),
        ).fetchall()
        for number, first, rows, size, data in found:
            if first > last:
                database.execute("DELETE FROM blocks WHERE id = ?", (number,))
                self._add_bytes(state, -size)
            else:
                block = Contents.of(_first_rows(data, last + 1 - first))
                database.execute(
                    "UPDATE blocks SET rows = ?, low = ?, high = ?, size = ?, data = ?"
                    " WHERE id = ?",
                    (block.rows, block.low, block.high, block.size, block.data, number),
                )
                self._add_bytes(state, block.size - size)
            state.rows -= max(first + rows - max(first, last + 1, state.first), 0)
        state.first = min(state.first, last + 1)
        state.last = state.written = last
        state.tail = None
        self._tails.pop(state.id, None)
        database.execute("DELETE FROM keys WHERE channel = ? AND last > ?", (state.id, last))
        statement = "SELECT min(number), max(number) FROM keys WHERE channel = ?"
        oldest, newest = database.execute(statement, (state.id,)).fetchone()
        self._set_keys(state, Keys() if newest is None else Keys(oldest, newest))
        self._changed[name] = state
        return True

    # -- keys ----------------------------------------------------------------------------------

    def find_key(self, channel: str, key: bytes, now: int) -> tuple[int, int] | None:
        """The cursors that were stored with a key, if it is not too old."""
        state = self._states.get(channel)
        if state is None:
            return None
        statement = "SELECT first, last, stored FROM keys WHERE channel = ? AND key = ?"
        row = self._database.execute(statement, (state.id, key)).fetchone()
        if row is None or now - row[2] > KEY_SECONDS * 1000:
            return None
        return row[0], row[1]

    def add_key(self, state: ChannelNumbers, key: bytes, first: int, last: int, now: int) -> None:
        """Remember a key, and forget old ones."""
        number = state.keys.newest + 1
        self._database.execute(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
            (state.id, key, first, last, now, number),
        )
        self._set_keys(state, state.keys._replace(newest=number))
        # more than one for each that is added: the table shrinks after the newest ones were many
        self._remove_old_keys(state, now, 2)

    def _set_keys(self, state: ChannelNumbers, keys: Keys) -> None:
        self.bytes += keys.size - state.keys.size
        state.keys = keys

    def _remove_old_keys(self, state: ChannelNumbers, now: int, most: int) -> int:
        """Forget keys that are too old, or too many. Returns how many."""
        too_many = state.keys.newest - KEYS

        def is_old(number: int, stored: int, last: int) -> bool:
            return number <= too_many or now - stored > KEY_SECONDS * 1000

        return self._remove_keys(state, is_old, most)

    def _remove_keys(
        self, state: ChannelNumbers, is_old: Callable[[int, int, int], bool], most: int
    ) -> int:
        """Forget the oldest keys up to the last one that is old, of so many. Returns how many."""
        if state.keys.oldest > state.keys.newest:
            return 0
        statement = (
            "SELECT number, stored, last FROM keys WHERE channel = ? ORDER BY number LIMIT ?"
        )
        found = self._database.execute(statement, (state.id, most + 1)).fetchall()
        old = [index for index, row in enumerate(found[:most]) if is_old(*row)]
        if not old:
            return 0
        count = old[-1] + 1
        statement = "DELETE FROM keys WHERE channel = ? AND number <= ?"
        self._database.execute(statement, (state.id, found[count - 1][0]))
        newest = state.keys.newest
        oldest = found[count][0] if count < len(found) else newest + 1
        self._set_keys(state, Keys(oldest, newest))
        return count

    # -- rows ----------------------------------------------------------------------------------

    def add(self, state: ChannelNumbers, pieces: list[Piece]) -> None:
        """Append rows to a channel; `write` writes them."""
        state.unwritten += pieces
        state.last += sum(piece.rows for piece in pieces)
        self._changed[state.name] = state

    def write(self, now: int) -> None:
        """Write the rows that were added in this transaction; small pieces share a block."""
        for state in self._changed.values():
            self._newest = state
            pieces, state.unwritten = state.unwritten, []
            start = self._extend_tail(state, pieces, now)
            while start < len(pieces):
                end = _end_of_block(pieces, start, BLOCK_BYTES)
                self._new_block(state, pieces[start:end], now)
                start = end

    def _extend_tail(self, state: ChannelNumbers, pieces: list[Piece], now: int) -> int:
        """Add as many pieces to the newest block as it takes. Returns how many."""
        tail = state.tail
        if tail is None or now - tail.stored > 1000 * self._retention_of(state).seconds / _TAIL_AGE:
            return 0
        known = tail.pieces
        found = [*known, *pieces]
        end = _end_of_block(found, 0, TAIL_BYTES)
        if end <= len(known):
            return 0
        found = found[:end]
        block = Contents.of(found)
        self._database.execute(
            "UPDATE blocks SET rows = ?, low = ?, high = ?, stored = ?, size = ?, data = ?"
            " WHERE id = ?",
            (block.rows, block.low, block.high, now, block.size, block.data, tail.id),
        )
        self._count(state, sum(piece.rows for piece in found[len(known) :]), block.size - tail.size)
        self._set_tail(state, tail._replace(pieces=found, size=block.size))
        return end - len(known)

    def _new_block(self, state: ChannelNumbers, pieces: list[Piece], now: int) -> None:
        block = Contents.of(pieces)
        first = state.written + 1
        statement = (
            "INSERT INTO blocks (channel, first, rows, low, high, stored, size, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        row = (state.id, first, block.rows, block.low, block.high, now, block.size, block.data)
        number = self._database.execute(statement, row).lastrowid or 0
        state.has_newest_only = False
        if not state.rows:
            state.first = first
        self._count(state, block.rows, block.size)
        self._set_tail(state, BlockTail(number, pieces, now, block.size))

    def _set_tail(self, state: ChannelNumbers, tail: BlockTail) -> None:
        """Remember the newest block of a channel, if it may become larger."""
        self._tails.pop(state.id, None)
        state.tail = None
        if sum(len(piece.data) for piece in tail.pieces) < TAIL_BYTES:
            state.tail = tail
            self._tails[state.id] = state
            if len(self._tails) > TAILS:
                self._tails.pop(next(iter(self._tails))).tail = None

    def _count(self, state: ChannelNumbers, rows: int, size: int) -> None:
        """Rows were written."""
        state.written += rows
        state.rows += rows
        self._add_bytes(state, size)

    def _add_bytes(self, state: ChannelNumbers, size: int) -> None:
        state.bytes += size
        self.bytes += size

    # -- retention -----------------------------------------------------------------------------

    def _retention_of(self, state: ChannelNumbers) -> Retention:
        return self.retentions.get(state.name, self.retention)

    def enforce(self) -> bool:
        """Remove what exceeds the bounds in the channels that have changed, and in all together; at
        most some `STEP` blocks. Whether there may be more."""
        left = STEP
        for state in tuple(self._changed.values()):
            left -= self._remove_excess(state, left)
        if left > 0 and self.bytes > self.retention.total_bytes:
            left -= self._remove_total_excess(left)
        return left <= 0

    def _remove_total_excess(self, most: int) -> int:
        """Remove the oldest rows of the largest channels; if each has only its newest rows, these,
        too, but not the last ones that were stored. Returns the number of blocks and keys."""
        removed = 0
        largest = [(-state.size, state.id, state) for state in self._states.values()]
        heapify(largest)
        smallest: list[ChannelNumbers] = []  # with their newest rows only; the largest one first
        while removed < most and (excess := self.bytes - self.retention.total_bytes) > 0:
            if not largest:
                break
            _, _, state = heappop(largest)
            count = self._remove_bytes(state, min(excess, state.size // 16 + 1), most - removed)
            removed += count
            if count:
                heappush(largest, (-state.size, state.id, state))
            else:
                smallest.append(state)
        for state in smallest:
            if removed >= most or self.bytes <= self.retention.total_bytes:
                break
            if state is self._newest:
                continue
            for block in self._oldest(state, 1):
                self._remove_block(state, block)
                removed += 1
            removed += self._remove_keys_of_removed_rows(state, STEP)
        return removed

    def sweep(self, now: int, after: str) -> str | None:
        """Remove expired rows and what exceeds the bounds in some channels, in the order of their
        names after this one. Returns the name to go on with; None: all are done."""
        names = sorted(name for name in self._states if name > after)
        left = STEP
        for name in names[:STEP]:
            state = self._states[name]
            left -= self._remove_expired(state, now, left)
            left -= self._remove_old_keys(state, now, left)
            left -= self._remove_excess(state, left)
            if left <= 0:
                return after
            after = name
        return after if len(names) > STEP else None

    def _remove_excess(self, state: ChannelNumbers, most: int) -> int:
        """Remove what exceeds the bounds of one channel. Returns the number of blocks."""
        retention = self._retention_of(state)
        removed = 0
        if state.size > retention.bytes:
            removed = self._remove_bytes(state, state.size - retention.bytes, most)
        if state.rows > retention.rows:
            removed += self._remove_rows(state, state.rows - retention.rows, most - removed)
        return removed

    def _remove_expired(self, state: ChannelNumbers, now: int, most: int) -> int:
        """Blocks are stored in the order of their cursors: what precedes an expired one is expired,
        also if the clock was wrong when it was stored."""
        oldest = now - self._retention_of(state).seconds * 1000
        first = self._oldest(state, 1)
        if not first or oldest <= first[0].stored <= now:  # the frequent case
            return 0
        blocks = self._oldest(state, min(_AGE_SCAN, most))
        expired = [index for index, block in enumerate(blocks) if block.stored < oldest]
        for block in blocks[: expired[-1] + 1] if expired else ():
            self._remove_block(state, block)
        return expired[-1] + 1 if expired else 0

    def _remove_bytes(self, state: ChannelNumbers, excess: int, most: int) -> int:
        """Remove so many bytes: keys of rows that were removed, and the oldest blocks, but not the
        newest one. Returns the number of both."""
        removed = 0
        size = state.size
        if state.has_newest_only:
            return 0
        while removed < most and (left := excess + state.size - size) > 0:
            few = min(most - removed, -(-left // KEY_BYTES), _FEW)
            count = self._remove_keys_of_removed_rows(state, few)
            if not count:
                blocks = self._oldest(state, 2)
                if len(blocks) < 2:
                    state.has_newest_only = True
                    break
                self._remove_block(state, blocks[0])
                count = 1
            removed += count
        return removed

    def _remove_keys_of_removed_rows(self, state: ChannelNumbers, most: int) -> int:
        def is_removed(number: int, stored: int, last: int) -> bool:
            return last < state.first

        return self._remove_keys(state, is_removed, most)

    def _remove_rows(self, state: ChannelNumbers, excess: int, most: int) -> int:
        """Remove the oldest rows; those of a block that has others are only not read any more."""
        removed = 0
        while excess > 0 and removed < most:
            for block in self._oldest(state, min(most - removed, _FEW)):
                first = max(block.first, state.first)
                rows = block.first + block.rows - first
                if rows > excess:
                    state.has_newest_only = False  # keys of these rows may be removed
                    state.first = first + excess
                    state.rows -= excess
                    self._rows_removing += excess
                    return removed
                self._remove_block(state, block)
                excess -= rows
                removed += 1
                if not excess:
                    break
        return removed

    def _oldest(self, state: ChannelNumbers, most: int) -> list[Block]:
        statement = (
            "SELECT id, first, rows, size, stored FROM blocks WHERE channel = ?"
            " ORDER BY first LIMIT ?"
        )
        return [Block(*row) for row in self._database.execute(statement, (state.id, most))]

    def _remove_block(self, state: ChannelNumbers, block: Block) -> None:
        """Remove the oldest block."""
        self._database.execute("DELETE FROM blocks WHERE id = ?", (block.id,))
        end = block.first + block.rows
        rows = end - max(block.first, state.first)
        state.rows -= rows
        self._rows_removing += rows
        self._add_bytes(state, -block.size)
        state.has_newest_only = False
        state.first = end if state.rows else state.last + 1
        if state.tail is not None and state.tail.id == block.id:
            state.tail = None
        self._changed[state.name] = state

    def remove(self, name: str) -> bool:
        """Remove a channel; its rows and keys are removed by `clean`."""
        state = self._states.pop(name, None)
        if state is None:
            return False
        self._changed.pop(name, None)
        self._tails.pop(state.id, None)
        self.bytes -= state.size
        self._deletions += 1
        database = self._database
        database.execute("DELETE FROM channels WHERE id = ?", (state.id,))
        database.execute("INSERT INTO removed VALUES (?)", (state.id,))
        statement = "UPDATE meta SET value = ? WHERE name = 'deletions'"
        database.execute(statement, (self._deletions,))
        return True

    def clean(self) -> bool:
        """Remove some rows and keys of removed channels; whether there may be more."""
        row = self._database.execute("SELECT channel FROM removed LIMIT 1").fetchone()
        if row is None:
            return False
        count = 0
        for table, key in (("blocks", "id"), ("keys", "number")):
            count += self._database.execute(
                f"DELETE FROM {table} WHERE channel = ?1 AND {key} IN"
                f" (SELECT {key} FROM {table} WHERE channel = ?1 LIMIT ?2)",
                (row[0], STEP),
            ).rowcount
        if not count:
            self._database.execute("DELETE FROM removed WHERE channel = ?", row)
        return True

    def write_meta(self, name: str, value: bytes | None) -> None:
        """Write what belongs to the rows of this transaction; None: remove it."""
        if value is None:
            self._database.execute("DELETE FROM meta WHERE name = ?", (name,))
        else:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def write_note(self, name: str, value: str) -> None:
        """Write a text that is not of a channel."""
        row = (f"note {name}", value)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def save(self) -> None:
        """Write the numbers of the channels that have changed, before the commit."""
        self._database.executemany(
            "UPDATE channels SET first = ?, last = ?, rows = ?, bytes = ? WHERE id = ?",
            [(s.first, s.last, s.rows, s.bytes, s.id) for s in self._changed.values()],
        )
        self._changed.clear()


def _first_rows(block: bytes, count: int) -> list[Piece]:
    """The first rows of a block as pieces."""
    rows: list[dict[str, Any]] = []
    for segment in read_block(block):
        rows += segment.to_dicts(1)
    for row in rows:
        del row[CURSOR_COLUMN]
    return split_rows(rows[:count], now_ms())


def _end_of_block(pieces: list[Piece], start: int, size: int) -> int:
    """The end of the pieces that are one block: one, or several with so many bytes."""
    end, rows = start + 1, pieces[start].rows
    size -= len(pieces[start].data)
    while end < len(pieces) and pieces[end].is_far == pieces[start].is_far:
        size -= len(pieces[end].data)
        rows += pieces[end].rows
        if size < 0 or rows > BLOCK_ROWS:
            break
        end += 1
    return end


def now_ms() -> int:
    """The time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
