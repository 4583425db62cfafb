"""Rows that wait until they are in the log that several servers share, and the entries that this
server makes of them.

An entry that was overtaken by another server's is void, and its rows are written again: they wait
until an entry with them is in the store.
"""

import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from aiostream_ds._store_replication.store_chain import META, StoreChain
from aiostream_ds._store_replication.store_entries import StoreEntry, new_tag
from aiostream_ds._store_replication.store_recovery import RecoveredBatch
from aiostream_ds._store_replication.waiting_batches import GROUP_BYTES, WaitingBatch
from aiostream_ds.stores import AppendResult, StoreError
from aiostream_ds.stores.channel_tables import now_ms
from aiostream_ds.stores.row_blocks import Piece
from aiostream_ds.stores.sqlite_store import SqliteStore, key_digest
from aiostream_ds.stores.sqlite_writer import ReplicaBatch

__all__ = ["RECOVERED", "EntryWriter", "WrittenEntry"]

RECOVERED = f"{META}recovered"
"""The name under which a store keeps the batches that were in the log before, and are written
again."""

_ATTEMPTS = 32  # entries whose fate is not known yet


class WrittenEntry(NamedTuple):
    """An entry for the log, and the batches that it has."""

    entry: StoreEntry
    group: Sequence[WaitingBatch]


class EntryWriter:
    """The rows of one store that wait.

    Args:
        store: knows the keys of rows.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._waiting: deque[WaitingBatch] = deque()
        self._attempts: dict[bytes, list[tuple[WaitingBatch, ReplicaBatch]]] = {}
        self._group_bytes = GROUP_BYTES

    @property
    def has_rows(self) -> bool:
        """Whether rows wait."""
        return bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows that wait."""
        return sum(each.size for each in self._waiting)

    # -- what waits ----------------------------------------------------------------------------

    def add(
        self, channel: str, parts: Sequence[list[Piece]], key: str | None
    ) -> list[WaitingBatch]:
        """Rows that were pushed, in parts of an entry each."""
        added = []
        for number, part in enumerate(parts):
            digest = None if key is None else key_digest(key, number)
            added.append(WaitingBatch(channel, part, digest))
        self._waiting.extend(added)
        return added

    def give_up(self, batch: WaitingBatch, reason: str) -> None:
        """Nobody waits for a batch any more. It may be in the log."""
        self._waiting = deque(each for each in self._waiting if each is not batch)
        batch.finish(StoreError(f"the rows are not stored on all servers: {reason}"))

    def fail(self, reason: str) -> None:
        """The store does not take rows. Those that were in it are kept."""
        for each in self._waiting:
            if each.old_first is None:
                each.finish(StoreError(reason))
        self._forget_finished()

    def close(self) -> None:
        """No row is written any more."""
        for each in self._waiting:
            each.finish(StoreError("the store is closed"))

    def load(self, recovered: bytes | None) -> None:
        """What the store has under `RECOVERED`, after a start."""
        if recovered is not None and not any(each.old_first for each in self._waiting):
            self.write_again(msgspec.msgpack.decode(recovered, type=list[RecoveredBatch]))

    def write_again(self, found: Sequence[RecoveredBatch]) -> None:
        """Batches of this server that the others do not have come first."""
        again = []
        for each in found:
            batch = WaitingBatch(each.channel, each.pieces, each.key, each.first)
            batch.id, batch.stored = each.id, each.stored
            again.append(batch)
        self._waiting = deque([*again, *self._waiting])

    def recovered(self, more: Sequence[RecoveredBatch] = ()) -> bytes:
        """What the store has to keep under `RECOVERED`: what waits, and more."""
        kept = [
            RecoveredBatch(
                each.channel, each.old_first, each.pieces, each.key, each.id, each.stored
            )
            for each in self._waiting
            if each.old_first is not None and each.result is None
        ]
        return msgspec.msgpack.encode(kept + list(more))

    # -- entries -------------------------------------------------------------------------------

    async def next_entry(self, chain: StoreChain, lasts: Mapping[str, int]) -> WrittenEntry | None:
        """The entry with the first batches that wait, which follows the last one of a chain. None:
        all of their rows are stored already. Raises StoreError."""
        group, known = await self._group()
        epoch = chain.epoch or os.urandom(6).hex()
        ends: dict[str, int] = {}
        batches: list[ReplicaBatch] = []
        now = now_ms()
        for each in group:
            first = ends.get(each.channel, lasts.get(each.channel, 0)) + 1
            batches.append(ReplicaBatch(each.channel, first, each.pieces, each.key, now))
            ends[each.channel] = batches[-1].last
        pairs = list(zip(group, batches, strict=True))
        has_moved = any(each.old_first not in (None, batch.first) for each, batch in pairs)
        if has_moved or any(each.has_moved for each in known):
            epoch = os.urandom(6).hex()  # viewers have seen other cursors of these rows
        if not batches and epoch == chain.epoch:
            return None
        tag = new_tag()
        self._attempts[tag] = pairs
        while len(self._attempts) > _ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        ids = [each.id for each in group]
        return WrittenEntry(StoreEntry.of(tag, chain.tag, epoch, batches, ids), group)

    async def _group(self) -> tuple[list[WaitingBatch], list[WaitingBatch]]:
        """The batches for one entry; and those that are stored, which are done."""
        group: list[WaitingBatch] = []
        size = 0
        keys: set[tuple[str, bytes]] = set()
        for each in self._waiting:
            if group and size + each.size > self._group_bytes:
                break
            if each.key is not None and (each.channel, each.key) in keys:
                continue  # known when the first one is stored
            if each.key is not None:
                keys.add((each.channel, each.key))
            group.append(each)
            size += each.size
        found = await self._store.find_keys(list(keys)) if keys else {}
        known = []
        for each in group:
            stored = found.get((each.channel, each.key)) if each.key is not None else None
            if each.stored:
                stored = (each.stored, each.stored + each.rows - 1)
            if stored is not None:
                each.finish(AppendResult(*stored, repeated=True))
                known.append(each)
        if known:
            await self._forget_recovered(any(each.old_first for each in known))
            self._forget_finished()
        return [each for each in group if each.result is None], known

    def too_large(self, group: Sequence[WaitingBatch], error: Exception) -> None:
        """The engine does not take an entry with these batches: the next one has one batch."""
        if len(group) > 1:
            self._group_bytes = 1
            return
        group[0].finish(ValueError(f"a row is too large for the cluster: {error}"))
        self._forget_finished()

    def written(self) -> None:
        """The engine has taken an entry."""
        self._group_bytes = GROUP_BYTES

    # -- what is stored ------------------------------------------------------------------------

    def found(self, entries: Collection[StoreEntry]) -> dict[str, bytes | None]:
        """These entries are about to be stored. Rows that wait to be written again may be in them:
        in an entry that was void when they were written, and another one is now. Returns what has
        to be stored with them."""
        again = {each.id: each for each in self._waiting if each.old_first and each.id}
        if not again:
            return {}
        firsts = {
            id: first for entry in entries for each in entry.ids().values() for first, id in each
        }
        for id in again.keys() & firsts.keys():
            again[id].stored = firsts[id]
        return {RECOVERED: self.recovered()} if again.keys() & firsts.keys() else {}

    async def stored(self, tags: Sequence[bytes]) -> None:
        """Entries are in the store: those of this server are done."""
        for tag in tags:
            pairs = self._attempts.pop(tag, [])
            for each, batch in pairs:
                each.finish(AppendResult(batch.first, batch.last))
            if pairs:
                await self._forget_recovered(any(each.old_first for each, _ in pairs))
                self._forget_finished()

    async def _forget_recovered(self, some_are_stored: bool) -> None:
        left = any(each.old_first and each.result is None for each in self._waiting)
        if some_are_stored and not left:
            await self._store.replicate([], {RECOVERED: None})

    def _forget_finished(self) -> None:
        self._waiting = deque(each for each in self._waiting if each.result is None)
